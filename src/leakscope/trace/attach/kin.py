# SPDX-License-Identifier: Apache-2.0
"""What a process has of its parent: the same memory, a copy of what was attached to it, or a loader at work."""

from __future__ import annotations

import ctypes
import platform
from typing import TYPE_CHECKING

from leakscope.trace.attach.hands import Writer

if TYPE_CHECKING:
    from leakscope.trace.attach.island import Attached
    from leakscope.trace.attach.plan import Plan

__all__ = ["has_same_memory", "is_at_work", "is_loading"]

_KCMP = {"x86_64": 312, "aarch64": 272}
_VM = 1
_STATE = 24  # of struct r_debug


def has_same_memory(pid: int, other: int) -> bool:
    """Whether two processes have one memory, as between vfork and exec. False where nobody tells."""
    number = _KCMP.get(platform.machine())
    if number is None:
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    none = ctypes.c_ulong(0)
    same = call(
        ctypes.c_long(number), ctypes.c_int(pid), ctypes.c_int(other), ctypes.c_int(_VM), none, none
    )
    return bool(same == 0)


def is_at_work(attached: Attached) -> bool:
    """Whether this is no forked child's copy of an attach: the page behind the agent is wiped there."""
    with Writer(attached.pid) as memory:
        return any(memory.read(attached.region[0] + attached.image[1], 8))


def is_loading(plan: Plan) -> bool:
    """Whether the loader of a process says that it is at work."""
    if plan.objects is None or not plan.objects.debug:
        return False
    with Writer(plan.pid) as memory:
        return any(memory.read(plan.objects.debug + _STATE, 4))
