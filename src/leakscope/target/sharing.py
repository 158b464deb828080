# SPDX-License-Identifier: Apache-2.0
"""Other processes that run in the memory of one: cloned with CLONE_VM, and not as threads."""

from __future__ import annotations

import ctypes
import platform
from typing import TYPE_CHECKING

from leakscope.proc.process import living_task, pids

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["sharers"]

_NUMBERS = {"x86_64": 312, "aarch64": 272}  # of kcmp
_VM = 1


def sharers(pid: int) -> Iterator[int]:
    """Yield the processes, beside `pid`, whose memory is its own. Nothing where that is not told.

    The child of a vfork is one until it ends or calls exec.
    """
    number = _NUMBERS.get(platform.machine())
    if number is None:
        return
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    seen = living_task(pid)  # one that has ended has as little memory as a thread of the kernel
    zero = ctypes.c_ulong(0)
    for other in pids():
        if other != pid and syscall(number, seen, other, _VM, zero, zero) == 0:
            yield other
