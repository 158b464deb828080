# SPDX-License-Identifier: Apache-2.0
"""A process that is about to end: one thread waits for us by itself, the others are stopped.

The waiting thread is not traced, so it can go on at any time: when it has waited long enough,
or because of a signal. Nothing that becomes of us holds it up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from leakscope.errors import TargetError
from leakscope.target.frozen import Frozen
from leakscope.target.kernel_words import words_of_thread
from leakscope.target.memory import Range, Thread
from leakscope.target.ptrace import ALL, DETACH, INTERRUPT, SEIZE, libc

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from leakscope.proc.maps import Mapping
    from leakscope.target.memory import Segment

__all__ = ["Ending"]

R = TypeVar("R", bound=Range)
_PATIENCE_S = 0.2


class Ending:
    """A context manager with what `Frozen` has, for a process whose thread `tid` waits.

    `tid` is what the thread itself knows as its number, `sp` where its stack is in use from, its
    registers included, `tls` its thread pointer. Raises `TargetError` when the process may not be
    looked at or its other threads may not be stopped.
    """

    method = "frozen"
    notes: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()

    def __init__(self, pid: int, tid: int, sp: int, tls: int) -> None:
        self._waiting = Thread(_outer(pid, tid), sp, 0, tls, np.zeros(0, np.uint64))
        self._others = Frozen(pid, leave=self._waiting.tid)
        self.pending = np.zeros(0, np.uint64)  # what signals carry that wait for it

    @property
    def pid(self) -> int:
        """The process."""
        return self._others.pid

    @property
    def threads(self) -> tuple[Thread, ...]:
        """All its threads; `words` of the waiting one is empty, they are on its stack."""
        return (self._waiting, *self._others.threads)

    @property
    def waiting(self) -> int:
        """The number of the thread that waits, here."""
        return self._waiting.tid

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        """As of `Frozen`."""
        return self._others.mappings

    @property
    def paused_ns(self) -> int:
        """As of `Frozen`."""
        return self._others.paused_ns

    def __enter__(self) -> Self:
        self._others.__enter__()
        if _has_pending(self.pid, self._waiting.tid):
            self.pending = _pending(self._waiting.tid)
        return self

    def __exit__(self, *_: object) -> None:
        self._others.release()

    def read(self, address: int, size: int) -> bytes:
        """Return up to `size` bytes from `address`; fewer where they cannot be read."""
        return self._others.read(address, size)

    def split(
        self, ranges: Sequence[R]
    ) -> tuple[Sequence[R], Sequence[tuple[npt.NDArray[np.uint64], int]]]:
        """As of `Frozen`."""
        return self._others.split(ranges)

    def check(self) -> None:
        """Raise `TargetError` when the process is gone: what was read of it says nothing."""
        self._others.check()


def _has_pending(pid: int, tid: int) -> bool:
    """Whether signals wait for the thread or its process: each may carry a pointer."""
    try:
        status = Path(f"/proc/{pid}/task/{tid}/status").read_text(errors="replace")
    except OSError:
        return False
    return any(
        int(mask, 16)
        for mask in re.findall(r"^(?:Sig|Shd)Pnd:\t([0-9a-f]+)$", status, re.MULTILINE)
    )


def _pending(tid: int) -> npt.NDArray[np.uint64]:
    """Return what the signals carry that wait for a thread; the thread is stopped for a moment.

    It waits in a system call that it repeats, whatever interrupts it.
    """
    found = np.zeros(0, np.uint64)
    if libc.ptrace(SEIZE, tid, None, None) < 0:
        return found
    libc.ptrace(INTERRUPT, tid, None, None)
    end, done, status, signal = time.monotonic() + _PATIENCE_S, 0, 0, 0
    with contextlib.suppress(OSError):
        while not done and time.monotonic() < end:
            done, status = os.waitpid(tid, ALL | os.WNOHANG)
            time.sleep(0.0002)
    if done and os.WIFSTOPPED(status):
        found = words_of_thread(tid)
        signal = os.WSTOPSIG(status) if status >> 16 == 0 else 0
    libc.ptrace(DETACH, tid, None, ctypes.c_void_p(signal))
    return found


def _outer(pid: int, tid: int) -> int:
    """Return our number for a thread that may be in another pid namespace."""
    for task in Path(f"/proc/{pid}/task").glob("[0-9]*"):
        try:
            status = (task / "status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = re.search(r"^NSpid:.*\s(\d+)$", status, re.MULTILINE)
        if (found is None and task.name == str(tid)) or (found and int(found[1]) == tid):
            return int(task.name)
    raise TargetError(f"process {pid} ended before it was scanned")
