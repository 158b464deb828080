# SPDX-License-Identifier: Apache-2.0
"""A bound for how long a process stands still, kept by the kernel.

Whoever has stopped a process may be stopped itself: by SIGSTOP, by a debugger. Then nothing of its
own is left to let go. A timer of the kernel still kills it, and with it ends its hold on the
process, which goes on where it was. Ctrl-Z, which can wait, does so until the process goes on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HELD_UP_S", "Lease", "terminal_stops_wait"]

# Beyond the pause allowed: then leakscope is killed, which is not to happen on a busy machine.
HELD_UP_S = 5.0
_NUMBERS = {"x86_64": (222, 223, 226), "aarch64": (107, 110, 111)}  # create, settime, delete
_MONOTONIC = 1


class _Event(ctypes.Structure):
    """struct sigevent: by default a signal to the process."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _Times(ctypes.Structure):
    """struct itimerspec: how often, and when first."""

    _fields_ = (
        ("every_s", ctypes.c_long),
        ("every_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


class Lease:
    """A context manager: this process is killed when it is inside for longer than `seconds`.

    Not with None, nor where the kernel gives no timer. Ctrl-Z waits in any case.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timer: ctypes.c_int | None = None
        self._syscall = ctypes.CDLL(None).syscall
        self._numbers = _NUMBERS.get(platform.machine())

    def __enter__(self) -> Self:
        _held.append(self)
        if self._numbers is None or self._seconds is None:
            return self
        create, settime, _ = self._numbers
        event, timer = _Event(signal=signal.SIGKILL), ctypes.c_int()
        if self._syscall(create, _MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0:
            self._timer = timer
            nanoseconds = max(int(self._seconds * 1e9), 1)
            times = _Times(0, 0, *divmod(nanoseconds, 1_000_000_000))
            self._syscall(settime, timer, 0, ctypes.byref(times), None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None and self._numbers is not None:
            self._syscall(self._numbers[2], self._timer)
            self._timer = None
        if self in _held:
            _held.remove(self)
        if _asked.is_set() and not _held:
            _asked.clear()
            os.kill(os.getpid(), signal.SIGTSTP)


_held: list[Lease] = []
_asked = threading.Event()  # to stop, while one was held


@contextlib.contextmanager
def terminal_stops_wait() -> Iterator[None]:
    """Let Ctrl-Z stop this process at once only while it holds no other one.

    Does nothing in other threads than the first, and where the program handles Ctrl-Z itself.
    """
    is_first = threading.current_thread() is threading.main_thread()
    if not is_first or signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTSTP, _on_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)


def _on_stop(*_: object) -> None:
    if _held:
        _asked.set()
        return
    signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)  # returns when it goes on
    signal.signal(signal.SIGTSTP, _on_stop)
