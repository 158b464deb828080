# SPDX-License-Identifier: Apache-2.0
"""What a user names: a process, a recording, a folder of them, a core file. Content decides.

A number is a process; where there is none of that number, it can be a file. Any other text is a
path where one is there, else the name of running programs. `./1234` is always a file.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope._digits import is_number
from leakscope._paths import exists, is_directory
from leakscope.errors import LeakscopeError, RecordingError, TargetError, UsageError
from leakscope.formats import (
    foreign_format,
    has_block_files,
    is_table,
    nearest_format,
    read_block_files,
    read_foreign,
    read_tables,
)
from leakscope.java.heap_file import is_heap_dump
from leakscope.observe.asked import find_processes
from leakscope.observe.store import MAGIC as WATCH_MAGIC
from leakscope.proc.process import read_start, refuse_thread
from leakscope.recording import layout, load, packed
from leakscope.trace.live_files import find_live_file, not_traced

if TYPE_CHECKING:
    from leakscope.model.recordings import Recording
    from leakscope.model.snapshots import Snapshot

__all__ = ["InputKind", "Named", "open_file"]
__all__ += ["open_named", "open_one", "open_process", "open_standard_input"]
__all__ += ["pid_of", "refuse_file"]

_HEAD = 4096  # bytes that tell what a file is
_RECORDINGS = (".leakscope", ".live")  # named so, a file in a folder is told of, whatever it holds
_LIVE_MAGIC = layout.MAGIC.to_bytes(8, "little")
_ET_CORE = 4
_PACKED_UP = {b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
_PACKED_UP[b"\x04\x22\x4d\x18"] = "lz4"


class InputKind(StrEnum):
    """What something that was named is; the value is how a sentence calls it."""

    TRACED = "a traced process"
    PROCESS = "a process that is not traced"
    RECORDING = "a recording"
    WATCH = "a recording of a watch"
    CORE = "a core file"
    FOREIGN = "a file of another tool"
    TABLE = "a saved table of memory"
    HEAP_DUMP = "a heap dump of Java"


@dataclass(frozen=True, slots=True)
class Named:
    """One thing that was named. `path` is the file to read; None for a process that is not traced."""

    label: str
    kind: InputKind
    path: Path | None = None
    pid: int | None = None

    def read(self) -> tuple[Recording, ...]:
        """Return the recording; the file of another tool can hold several.

        Raises `RecordingError`, and `TargetError` for what is not recorded.
        """
        if self.kind in (InputKind.TRACED, InputKind.RECORDING) and self.path is not None:
            return (load(self.path),)
        if self.kind in (InputKind.FOREIGN, InputKind.TABLE) and self.path is not None:
            if self.path.is_dir():
                return read_block_files(self.path)
            return read_foreign(self.path) or ()
        if self.kind is InputKind.PROCESS and self.pid is not None:
            raise not_traced(self.pid)
        if self.kind is InputKind.CORE:
            raise RecordingError(
                f"{self.label} is a core file, which tells what is lost, and not where it came from",
                hint=f"See it with: leakscope scan {self.label}",
            )
        if self.kind is InputKind.HEAP_DUMP:
            raise RecordingError(
                f"{self.label} is a heap dump of Java, which tells who holds what, and no call stacks",
                hint=f"See it with: leakscope report {self.label}",
            )
        raise RecordingError(
            f"{self.label} is a recording of a watch, which holds no allocations",
            hint=f"See it with: leakscope report {self.label}",
        )

    def tables(self) -> tuple[Snapshot, ...]:
        """Return the looks at memory in a `TABLE`. Raises `RecordingError`."""
        return () if self.path is None else read_tables(self.path)


def open_named(name: str) -> list[Named]:
    """Return what `name` stands for: one thing, or all of a folder or of the processes called so.

    Nothing but the beginning of files is read. Raises `UsageError`, `TargetError` or
    `RecordingError` in a sentence on what it is instead.
    """
    if name == "-":
        return [open_standard_input()]
    if not name:
        raise UsageError("an empty name stands for nothing", hint="Name a file or a process.")
    if is_number(name) and (_is_process(name) or not exists(name)):
        if len(name) > 10:
            raise TargetError(f"there is no process {name[:80]}")
        return [open_process(int(name))]
    if is_directory(name):
        return _folder(name)
    if exists(name):
        try:
            return [open_file(name)]
        except LeakscopeError:
            found = _called(name)
            if not found:
                raise
            return found
    found = _called(name)
    if found:
        return found
    raise RecordingError(
        f"{name[:200]!r} is neither a process nor a file",
        hint="Name a process by its number or its program, or a file that is there.",
    )


def open_standard_input() -> Named:
    """Return what standard input holds; a pipe is copied to a file without a name first.

    Raises `RecordingError` for nothing, for a terminal, and for what is none of the things that
    are read.
    """
    try:
        mode = os.fstat(0).st_mode
        if os.isatty(0):
            raise RecordingError(
                "standard input is a terminal",
                hint="Give a file, or pipe one: … | leakscope report -",
            )
        name = "/proc/self/fd/0" if stat.S_ISREG(mode) else f"/proc/self/fd/{_copied()}"
        return replace(open_file(name), label="-")
    except OSError as error:
        raise RecordingError(f"cannot read standard input: {error.strerror}") from error
    except RecordingError as error:
        text = re.sub(r"/proc/self/fd/\d+", "standard input", str(error))
        raise RecordingError(text, hint=error.hint) from error


def _copied() -> int:
    """Copy standard input; returns the descriptor, which stays open until the end."""
    with tempfile.TemporaryFile() as file:
        while piece := os.read(0, 1 << 20):
            file.write(piece)
        file.flush()
        return os.dup(file.fileno())


def open_one(name: str) -> Named:
    """Return the one thing that `name` stands for; raises as `open_named`, and for several."""
    found = open_named(name)
    if len(found) == 1:
        return found[0]
    labels = ", ".join(one.label for one in found[:4]) + (", …" if len(found) > 4 else "")
    raise UsageError(f"{name} stands for {len(found)}: {labels}", hint="Name one of them.")


def pid_of(text: str) -> int:
    """Return the process that a user names. Raises `UsageError` for what is none, or several."""
    if is_number(text):
        if not 1 <= int(text) < 1 << 31:
            raise UsageError(f"{text} is not a process id")
        refuse_thread(int(text))
        return int(text)
    refuse_file(text)
    if text and not exists(text) and not _called(text):
        raise TargetError(
            f"there is no process called {text[:80]!r}",
            hint="Name it by its number, or by its program without directories.",
        )
    one = open_one(text)
    if one.pid is None:
        raise UsageError(f"{text} is {one.kind}, and no process")
    return one.pid


def refuse_file(name: str) -> None:
    """Raise `UsageError` where `name`, which should be a process, is a file that is reported."""
    if is_number(name) or not exists(name) or is_directory(name) or _called(name):
        return
    try:
        kind = open_file(name).kind
    except LeakscopeError:
        return
    verb = "scan" if kind is InputKind.CORE else "report"
    raise UsageError(
        f"{name} is {kind}, and no process", hint=f"See it with: leakscope {verb} {name}"
    )


def _is_process(name: str) -> bool:
    return len(name) <= 10 and read_start(int(name)) is not None


def open_process(pid: int) -> Named:
    """Return what is known of a process. Raises `TargetError` for one that is not there."""
    refuse_thread(pid)
    live = find_live_file(pid)
    if live is None:
        return Named(f"process {pid}", InputKind.PROCESS, pid=pid)
    return Named(f"process {pid}", InputKind.TRACED, live.path, pid)


def _called(name: str) -> list[Named]:
    """Return the processes called `name`: those that are traced, where some are."""
    if "/" in name or is_number(name):
        return []
    try:
        pids, _ = find_processes([name])
    except TargetError:
        return []
    found = []
    for pid in sorted(pids):
        try:
            found.append(open_process(pid))
        except TargetError:  # it ended, or is somebody else's
            found.append(Named(f"process {pid}", InputKind.PROCESS, pid=pid))
    return [one for one in found if one.kind is InputKind.TRACED] or found


def _folder(name: str) -> list[Named]:
    if has_block_files(name):
        return [Named(name, InputKind.FOREIGN, Path(name))]
    try:
        paths = sorted(Path(name).iterdir(), key=_natural)
    except OSError as error:
        raise RecordingError(f"cannot read {name}: {error.strerror}") from error
    found = []
    for path in paths:
        try:
            one = open_file(str(path))
        except LeakscopeError:
            continue
        found.append(one)
    if not found:
        raise RecordingError(
            f"there is no recording in the directory {name}",
            hint="`leakscope run -o DIRECTORY` leaves them; their names end in .leakscope.",
        )
    return found


def _natural(path: Path) -> list[tuple[int, str]]:
    """Order names as people number them: a.2 before a.10."""
    parts = re.split(r"(\d{1,18})", path.name)
    return [(int(part), "") if n % 2 else (-1, part) for n, part in enumerate(parts)]


def open_file(name: str) -> Named:
    """Tell what a file is by its first bytes; what is named as a recording is taken for one.

    Raises `RecordingError` for what is none of the things that are read.
    """
    head, path = _head(name), Path(name)
    if head.startswith((packed.MAGIC, _LIVE_MAGIC)):
        return Named(name, InputKind.RECORDING, path)
    if head.startswith(WATCH_MAGIC):
        return Named(name, InputKind.WATCH, path)
    if head.startswith(b"\x7fELF"):
        if int.from_bytes(head[16:18], "big" if head[5:6] == b"\2" else "little") == _ET_CORE:
            return Named(name, InputKind.CORE, path)
        raise RecordingError(
            f"{name} is a program or a library, not a recording",
            hint=f"To trace a program: leakscope run -- {name if '/' in name else './' + name}",
        )
    if is_heap_dump(head):
        return Named(name, InputKind.HEAP_DUMP, path)
    if foreign_format(path) is not None:
        return Named(name, InputKind.TABLE if is_table(path) else InputKind.FOREIGN, path)
    if not head:
        raise RecordingError(
            f"{name} is empty", hint="What wrote it has not written anything, or not yet."
        )
    if path.suffix in _RECORDINGS:
        return Named(name, InputKind.RECORDING, path)  # reading it says what is wrong with it
    guess = nearest_format(path)
    for magic, what in _PACKED_UP.items():
        if head.startswith(magic):
            told = "" if guess is None else f", and of no format that is known: {guess.text}"
            raise RecordingError(f"{name} is packed with {what}{told}", hint="Unpack it first.")
    told = "" if guess is None else f": {guess.text}"
    raise RecordingError(
        f"{name} is not a core file, a recording, or a file of a tool that leakscope reads{told}",
        hint=(guess.hint if guess is not None else None)
        or "Recordings are left by `leakscope run` and by `leakscope watch --record FILE`.",
    )


def _head(name: str) -> bytes:
    """Return the first bytes of a regular file, and never wait for a pipe or a device."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise RecordingError(f"{name} is not a regular file")
            return os.read(fd, _HEAD)
        finally:
            os.close(fd)
    except OSError as error:
        raise RecordingError(f"cannot read {name}: {error.strerror}") from error
