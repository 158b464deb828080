# SPDX-License-Identifier: Apache-2.0
"""Where recordings go: checked before a program starts, safe when they are written.

While a program runs, its recordings are in a private directory in shared memory (or, when
that is small, next to the output). Afterwards each is packed into a file of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from leakscope._paths import absolute, exists, is_directory, is_file
from leakscope.errors import RecordingError
from leakscope.proc.cgroup import memory_limit
from leakscope.words import bytes_text

__all__ = ["Output", "check_writable", "make_live_directory", "plan_output", "private_part"]

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a private directory is made in it
DEFAULT_PATTERN = "%n.%p.leakscope"

# 32 bytes a live block and a few MiB of tables: room for several million live blocks.
_PLENTY = 256 << 20
# The agent's tables before the first allocation, and a small program's; less is hopeless.
_LEAST = 8 << 20
_LEAST_OUTPUT = 1 << 20


@dataclass(slots=True)
class Output:
    """Names for the packed recordings of one run.

    `pattern` is a path in which %n stands for the program's name and %p for its pid.
    """

    directory: Path
    pattern: str
    taken: set[Path] = field(default_factory=set)

    def path(self, name: str, pid: int) -> Path:
        """Return the file for the process `pid` of program `name`, different at each call.

        It is there, empty and ours: neither another run at the same time nor a later one
        gets it, and what an earlier one left is never replaced. Raises `RecordingError` when a file that is not ours is in the way.
        """
        free = wanted = self.directory / self._expand(name, pid)
        if wanted in self.taken and "%p" not in self.pattern:
            free = wanted = wanted.with_name(f"{wanted.stem}.{pid}{wanted.suffix}")
        number = 1
        while free in self.taken or not _reserve(free):
            free = wanted.with_name(f"{wanted.stem}.{number}{wanted.suffix}")
            number += 1
        self.taken |= {free, self.directory / self._expand(name, pid)}
        check_replaceable(free)
        return free

    def release(self, path: Path) -> None:
        """Give back a path of ours that nothing was written to."""
        with contextlib.suppress(OSError):
            if os.lstat(path).st_size == 0:
                path.unlink()

    def snapshot(self, name: str, pid: int) -> Path:
        """Return a file for a snapshot of a process; earlier snapshots are never replaced."""
        wanted = self.directory / self._expand(name, pid)
        number = 1
        while True:
            free = wanted.with_name(f"{wanted.stem}.dump{number}{wanted.suffix}")
            if _reserve(free):
                return free
            number += 1

    def _expand(self, name: str, pid: int) -> str:
        # A program chooses its name; it does not choose a directory or move a cursor.
        plain = "".join("_" if c == "/" or not c.isprintable() else c for c in name) or "unknown"
        values = {"%%": "%", "%n": plain, "%p": str(pid)}
        return re.sub("%[%np]", lambda match: values[match[0]], self.pattern)


def _reserve(path: Path) -> bool:
    """Make an empty file of that name; False when something has the name already."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError:
        return False
    except OSError:
        return True  # whoever writes it will say what is wrong
    return True


def plan_output(output: str | os.PathLike[str] | None) -> Output:
    """Decide where the packed recordings of a run go and make sure that they can.

    `output` is a directory, or a file name that may hold %n and %p; None is the current
    directory. Raises `RecordingError` when it is not writable, full, or not ours.
    """
    text = os.fspath(output) if output is not None else "."
    if not text:
        raise RecordingError("the output path is empty")
    if "\0" in text:
        raise RecordingError("the output path contains a zero byte")
    if text.endswith("/") or is_directory(text):
        _make_directory(absolute(text))
        planned = Output(absolute(text), DEFAULT_PATTERN)
    else:
        path = absolute(text)
        planned = Output(path.parent, path.name)
    check_writable(planned.directory)
    if "%" not in planned.pattern:
        check_replaceable(planned.directory / planned.pattern)
    return planned


def _make_directory(directory: Path) -> None:
    """Make a directory of a name that ends in a slash, and those above it, when it is not there."""
    if exists(directory):
        return
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise RecordingError(
            f"the output directory {directory} cannot be made: {error.strerror}",
            hint="Name another place with --output.",
        ) from error


def check_writable(directory: Path) -> None:
    """Make sure that a file can be made in `directory`, else raise `RecordingError`."""
    if not directory.is_absolute():  # it could not be made so
        raise RecordingError(
            "the current directory is gone, so nothing can be written there",
            hint="Go to another directory, or name a place with --output.",
        )
    if not exists(directory):
        raise RecordingError(
            f"the output directory {directory} does not exist", hint=f"Make it: mkdir {directory}"
        )
    if not is_directory(directory):
        raise RecordingError(f"{directory} is not a directory, so nothing can be written there")
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise RecordingError(
            f"the output directory {directory} is not writable by this user",
            hint="Name another place with --output.",
        )
    if _free(directory) < _LEAST_OUTPUT:
        raise RecordingError(
            f"there is no room on the disk of {directory}: {_free(directory)} bytes are free",
            hint="Free some, or name another place with --output.",
        )


def check_replaceable(path: Path) -> None:
    """Make sure that what is at `path`, if anything, is ours to replace."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RecordingError(f"cannot look at {path}: {error.strerror}") from error
    if stat.S_ISLNK(status.st_mode):
        if status.st_uid != os.geteuid():
            raise RecordingError(
                f"{path} is a symbolic link that belongs to someone else (uid {status.st_uid}),"
                f" so it is not written to",
                hint="Name another file.",
            )
        if exists(path) and not is_file(path):  # as /dev/stdout
            raise RecordingError(
                f"{path} is a symbolic link to something that is not a regular file",
                hint="Name another file.",
            )
        return  # ours: renaming over it replaces the link, never what it points to
    if not stat.S_ISREG(status.st_mode):
        raise RecordingError(f"{path} exists and is not a regular file", hint="Name another file.")
    if status.st_uid != os.geteuid():
        raise RecordingError(
            f"{path} exists and belongs to someone else (uid {status.st_uid})",
            hint="Name another file.",
        )


def make_live_directory(output: Output) -> Path:
    """Make a private directory for live recordings, in shared memory when that has room.

    Root's programs may become another user, who then has to write there too: their directory is
    open to all for new files, without a list of them, behind one that gives no list of its own
    (`private_part`): nobody finds it who is not told. Raises `RecordingError` when no place has any.
    """
    places = [SHARED_MEMORY, output.directory]
    with contextlib.suppress(OSError):  # no usable one
        places.append(Path(tempfile.gettempdir()))
    usable = [p for p in places if os.access(p, os.W_OK | os.X_OK, effective_ids=True)]
    # Under a limit of memory a recording stays small. Shared memory, which is never written back
    # and read again, keeps a program that meets its limit from being slow at dying.
    limit = memory_limit()
    plenty = _PLENTY if limit is None else max(_LEAST, min(_PLENTY, limit // 2))
    for least in (plenty, _LEAST):
        for place in usable:
            if _free(place) < least:
                continue
            hidden = "" if place == SHARED_MEMORY else "."
            prefix = f"{hidden}leakscope-{os.geteuid()}-"
            try:
                made = absolute(tempfile.mkdtemp(prefix=prefix, dir=place))
                return made if os.geteuid() != 0 else _open_to_all(made)
            except OSError:
                continue
    raise RecordingError(
        "there is no room for a live recording in "
        + ", ".join(f"{place} ({_free(place)} bytes free)" for place in dict.fromkeys(places)),
        hint=f"At least {bytes_text(_LEAST)} are needed; free some, or name a place with --output.",
    )


def _open_to_all(outer: Path) -> Path:
    inner = Path(tempfile.mkdtemp(prefix="", dir=outer))
    inner.chmod(0o1733)  # nobody lists it, or removes what is another's
    outer.chmod(0o711)
    return inner


def private_part(directory: Path) -> Path:
    """Return the outermost directory that `make_live_directory` made for `directory`."""
    parent = directory.parent
    return parent if parent.name.lstrip(".").startswith("leakscope-") else directory


def _free(directory: Path) -> int:
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return 0
