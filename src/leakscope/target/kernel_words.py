# SPDX-License-Identifier: Apache-2.0
"""Addresses that the kernel keeps for a process, and that its memory may not have any more.

What an event loop registered with epoll, the value of a timer, of a signal that waits, of an
io_uring request: the kernel hands it back one day. /proc tells, and ptrace of a stopped thread.
It does not tell where threads have their signal stacks.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakscope.target.ptrace import PEEKSIGINFO, libc

if TYPE_CHECKING:
    import numpy.typing as npt

    Words = npt.NDArray[np.uint64]

__all__ = ["words_of_process", "words_of_thread"]

_FOLDERS = {
    "anon_inode:[eventpoll]": re.compile(rb"\bdata:\s*([0-9a-f]+)"),
    "anon_inode:[eventfd]": re.compile(rb"eventfd-count:\s*([0-9a-f]+)"),
    "anon_inode:[io_uring]": re.compile(rb"user_data:\s*([0-9]+)"),
}
_DECIMAL = "anon_inode:[io_uring]"
_TIMER = re.compile(rb"^signal: \d+/([0-9a-fx]+)$", re.MULTILINE)
_SHARED_QUEUE, _SIGINFO_BYTES = 1, 128
_MOST_SIGNALS = 1024  # looked at, of each queue
_GET_ROBUST_LIST = {"x86_64": 274, "aarch64": 100}


class _Peek(ctypes.Structure):
    _fields_ = (("off", ctypes.c_uint64), ("flags", ctypes.c_uint32), ("nr", ctypes.c_int32))


def words_of_process(pid: int) -> Words:
    """Return what epoll, eventfd, io_uring and POSIX timers of a process will hand back."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            # A descriptor may be closed meanwhile.
            with contextlib.suppress(OSError):
                kind = str(entry.readlink())
                pattern = _FOLDERS.get(kind)
                if pattern is not None:
                    base = 10 if kind == _DECIMAL else 16
                    text = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_bytes()
                    found += [int(value, base) for value in pattern.findall(text)]
    with contextlib.suppress(OSError):
        timers = Path(f"/proc/{pid}/timers").read_bytes()
        found += [int(value, 16) for value in _TIMER.findall(timers)]
    return np.array([value for value in found if 0 < value < 1 << 64], np.uint64)


def words_of_thread(tid: int) -> Words:
    """Return the values of signals that wait for a thread or its process, and its robust list.

    The thread must be stopped, and this thread must be the one that traces it.
    """
    found: list[Words] = [np.empty(0, np.uint64)]
    room = ctypes.create_string_buffer(_MOST_SIGNALS * _SIGINFO_BYTES)
    for queue in (0, _SHARED_QUEUE):
        ask = _Peek(0, queue, _MOST_SIGNALS)
        count = libc.ptrace(PEEKSIGINFO, tid, ctypes.byref(ask), room)
        if count > 0:
            found.append(np.frombuffer(room.raw[: count * _SIGINFO_BYTES], np.uint64))
    number = _GET_ROBUST_LIST.get(platform.machine())
    head, size = ctypes.c_uint64(0), ctypes.c_size_t(0)
    if number is not None and not libc.syscall(number, tid, ctypes.byref(head), ctypes.byref(size)):
        found.append(np.array([head.value], np.uint64))
    return np.concatenate(found)
