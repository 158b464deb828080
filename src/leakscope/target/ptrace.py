# SPDX-License-Identifier: Apache-2.0
"""ptrace(2): its requests, and the registers of a stopped thread. glibc and musl alike."""

from __future__ import annotations

import ctypes
import os
import platform

import numpy as np

__all__ = ["ALL", "ARM_TLS", "CONT", "DETACH", "EVENT_CLONE", "EVENT_STOP", "GETEVENTMSG"]
__all__ += ["GETSIGMASK", "INTERRUPT", "OPTION_CLONE", "OPTION_EXITKILL", "OPTION_SYSGOOD"]
__all__ += ["PEEKSIGINFO", "PRSTATUS", "SEIZE", "SETOPTIONS", "SETSIGMASK", "SYSCALL", "TRAP"]
__all__ += ["general_registers", "libc", "register_set", "set_general_registers"]
__all__ += ["restartable_area", "vector_registers"]

# linux/ptrace.h
CONT, DETACH, SYSCALL = 7, 17, 24
SETOPTIONS, GETEVENTMSG, _GETREGSET, _SETREGSET = 0x4200, 0x4201, 0x4204, 0x4205
SEIZE, INTERRUPT, PEEKSIGINFO, GETSIGMASK, SETSIGMASK = 0x4206, 0x4207, 0x4209, 0x420A, 0x420B
_GET_RSEQ = 0x420F
OPTION_SYSGOOD, OPTION_CLONE, OPTION_EXITKILL = 1, 1 << 3, 1 << 20
EVENT_CLONE, EVENT_STOP = 3, 128
TRAP = 5  # what INTERRUPT stops for; a user's stop has its own signal
ALL = 0x40000000  # __WALL of waitpid(2): threads, too
# linux/elf.h: sets of registers
PRSTATUS, _FPREGS, _XSTATE, ARM_TLS = 1, 2, 0x202, 0x401

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def general_registers(tid: int) -> list[int]:
    """Return the words of a stopped thread's general registers; [] when it is gone."""
    raw = register_set(tid, PRSTATUS)
    words: list[int] = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64).tolist()
    return words


def vector_registers(tid: int) -> bytes:
    """Return a stopped thread's vector registers, on x86-64 as XSAVE stores them."""
    return register_set(tid, _XSTATE if platform.machine() == "x86_64" else _FPREGS)


def set_general_registers(tid: int, words: list[int]) -> None:
    """Give a stopped thread these registers. Raises `OSError` when it is gone."""
    data = np.array(words, np.uint64)
    vector = _Vector(data.ctypes.data, data.nbytes)
    if libc.ptrace(_SETREGSET, tid, ctypes.c_void_p(PRSTATUS), ctypes.byref(vector)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def register_set(tid: int, kind: int) -> bytes:
    """Return a set of a stopped thread's registers, b"" when it has none or is gone."""
    buffer = ctypes.create_string_buffer(16384)
    vector = _Vector(ctypes.cast(buffer, ctypes.c_void_p), len(buffer))
    if libc.ptrace(_GETREGSET, tid, ctypes.c_void_p(kind), ctypes.byref(vector)) < 0:
        return b""
    return buffer.raw[: vector.length]


def restartable_area(tid: int) -> int:
    """Return the address of a stopped thread's struct rseq; 0: it has none, or that is not told."""
    words = (ctypes.c_uint64 * 3)()
    size = ctypes.sizeof(words)
    if libc.ptrace(_GET_RSEQ, tid, ctypes.c_void_p(size), ctypes.byref(words)) < size:
        return 0
    return int(words[0])
