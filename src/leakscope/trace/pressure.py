# SPDX-License-Identifier: Apache-2.0
"""Before memory runs out: traced processes near their limit are examined while there is room.

What a process is killed for is in its live recording, but whether anything still pointed to the
blocks only the process itself could tell. So it is asked before, and a snapshot is written.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from leakscope.errors import LeakscopeError
from leakscope.proc.cgroup import above, find_hierarchy, own_path, read_cgroup
from leakscope.proc.meminfo import read_meminfo
from leakscope.proc.process import read_resident
from leakscope.proc.vm import read_vmstat
from leakscope.recording import packed
from leakscope.trace._harvest import program_name
from leakscope.words import bytes_text, share_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from leakscope.model.recordings import Recording
    from leakscope.proc.cgroup import Hierarchy
    from leakscope.trace.output import Output

__all__ = ["Pressure", "Recorded"]

_LEVELS = (0.7, 0.85, 0.95)  # of what there is: each is looked at once …
_PAUSES_S = (0.1, 0.3, 1.0)  # … and the process may stand still the longer, the closer its end is
_WORTH = 0.1  # of the limit: a process that holds less is not what fills it
_LOOK_S, _NEAR_LOOK_S = 0.5, 0.1  # the second from the first level on, until the last is reached
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Squeeze:
    """How full the memory is that a process lives in."""

    share: float
    limit: int  # bytes
    whose: str  # for people: "the memory limit of its cgroup /x"


class Recorded(Protocol):
    """A process that is recorded: a live file of a run, or one that is attached to."""

    @property
    def path(self) -> Path:
        """What nobody else has: where its recording is read, say."""
        ...

    def writer(self) -> int | None:
        """Return its process number; None: it is gone, or runs something else."""
        ...

    def started(self) -> bool:
        """Whether there is anything in its recording yet."""
        ...


class _Look:
    """How full memory is at one moment: many processes share a machine and its cgroups.

    What can be dropped at once, as the idle page cache, does not count.
    """

    def __init__(self, hierarchy: Hierarchy | None) -> None:
        self._hierarchy = hierarchy
        self._machine = _machine()
        self._groups: dict[str, Squeeze | None] = {}

    def of(self, paths: Sequence[str]) -> Squeeze | None:
        """Return the fullest of the machine and some cgroups; None: nothing is known."""
        found = [self._machine, *(self._group(each) for each in paths)]
        known = [each for each in found if each is not None]
        return max(known, key=lambda each: each.share, default=None)

    def _group(self, path: str) -> Squeeze | None:
        if path not in self._groups and self._hierarchy is not None:
            self._groups[path] = _group(self._hierarchy, path)
        return self._groups.get(path)


def _groups_of(hierarchy: Hierarchy | None, pid: int) -> tuple[str, ...]:
    """Return the memory cgroup of a process and those above it."""
    if hierarchy is None:
        return ()
    path = own_path(hierarchy, pid)
    return path, *above(path)


def _machine() -> Squeeze | None:
    fields = read_meminfo()
    total, free = fields.get("MemTotal", 0), fields.get("MemAvailable")
    if not total or free is None:
        return None
    return Squeeze(1 - free / total, total, "the machine's memory")


def _group(hierarchy: Hierarchy, path: str) -> Squeeze | None:
    group = read_cgroup(hierarchy, path)
    used = group.working_set if group is not None else None
    if group is None or used is None:
        return None
    # Above memory.high a process hardly gets on any more, and may be killed for that.
    names = {"the memory limit": group.limit, "memory.high": group.high}
    bounds = [(limit, f"{name} of its cgroup {path}") for name, limit in names.items() if limit]
    if not bounds:
        return None
    limit, whose = min(bounds)
    return Squeeze(used / limit, limit, whose)


class Pressure:
    """Looks at the traced processes of one run, and examines those whose memory runs short.

    `examine` is given a process, its live recording and for how many seconds it may stand still,
    and returns the recording with the reachability of its blocks; it raises `LeakscopeError` where
    that cannot be had, and then the snapshot is without.
    """

    def __init__(
        self,
        files: Callable[[], Sequence[Recorded]],
        output: Output,
        root: int,
        examine: Callable[[int, Path, float], Recording],
        read: Callable[[Path], Recording],
    ) -> None:
        self._files, self._output = files, output
        self._examine, self._read = examine, read
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._levels: dict[Path, int] = {}
        self._found: dict[Path, Recording] = {}
        self._written: dict[Path, Path] = {}  # the last snapshot
        self._told: list[str] = []
        self._thread: threading.Thread | None = None
        self._pids: dict[Path, int | None] = {}  # to tell a file's process takes its maps
        self._hierarchy = find_hierarchy()
        self._kills = _Kills(self._hierarchy, root)

    def start(self) -> None:
        """Begin to look."""
        # A signal for us must find the thread that waits for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def stop(self) -> None:
        """Look no more; an examination that is under way is waited for, not for long."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def told(self) -> list[str]:
        """Return what was done since the last call, in sentences."""
        with self._lock:
            told, self._told = self._told, []
        return told

    def take(self, path: Path) -> Recording | None:
        """Return the last examination of the process with this live recording, if there was one."""
        with self._lock:
            return self._found.pop(path, None)

    def killed(self) -> str | None:
        """Say for which limit the kernel killed something since the start; None: it did not."""
        return self._kills.since()

    def _work(self) -> None:
        pause_s = _LOOK_S
        while not self._stopping.wait(pause_s):
            pause_s = _LOOK_S
            look = _Look(self._hierarchy)
            files = self._files()
            self._forget({file.path for file in files})
            for file in files:
                with contextlib.suppress(LeakscopeError, OSError):
                    if self._look(file, look):
                        pause_s = _NEAR_LOOK_S
                if self._stopping.is_set():
                    return

    def _forget(self, there: Collection[Path]) -> None:
        """Drop what is known of recordings that are gone: their names may become those of others."""
        with self._lock:
            known: tuple[dict[Path, Any], ...]
            known = (self._pids, self._levels, self._found, self._written)
            for each in known:
                for path in [path for path in each if path not in there]:
                    del each[path]

    def _look(self, file: Recorded, look: _Look) -> bool:
        """Examine one process where that is due; return whether the next level may be near."""
        pid = self._pids.get(file.path)
        if pid is None:
            pid = self._pids[file.path] = file.writer()
        if pid is None:
            return False
        paths = _groups_of(self._hierarchy, pid)
        self._kills.look(paths)
        squeeze = look.of(paths)
        if squeeze is None:
            return False
        level = sum(squeeze.share >= each for each in _LEVELS)
        near = 0 < level < len(_LEVELS)
        if level <= self._levels.get(file.path, 0) or not file.started():
            return near
        if read_resident(pid) < _WORTH * squeeze.limit or file.writer() != pid:
            return False
        self._levels[file.path] = level
        why = None
        try:
            recording = self._examine(pid, file.path, _PAUSES_S[level - 1])
            with self._lock:
                self._found[file.path] = recording
        except LeakscopeError as error:
            if file.path in self._found:
                return near  # an earlier scan is worth more than a later state
            recording, why = self._read(file.path), str(error)
        recording = replace(recording, process=replace(recording.process, ended="running"))
        written = self._write(recording, pid, squeeze, why)
        before, self._written[file.path] = self._written.get(file.path), written
        if before is not None:
            before.unlink(missing_ok=True)  # the later one tells more
        return near

    def _write(self, recording: Recording, pid: int, squeeze: Squeeze, why: str | None) -> Path:
        path = self._output.snapshot(program_name(recording.process), pid)
        full = f"{share_text(squeeze.share)} of {squeeze.whose} ({bytes_text(squeeze.limit)})"
        how = "with a scan" if why is None else f"without a scan ({why})"
        try:
            packed.write(recording, path)
        except BaseException:
            self._output.release(path)
            raise
        with self._lock:
            self._told.append(f"{full} is used: snapshot {how} written: {os.fspath(path)}")
        return path


class _Kills:
    """What the kernel has killed for memory where the processes of a run live."""

    def __init__(self, hierarchy: Hierarchy | None, pid: int) -> None:
        self._hierarchy = hierarchy
        self._machine = read_vmstat().get("oom_kill", 0)
        self._groups: dict[str, int] = {}  # kills when each was first seen
        self.look(_groups_of(hierarchy, pid))

    def look(self, paths: Sequence[str]) -> None:
        """Note the cgroups of a process, which may move to others."""
        for each in paths:
            if each not in self._groups and self._hierarchy is not None:
                self._groups[each] = _oom_kills(self._hierarchy, each)

    def since(self) -> str | None:
        for path, before in self._groups.items():
            if self._hierarchy is None or _oom_kills(self._hierarchy, path) <= before:
                continue
            group = read_cgroup(self._hierarchy, path)
            limit = group.limit if group is not None else None
            size = f" of {bytes_text(limit)}" if limit is not None else ""
            return f"its cgroup {path} reached its memory limit{size}"
        if read_vmstat().get("oom_kill", 0) > self._machine:
            return "memory ran out"
        return None


def _oom_kills(hierarchy: Hierarchy, path: str) -> int:
    group = read_cgroup(hierarchy, path)
    return (group.oom_kills or 0) if group is not None else 0
