# SPDX-License-Identifier: Apache-2.0
"""Which programs of a run were not traced, and why.

The agents of a run keep a list together: what was started, and where an agent came up. What was
started and has no agent is named. Programs that nobody listed - those that start others by system
calls of their own, as Go's do - are seen when they run for a while.
"""

from __future__ import annotations

import os
import re
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from leakscope._paths import exists
from leakscope.errors import LeakscopeError
from leakscope.proc.maps import read_maps
from leakscope.proc.process import children_of, read_executable
from leakscope.recording import layout
from leakscope.trace.preflight import inspect_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Starts"]

_NAME = re.compile(r"starts\.\d{1,10}")
_BYTES = layout.STARTS_DTYPE.itemsize
_SETTLED_S = 1.0  # a program that has run for so long has loaded its libraries
_EXEC, _SPAWN = layout.START_EXEC, layout.START_SPAWN
_ARRIVED, _MUTE = layout.START_ARRIVED, layout.START_MUTE
_FILTERED = layout.START_FILTERED


@dataclass(slots=True)
class Starts:
    """What is known of the programs of one run. `root` is the process that was started."""

    directory: Path
    root: int
    environment: Mapping[str, str]
    root_left: bool = False  # the root became a program without an agent, says `untraced`
    _lists: dict[str, dict[int, tuple[int, int, str]]] = field(default_factory=dict)
    _seen: dict[int, float] = field(default_factory=dict)  # pid: since when, without an agent
    _without: dict[int, str] = field(default_factory=dict)  # pid: program
    _filtered: set[str] = field(default_factory=set)  # programs begun under a system call filter

    def look(self) -> None:
        """Read what is listed, and look at the processes that run. Cheap; call it now and then."""
        for path in self.files():
            entries = self._lists.setdefault(path.name, {})
            for number, kind, pid, program in _entries(path):
                entries[number] = (kind & ~_FILTERED, pid, program)
                if kind & _FILTERED:
                    self._filtered.add(program)
        now = time.monotonic()
        running = set(self._descendants())
        self._seen = {pid: since for pid, since in self._seen.items() if pid in running}
        for pid in running - self._without.keys():
            since = self._seen.setdefault(pid, now)
            if now - since < _SETTLED_S or pid == self.root:
                continue
            name = None if _has_agent(pid) else read_executable(pid)
            if name is None:
                self._seen[pid] = float("inf")  # not to be looked at again
            else:
                self._without[pid] = name

    def files(self) -> list[Path]:
        """Return the files of the list."""
        try:
            return [path for path in self.directory.iterdir() if _NAME.fullmatch(path.name)]
        except OSError:
            return []

    def untraced(self) -> tuple[str, ...]:
        """Return a sentence for each program that was started and had no agent."""
        self.look()
        found = dict(self._without)
        found |= dict(self._unanswered())
        self.root_left = self.root in found
        counts: dict[str, int] = {}
        for program in found.values():
            counts[program] = counts.get(program, 0) + 1
        sentences = [
            f"{program} was not traced{_times(count)}: {self._reason(program)}"
            for program, count in counts.items()
        ]
        every = [entry for entries in self._lists.values() for entry in entries.values()]
        for program in dict.fromkeys(name for kind, _, name in every if kind == _MUTE):
            count = sum(kind == _MUTE and name == program for kind, _, name in every)
            sentences.append(
                f"{program or 'a program'} forked{_times(count)} what was not traced: it may not"
                f" write recordings any more, as another user or in another root directory"
            )
        return tuple(sentences)

    def _unanswered(self) -> Iterator[tuple[int, str]]:
        arrivals: dict[int, list[tuple[str, int]]] = {}
        for name, entries in self._lists.items():
            for number, (kind, pid, _) in entries.items():
                if kind == _ARRIVED:
                    arrivals.setdefault(pid, []).append((name, number))
        for name, entries in self._lists.items():
            for number, (kind, pid, program) in entries.items():
                if kind not in (_EXEC, _SPAWN):
                    continue
                # Numbers of different users' lists say nothing about what came first.
                answered = any(
                    kind == _SPAWN or other != name or at > number
                    for other, at in arrivals.get(pid, ())
                )
                if not answered and not _has_agent(pid):
                    yield pid, program

    def _reason(self, program: str) -> str:
        if "/" in program and not exists(program):
            return "it was not found from here, as in another root directory or since removed"
        try:
            inspect_program(program, self.environment)
        except LeakscopeError as error:
            return f"{error}"
        if program in self._filtered:
            return (
                "it began under a system call filter (seccomp) of the program that started it,"
                " which forbids or punishes what recording needs there"
            )
        return (
            "the agent was taken from its environment, or may not be loaded or write its"
            " recording there (another user, root directory or namespace), or it began under a system"
            " call filter (seccomp) that might have killed it for the agent's calls"
        )

    def _descendants(self) -> Iterator[int]:
        pending, seen = [self.root], set()
        while pending:
            pid = pending.pop()
            if pid not in seen:
                seen.add(pid)
                yield pid
                pending += children_of(pid)


def _entries(path: Path) -> Iterator[tuple[int, int, int, str]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        status = os.fstat(fd)
        # Named by the user who writes it: nobody lists programs in the name of another.
        if not stat.S_ISREG(status.st_mode) or path.name != f"starts.{status.st_uid}":
            return
        data = os.pread(fd, _BYTES, 0)
    except OSError:
        return
    finally:
        os.close(fd)
    if len(data) != _BYTES:
        return
    for entry in np.frombuffer(data, layout.STARTS_DTYPE)[0]["starts"]:
        if entry["kind"]:
            program = bytes(entry["path"]).decode("utf-8", "replace")
            yield int(entry["number"]), int(entry["kind"]), int(entry["pid"]), program


def _has_agent(pid: int) -> bool:
    """Whether the agent is mapped into a process that runs; of one that ended, nothing is known."""
    try:
        return any("libleakscope-agent" in mapping.path for mapping in read_maps(pid))
    except LeakscopeError:
        return False


def _times(count: int) -> str:
    return f" ({count} processes)" if count > 1 else ""
