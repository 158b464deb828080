# SPDX-License-Identifier: Apache-2.0
"""Live recordings while their processes run: who writes them, in what state, how to steer.

A live recording is a file `PID.SEQUENCE.live`; the agent maps it and nobody has to ask the
traced process for anything. Only files of the user (or, for root, of anybody) are touched.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import RecordingError, TargetError, UsageError
from leakscope.proc.maps import Mapping, read_maps
from leakscope.proc.process import living_task
from leakscope.recording import layout
from leakscope.recording.writer import find_writer, own_namespace
from leakscope.trace.settings import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "LiveFile",
    "count_files",
    "find_live_file",
    "list_live_files",
    "not_traced",
    "removed_unread",
]

_HEADER = dict(layout.HEADER_DTYPE.fields or {})
_NAME = re.compile(r"(\d{1,10})\.(\d{1,5})\.live")
_COUNT_NAME = re.compile(r"removed\.\d{1,10}")
_MARK_BYTES = layout.MARK_DTYPE["name"].itemsize
_LOCK_S = 2.0
_COARSE = 6  # CLOCK_MONOTONIC_COARSE, which the time module has no name for
PAUSED = 1
"""Bit of the header's control word: recording is switched off."""


@dataclass(frozen=True, slots=True)
class LiveFile:
    """One live recording.

    `path` is where it can be opened; for a file of another mount namespace that is below
    /proc/PID/map_files or /proc/PID/root.
    """

    path: Path
    pid: int
    sequence: int

    def started(self) -> bool:
        """Whether the agent got as far as recording."""
        return self.field("magic") == layout.MAGIC

    def field(self, name: str) -> int:
        """Return one number of the header. Raises `RecordingError` when it cannot be read."""
        form, offset = _HEADER[name][:2]
        fd = self._open(os.O_RDONLY)
        try:
            data = os.pread(fd, form.itemsize, offset)
        except OSError as error:
            raise RecordingError(f"cannot read {self.path}: {error.strerror}") from error
        finally:
            os.close(fd)
        if len(data) != form.itemsize:
            raise RecordingError(f"{self.path} is shorter than a live recording's header")
        return int.from_bytes(data, "little")

    def open_for_reading(self) -> int:
        """Return a descriptor of the file. Raises `RecordingError` when it is none of ours."""
        return self._open(os.O_RDONLY)

    def set_paused(self, paused: bool) -> None:
        """Switch recording off or on. Raises `RecordingError` when it cannot be written."""
        self._check_version()
        value = self.field("control")
        self.put("control", value | PAUSED if paused else value & ~PAUSED)

    def add_mark(self, name: str) -> None:
        """Give this moment a name; one of that name from before is moved here.

        Raises `UsageError` for a name that cannot be kept and `RecordingError` when there is no
        room or the file cannot be written.
        """
        text = name.encode(errors="replace")
        if not name.isprintable() or not 0 < len(text) < _MARK_BYTES:
            raise UsageError(f"a mark has a printable name of 1 to {_MARK_BYTES - 1} bytes")
        self._check_version()
        fd = self._open(os.O_RDWR)
        try:
            _lock(fd)
            there = self.field("mark_count")
            first = _HEADER["marks"][1]
            step = layout.MARK_DTYPE.itemsize
            table = os.pread(fd, step * min(there, layout.MARKS), first)
            names = np.frombuffer(table, layout.MARK_DTYPE)["name"].tolist()
            at = names.index(text) if text in names else len(names)
            if at >= layout.MARKS:
                raise RecordingError(
                    f"process {self.pid} has {layout.MARKS} marks, and no room for another",
                    hint="Give a name again that is there: its mark is moved.",
                )
            # The agent's clock, which is late by some milliseconds: what follows is not before it.
            now = time.clock_gettime_ns(_COARSE)
            row = np.array([(now, text)], layout.MARK_DTYPE)
            os.pwrite(fd, row.tobytes(), first + at * step)
            if at >= there:
                form, offset = _HEADER["mark_count"][:2]
                os.pwrite(fd, (at + 1).to_bytes(form.itemsize, "little"), offset)
        except OSError as error:
            raise RecordingError(f"cannot write {self.path}: {error.strerror}") from error
        finally:
            os.close(fd)

    def _check_version(self) -> None:
        version = self.field("version")
        if version != layout.VERSION:
            raise RecordingError(
                f"the agent in process {self.pid} writes version {version} of the recording and"
                f" this leakscope knows version {layout.VERSION}",
                hint="Use the leakscope that the agent belongs to.",
            )

    def put(self, name: str, value: int) -> None:
        """Store one number of the header. Raises `RecordingError` when it cannot be written."""
        form, offset = _HEADER[name][:2]
        fd = self._open(os.O_RDWR)
        try:
            os.pwrite(fd, value.to_bytes(form.itemsize, "little"), offset)
        except OSError as error:
            raise RecordingError(f"cannot write {self.path}: {error.strerror}") from error
        finally:
            os.close(fd)

    def is_mapped(self) -> bool:
        """Whether its process is still alive and writing it."""
        return self.writer() is not None

    def writer(self) -> int | None:
        """Return our number of the process that writes it; None when there is none any more."""
        try:
            return find_writer(self.pid, self.namespace, self.path.stat())
        except OSError:
            return None

    @property
    def namespace(self) -> int:
        """The pid namespace that its number is of; ours when it cannot be told."""
        try:
            return self.field("pid_namespace") or own_namespace()
        except RecordingError:
            return own_namespace()

    def may_be_starting(self) -> bool:
        """Whether its process is there and the agent has made the file, but no more yet."""
        try:
            if self.started():
                return False
        except RecordingError:
            pass  # still shorter than a header
        return Path(f"/proc/{self.pid}").exists()

    def _open(self, flags: int) -> int:
        follow = 0 if str(self.path).startswith("/proc/") else os.O_NOFOLLOW
        try:
            # Links below /proc are the kernel's; everywhere else a link is not followed.
            fd = os.open(self.path, flags | follow | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise RecordingError(f"cannot open {self.path}: {error.strerror}") from error
        status = os.fstat(fd)
        # More than one name: somebody's link to a file of another.
        ours = os.geteuid() in (0, status.st_uid) and (follow == 0 or status.st_nlink == 1)
        if not stat.S_ISREG(status.st_mode) or not ours:
            os.close(fd)
            raise RecordingError(
                f"{self.path} is not a recording of this user (owner uid {status.st_uid})",
                hint="Run as the user that the program runs as, or as root.",
            )
        return fd


def _lock(fd: int) -> None:
    """Keep others from marking at the same time; the program has no descriptor of the file.

    Raises `OSError` when somebody holds it for long: its owner is not to be trusted.
    """
    until = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.01)
        else:
            return


def list_live_files(directory: Path) -> tuple[LiveFile, ...]:
    """Return the live recordings in `directory`, by pid and sequence. Links are left out."""
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match and entry.is_file(follow_symlinks=False):
                    found.append(LiveFile(Path(entry.path), int(match[1]), int(match[2])))
    except OSError as error:
        raise RecordingError(f"cannot read {directory}: {error.strerror}") from error
    return tuple(sorted(found, key=lambda file: (file.pid, file.sequence)))


def count_files(directory: Path) -> tuple[Path, ...]:
    """Return the files in `directory` in which agents count the recordings that they removed."""
    try:
        with os.scandir(directory) as entries:
            return tuple(
                Path(entry.path)
                for entry in entries
                if _COUNT_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            )
    except OSError:
        return ()


def removed_unread(directory: Path) -> int:
    """Return how many recordings of ended processes were removed to keep `directory` bounded."""
    total = 0
    for path in count_files(directory):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            total += int.from_bytes(os.read(fd, 8), "little")
        except OSError:
            continue
        finally:
            os.close(fd)
    return total


def find_live_file(pid: int) -> LiveFile | None:
    """Return the live recording that process `pid` is writing, None when it writes none.

    Raises `TargetError` when there is no such process or it may not be looked at.
    """
    newest: LiveFile | None = None
    mappings = read_maps(pid)
    for mapping in _live_mappings(mappings):
        match = _NAME.fullmatch(Path(mapping.path).name)
        if match is None or (newest is not None and newest.sequence >= int(match[2])):
            continue
        newest = LiveFile(_reachable(pid, mapping), pid, int(match[2]))
    return newest or _attached_file(pid, mappings)


def not_traced(pid: int) -> TargetError:
    """Return the error for a process that writes no recording, with what can be done.

    Raises `TargetError` when there is no such process or it may not be looked at.
    """
    if any(Path(each.path).name.startswith("libleakscope-agent") for each in read_maps(pid)):
        return TargetError(
            f"the agent is in process {pid}, but it is not recording",
            hint=f"A line `trace PROGRAM` in {CONFIG_FILE} switches it on.",
        )
    return TargetError(
        f"process {pid} is not being traced",
        hint=f"`leakscope find {pid}` says whether it leaks, without that; `leakscope attach {pid}`"
        " records it from now on, `leakscope run -- PROGRAM` from its start.",
    )


def _attached_file(pid: int, mappings: Sequence[Mapping]) -> LiveFile | None:
    """The recording of a process that was attached to: memory without a name."""
    from leakscope.trace.attach.island import recording_of

    path = recording_of(pid, mappings)
    file = None if path is None else LiveFile(path, pid, 0)
    return file if file is not None and file.started() else None


def _live_mappings(mappings: Sequence[Mapping]) -> Iterator[Mapping]:
    for mapping in mappings:
        if mapping.permissions.endswith("s") and mapping.path.endswith(".live"):
            yield mapping


def _reachable(pid: int, mapping: Mapping) -> Path:
    """Another mount namespace, or a file that was deleted, is reached through /proc."""
    task = living_task(pid)
    candidates = [f"/proc/{task}/root{mapping.path}", f"/proc/{task}/map_files/{mapping.span}"]
    if not mapping.deleted:
        candidates.insert(0, mapping.path)
    for candidate in candidates:
        try:
            if Path(candidate).stat().st_ino == mapping.inode:
                return Path(candidate)
        except OSError:
            continue
    raise TargetError(
        f"the live recording {mapping.path} of process {pid} cannot be reached from here",
        hint="Run as root, or in the container of the process.",
    )
