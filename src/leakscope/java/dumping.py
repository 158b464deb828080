# SPDX-License-Identifier: Apache-2.0
"""Take a heap dump: what it costs is known before, and nothing half-written stays behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope._files import publish
from leakscope.errors import RecordingError, TargetError
from leakscope.java.attach import jcmd
from leakscope.java.diagnostics import heap_estimate, parse_histogram
from leakscope.java.heap_file import open_dump
from leakscope.proc.rights import folder_of_process, foreign_root
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakscope.java.machines import Machine

__all__ = ["Cost", "Dumped", "check_target", "cost_of", "take_dump"]

_BYTES_PER_S = 100 << 20  # a cautious speed of writing
_SPARE = 64 << 20  # bytes of a disk that stay free
_PATIENCE_S = 3600.0
_DONE = "Heap dump file created"
_PACKED = 0.5  # of the size, cautiously


@dataclass(frozen=True, slots=True)
class Cost:
    """What a dump will take: bytes on disk, and for how long the program stands still."""

    size: int
    pause_s: float


@dataclass(frozen=True, slots=True)
class Dumped:
    """A dump that was taken."""

    path: Path
    size: int
    took_s: float


def cost_of(machine: Machine, *, live: bool = True) -> Cost:
    """Return what a dump will cost, by a histogram of what lives, which is a collection itself."""
    began = time.monotonic()
    text = jcmd(machine, "GC.class_histogram" if live else "GC.class_histogram -all")
    took = time.monotonic() - began
    size = heap_estimate(parse_histogram(text))
    return Cost(size, took + size / _BYTES_PER_S)


def check_target(output: Path) -> Path:
    """Return where a dump will be, by its whole name; nothing is asked of a virtual machine yet.

    Raises `RecordingError` where the file is in the way, or there is no directory for it.
    """
    target = Path(os.path.abspath(output))  # noqa: PTH100 - links stay links
    if os.path.lexists(target):
        raise RecordingError(
            f"{output} is there already, and is not written over", hint="Name a new file."
        )
    if not target.parent.is_dir():
        raise RecordingError(f"there is no directory {target.parent}")
    return target


def take_dump(
    machine: Machine, output: Path, cost: Cost, *, live: bool = True, packed: bool = False
) -> Dumped:
    """Take a dump into `output`, whole or not at all.

    Raises `RecordingError` where the disk is too small or the file is in the way, and
    `TargetError` where the virtual machine refuses.
    """
    target = check_target(output)
    options = ("" if live else " -all") + (" -gz=1" if packed else "")
    needed = int(cost.size * (_PACKED if packed else 1))
    began = time.monotonic()
    if _same_files(machine) and machine.uid == os.geteuid():
        _write(machine, target, target.parent, options, needed, inside=True)
    else:  # another user's, or in a container: it writes into its own /tmp, and we copy that
        try:
            with folder_of_process(machine.pid, "/tmp") as folder:  # noqa: S108 - as it calls it
                _write(machine, target, Path(folder), options, needed, inside=False)
        except OSError as error:
            raise TargetError(
                f"cannot look into /tmp of process {machine.pid}: {error.strerror}"
            ) from error
    return Dumped(output, target.stat().st_size, time.monotonic() - began)


def _write(
    machine: Machine, target: Path, folder: Path, options: str, needed: int, *, inside: bool
) -> None:
    for place in {target.parent, folder}:
        free = shutil.disk_usage(place).free
        if free < needed + _SPARE:
            where = place if place == target.parent else "its /tmp"
            raise RecordingError(
                f"a dump of process {machine.pid} takes about {bytes_text(needed)}, and"
                f" {bytes_text(free)} are free in {where}",
                hint="Free some, or name a file on another disk.",
            )
    with _temporary(target, folder, inside=inside) as (asked, part):
        said = jcmd(machine, f'GC.heap_dump{options} "{asked}"', patience_s=_PATIENCE_S)
        # Its status tells only that it understood.
        if _DONE not in said or not os.path.lexists(part):
            why = " ".join(said.split())[-200:] or "no reason given"
            raise TargetError(f"the virtual machine {machine.pid} wrote no whole dump: {why}")
        if not inside:
            own = target.with_name(f".{target.name}.{os.getpid()}.part")
            with contextlib.ExitStack() as undo:
                undo.callback(own.unlink, missing_ok=True)
                _copy(machine, part, own)
                _check(own)
                _publish(own, target)
        else:
            _check(part)
            _publish(part, target)


def _copy(machine: Machine, source: Path, target: Path) -> None:
    """Copy what the virtual machine wrote in its own root, and nothing that is linked there."""
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as written:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != machine.uid:
            raise TargetError(f"the virtual machine {machine.pid} wrote no dump of its own")
        own = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(own, "wb") as copy:
            shutil.copyfileobj(written, copy, 1 << 20)


def _check(path: Path) -> None:
    """Look at its head. Raises `RecordingError`."""
    with open_dump(str(path)):
        pass


def _publish(part: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        part.chmod(0o600)  # passwords are in it
    publish(part, target)


@contextlib.contextmanager
def _temporary(target: Path, folder: Path, *, inside: bool) -> Iterator[tuple[str, Path]]:
    """Yield where the virtual machine is to write, as it and as we call that; it goes afterwards."""
    name = f".leakscope-{secrets.token_hex(8)}.hprof"
    if inside:
        part = folder / f".{target.name[:64]}.{os.getpid()}.part"
        asked = str(part)
    else:
        part, asked = folder / name, f"/tmp/{name}"  # noqa: S108 - in its own root
    if '"' in asked or "\n" in asked:
        raise RecordingError(f"{target} cannot be named to a virtual machine", hint="Name another.")
    try:
        yield asked, part
    except PermissionError as error:
        raise RecordingError(f"cannot write {target}: {error.strerror}") from error
    except OSError as error:
        raise RecordingError(f"cannot write {target}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _same_files(machine: Machine) -> bool:
    """Whether the virtual machine sees the files that we see."""
    return foreign_root(machine.pid) is None
