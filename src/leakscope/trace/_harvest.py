# SPDX-License-Identifier: Apache-2.0
"""Turn live recordings of one run into packed files, without losing one.

A live recording is removed only after its packed file is complete; when packing fails, it
stays and the error says where.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.errors import LeakscopeError
from leakscope.recording import live, packed
from leakscope.recording.layout import STATE_EXECED, STATE_EXITED
from leakscope.recording.writer import own_namespace
from leakscope.trace._glance import Glance
from leakscope.trace._resident import ResidentCourses
from leakscope.trace.farewell import Farewells, with_reachability
from leakscope.trace.live_files import LiveFile, list_live_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from leakscope.model.recordings import Process, Recording
    from leakscope.trace.output import Output

__all__ = ["Harvest", "Packed", "ending"]

# A fork that only lives until its exec says nothing about a program: its memory is gone.
_STUB_NS = 1_000_000_000
# A server may fork thousands: of those that leave nothing, the first so many have files.
_MOST_EMPTY = 256
# A killed program's recording ends with its last event. That it was alive later counts when it was
# so by more than scheduling and looking take.
_IDLE_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Packed:
    """A recording and the file it was written to."""

    recording: Recording
    path: Path


@dataclass(slots=True)
class Harvest:
    """The recordings of one run. `root` is the pid of the program that was started."""

    directory: Path
    output: Output
    root: int
    children: bool = True
    farewells: Farewells | None = None
    keep_all: bool = True  # also what a process left that ended at once and freed every block
    packed: list[Packed] = field(default_factory=list)
    snapshots: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: int = 0  # forks that ended in an exec
    left: str | None = None  # the root's last program, if it ended without a word to us
    empty: int = 0  # processes that freed every block, and whose recordings were not kept
    before_kill: Callable[[Path], Recording | None] | None = None  # the last examination of one
    is_clean: Callable[[Recording], bool] | None = None  # whether there is nothing to tell of one
    clean: int = 0  # children of which it said so
    quiet: int = 0  # brief children that were searched, without a lost block
    unstarted: int = 0  # live files whose agent was stopped before it recorded
    _dumps: dict[Path, int] = field(default_factory=dict)
    _alive: dict[Path, int] = field(default_factory=dict)  # CLOCK_MONOTONIC, last seen alive
    _broken: set[Path] = field(default_factory=set)
    _resident: ResidentCourses = field(default_factory=ResidentCourses)

    def live_files(self) -> tuple[LiveFile, ...]:
        """Live recordings that are still there and can be read."""
        return tuple(
            file for file in list_live_files(self.directory) if file.path not in self._broken
        )

    def look_who_lives(self) -> None:
        """Note which processes are alive: one that is killed while it idles leaves no word of it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for file in self.live_files():
            if Path(f"/proc/{file.pid}").exists():
                self._alive[file.path] = now
                self._resident.look(file.path, file.pid)

    def take_snapshots(self) -> None:
        """Pack a snapshot of each process that received the dump signal since the last call."""
        for file in self.live_files():
            try:
                asked = file.field("dump_requests")
            except LeakscopeError:
                continue  # it begins right now, or is gone
            try:
                seen = self._dumps.get(file.path, 0)
                if asked != seen and file.started():
                    self._dumps[file.path] = asked
                    recording = live.read(file.path)
                    path = self.output.snapshot(program_name(recording.process), file.pid)
                    self._write(recording, path)
                    self.snapshots.append(path)
            except LeakscopeError as error:
                if not os.path.lexists(file.path):
                    continue
                self.problems.append(f"no snapshot of process {file.pid}: {error}")

    def pack_ended(self, root_status: int | None) -> tuple[LiveFile, ...]:
        """Pack every recording whose process has ended; return those that still run.

        `root_status` is the exit status of the root program (negative: signal), None while
        it runs.
        """
        files = self.live_files()
        # A number means the same process only within its pid namespace.
        spaces = {file: file.namespace for file in files}
        # A name that was packed and removed is free again: what began last is the newest.
        begun = sorted(files, key=_begun)
        newest = {(file.pid, spaces[file]): file for file in begun}
        running = []
        for file in begun:
            is_last = newest[file.pid, spaces[file]] == file
            is_root = file.pid == self.root and spaces[file] == own_namespace()
            if is_root and is_last and root_status is None:
                continue
            # In this order: what has started is mapped.
            if is_last and (file.may_be_starting() or file.is_mapped()):
                running.append(file)
                self._alive[file.path] = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
                continue
            try:
                self._pack(file, is_last, root_status if is_root else None)
            except LeakscopeError as error:
                if not os.path.lexists(file.path):
                    continue  # an agent gave it up to make room, and counted that
                self._broken.add(file.path)
                self.problems.append(f"the recording {file.path} stays where it is: {error}")
        return tuple(running)

    def _pack(self, file: LiveFile, is_last: bool, status: int | None) -> None:
        if not file.started():
            self.unstarted += 1
            self._remove(file)
            return
        child = file.pid != self.root
        if child and (not self.children or self._is_idle(file, is_last)):
            self._remove(file)
            return
        state = file.field("state") if is_last else STATE_EXECED
        recording = live.read(file.path)
        begun_ns = file.field("mono_start_ns")
        recording = self._resident.take(file.path, recording, begun_ns)
        alive_ns = self._alive.pop(file.path, 0) - begun_ns
        if state not in {STATE_EXECED, STATE_EXITED}:
            recording = _lived(recording, alive_ns)
        examined = self.farewells.take(file.path) if self.farewells is not None else None
        if examined is None and self.before_kill is not None:
            examined = self.before_kill(file.path)
        if examined is not None:
            recording = with_reachability(recording, examined)
        elif status is not None and status >= 0 and state not in {STATE_EXECED, STATE_EXITED}:
            self.left = recording.process.exe
        stub = state == STATE_EXECED and recording.process.forked_from is not None
        if stub and recording.duration_ns < _STUB_NS and file.pid != self.root:
            self.skipped += 1
            self._remove(file)
            return
        fork = recording.process.forked_from is not None and file.pid != self.root
        if fork and len(self.packed) >= _MOST_EMPTY and not recording.sites["live_count"].any():
            self.empty += 1
            self._remove(file)
            return
        recording = replace(recording, process=ending(recording.process, state, status))
        if child and not self.keep_all and self.is_clean is not None and self.is_clean(recording):
            self.clean += 1
            self._remove(file)
            return
        path = self.output.path(program_name(recording.process), file.pid)
        self._write(recording, path)
        self.packed.append(Packed(recording, path))
        self._remove(file)

    def _is_idle(self, file: LiveFile, is_last: bool) -> bool:
        """Whether a child's recording says nothing that is kept; count it if so."""
        glance = Glance(file)
        if glance.is_stub and not is_last and 0 <= glance.lived_ns < _STUB_NS:
            self.skipped += 1
            return True
        if self.keep_all:
            return False
        if glance.says_nothing:
            self.empty += 1
        elif glance.was_brief and self.farewells and self.farewells.lost_nothing(file.path):
            self.quiet += 1
        else:
            return False
        self._alive.pop(file.path, None)
        return True

    def _write(self, recording: Recording, path: Path) -> None:
        try:
            packed.write(recording, path)
        except BaseException:
            self.output.release(path)
            raise

    def _remove(self, file: LiveFile) -> None:
        self._resident.forget(file.path)
        with contextlib.suppress(OSError):
            file.path.unlink()


def _begun(file: LiveFile) -> tuple[int, float, int]:
    """Order the files of a process by when their agents began; one that has not yet is the last."""
    try:
        began = float(file.field("mono_start_ns")) if file.started() else float("inf")
    except LeakscopeError:
        began = float("inf")
    return file.pid, began, file.sequence


def _lived(recording: Recording, alive_ns: int) -> Recording:
    """Return `recording` with the time that its process was idle until somebody killed it."""
    if alive_ns < recording.duration_ns + _IDLE_NS:
        return recording
    process = replace(recording.process, duration_ns=alive_ns)
    return replace(recording, process=process, duration_ns=alive_ns)


def ending(process: Process, state: int, status: int | None) -> Process:
    """Return `process` with how it ended, as far as that is known.

    `state` is the agent's word; `status` is what the parent was told, None for processes
    that are not our children. Nobody tells us whether such a process was killed or called
    `_exit`, so that stays None.
    """
    if state == STATE_EXECED:
        return replace(process, ended="replaced by exec", exit_status=None)
    if status is None:
        ended = "exited" if state == STATE_EXITED else None
        return replace(process, ended=ended, exit_status=None)
    if status < 0:
        return replace(process, ended=f"killed by {signal_name(-status)}", exit_status=None)
    return replace(process, ended="exited", exit_status=status)


def signal_name(number: int) -> str:
    """SIGKILL for 9, and a readable word for numbers without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def program_name(process: Process) -> str:
    """The program's file name, for the names of its recordings."""
    return Path((process.exe or "").removesuffix(" (deleted)")).name or "unknown"
