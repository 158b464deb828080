# SPDX-License-Identifier: Apache-2.0
"""An instance of the kernel's tracing of our own: nobody else's settings are touched.

It is removed when we are done. A process of its own waits for our end and removes it when we are
killed; what both left behind, the next start removes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import time
from pathlib import Path
from typing import Self

from leakscope.errors import LeakscopeError, TargetError
from leakscope.proc.process import read_start
from leakscope.proc.text import read_lines

__all__ = ["TraceInstance"]

_USUAL = "/sys/kernel/tracing"
_NAME = re.compile(r"leakscope-(\d{1,20})-(\d{1,10})-(\d{1,20})")
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_SLAVE = 0x4000, 1 << 19
_TRIES = 50


class TraceInstance:
    """A folder below tracefs with events, filters and a buffer of its own."""

    def __init__(self) -> None:
        """Make it. Raises `TargetError` where the kernel or this user cannot."""
        root = _tracefs()
        self._folder = root / "instances"
        start = read_start(os.getpid())
        name = f"leakscope-{_namespace()}-{os.getpid()}-{start or 0}"
        self.path = self._folder / name
        self._watched: int | None = None
        self._guardian = 0
        remove_left_behind(self._folder)
        self._guard()  # first, so that there is no moment at which nobody would remove it
        try:
            self.path.mkdir()
        except OSError as error:
            self.remove()
            raise TargetError(
                f"the kernel cannot trace for us: {self.path}: {error.strerror}",
                hint="It takes root, and a kernel with CONFIG_FTRACE and CONFIG_EVENT_TRACING.",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def write(self, name: str, text: str) -> None:
        """Write a setting. Raises `LeakscopeError` when the kernel does not take it."""
        try:
            (self.path / name).write_text(text, "ascii")
        except OSError as error:
            raise LeakscopeError(
                f"the kernel does not take '{text[:100]}' for {name}: {error.strerror}"
            ) from error

    def has(self, name: str) -> bool:
        """Whether it has a file or an event of this name."""
        return os.access(self.path / name, os.F_OK)

    def text(self, name: str) -> str:
        """Return the content of a file, empty when it cannot be read."""
        return "\n".join(read_lines(str(self.path / name)))

    def remove(self) -> None:
        """Switch everything off and remove it."""
        _remove(self.path)
        if self._watched is not None:
            os.close(self._watched)
            self._watched = None
        if self._guardian:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._guardian, 0)
            self._guardian = 0

    def _guard(self) -> None:
        """Start the process that removes it when we are gone."""
        reader, self._watched = os.pipe()
        os.set_inheritable(self._watched, False)
        self._guardian = os.fork()
        if self._guardian:
            os.close(reader)
            return
        try:
            os.setsid()
            os.close(self._watched)
            while os.read(reader, 1):
                pass
            _remove(self.path)
        finally:
            os._exit(0)


def remove_left_behind(folder: Path) -> None:
    """Remove the instances of processes that are gone, in our namespace of processes."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        found = _NAME.fullmatch(entry.name)
        if found is None or int(found[1]) != _namespace():
            continue
        start = read_start(int(found[2]))
        if start is None or start != int(found[3]):
            _remove(entry)


def _remove(path: Path) -> None:
    for _ in range(_TRIES):  # somebody may be reading it still
        for name in ("tracing_on", "events/enable"):
            with contextlib.suppress(OSError), (path / name).open("r+", encoding="ascii") as file:
                file.write("0")
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return


def _namespace() -> int:
    with contextlib.suppress(OSError):
        return Path("/proc/self/ns/pid").stat().st_ino
    return 0


def _tracefs() -> Path:
    """Return where tracefs is; mounted for us alone where it is not."""
    for line in read_lines("/proc/self/mountinfo"):
        head, _, tail = line.partition(" - ")
        fields = head.split(" ")
        if tail.startswith("tracefs ") and len(fields) > 4 and fields[3] == "/":
            return Path(fields[4].encode().decode("unicode_escape", "replace"))
    if not os.access(_USUAL, os.F_OK):
        raise TargetError("this kernel has no tracing (CONFIG_FTRACE)")
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        libc.unshare(_CLONE_NEWNS) != 0
        or libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None) != 0
        or libc.mount(b"tracefs", _USUAL.encode(), b"tracefs", ctypes.c_ulong(0), None) != 0
    ):
        raise TargetError(
            f"tracefs is not mounted, and cannot be: {os.strerror(ctypes.get_errno())}",
            hint="It takes root; in a container, CAP_SYS_ADMIN as well.",
        )
    return Path(_USUAL)
