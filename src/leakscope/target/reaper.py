# SPDX-License-Identifier: Apache-2.0
"""Traced threads that have ended, waited for while whoever traces them is held up.

A thread that calls exec waits until all others of its process are gone, and a traced one is gone
when its tracer has waited for it. Until then nobody begins to trace the first one (ptrace(2) waits
for the end of the exec): tracer and exec would wait for each other. Another thread of the tracer
may do the waiting.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Self

from leakscope.proc.text import read_text
from leakscope.target.ptrace import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Reaper", "is_child", "reap"]

_EVERY_S, _HELD_UP_S = 0.005, 0.01
_ENDED = {os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED}


def reap(tid: int) -> bool:
    """Wait for a traced thread if it has ended; whether nothing of it is left to wait for.

    A child of ours is not touched: who started it wants to know how it ended.
    """
    if is_child(tid):
        return True
    look = os.WEXITED | os.WNOHANG | ALL
    try:
        # Of a traced thread the kernel tells a stop as well, which somebody else waits for.
        found = os.waitid(os.P_PID, tid, look | os.WNOWAIT)
        if found is None or found.si_code not in _ENDED:
            return False
        return os.waitid(os.P_PID, tid, look) is not None
    except ChildProcessError:
        return True
    except OSError:
        return False


def is_child(pid: int) -> bool:
    """Whether it is a process that this one has started, and not one of its further threads."""
    status = read_text(f"/proc/{pid}/status") or ""
    return f"\nTgid:\t{pid}\n" in status and f"\nPPid:\t{os.getpid()}\n" in status


class Reaper:
    """A context manager: inside, a call made in `may_hang` is not held up by the threads `tids`.

    `tids` may grow and shrink meanwhile. Without `needed` nothing is done.
    """

    def __init__(self, tids: Sequence[int], *, needed: bool) -> None:
        self._tids = tids
        self._since = 0.0  # monotonic; 0: nothing may hang now
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        if needed:
            self._thread = threading.Thread(target=self._run, daemon=True, name="leakscope-reaper")

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    @contextlib.contextmanager
    def may_hang(self) -> Iterator[None]:
        """Look after the threads when what is done inside takes long."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = 0.0

    def _run(self) -> None:
        while not self._end.wait(_EVERY_S):
            since = self._since
            if since and time.monotonic() - since > _HELD_UP_S:
                for tid in list(self._tids):
                    reap(tid)
