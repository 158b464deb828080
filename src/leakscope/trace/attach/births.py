# SPDX-License-Identifier: Apache-2.0
"""Who forks, and who runs another program: told by the kernel (perf_event_open), so that none is missed.

Nothing is put into a process for it and no process waits for us. Where the kernel does not tell this
user, `open_births` returns None, and who wants to know has to look at the lists of children.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import platform
import struct
from dataclasses import dataclass, field

__all__ = ["Birth", "Births", "open_births"]

_CALLS = {"x86_64": 298, "aarch64": 241}
_DUMMY = 9  # PERF_COUNT_SW_DUMMY: counts nothing
_INHERIT, _NO_KERNEL, _NO_HYPERVISOR, _COMM, _TASK, _COMM_EXEC = (
    1 << 1, 1 << 5, 1 << 6, 1 << 9, 1 << 13, 1 << 24
)  # fmt: skip
_CLOSED = 8  # PERF_FLAG_FD_CLOEXEC
_SET_OUTPUT = 0x2405
_LOST, _COMM_RECORD, _FORK = 2, 3, 7
_EXEC_MARK = 1 << 13
_PAGES = 64
_MOST_DESCRIPTORS = 256
_ATTRIBUTES = 112
_HEAD = 1024  # of struct perf_event_mmap_page: data_head, data_tail


@dataclass(frozen=True, slots=True)
class Birth:
    """A process that was forked by `parent`; or, where that is 0, that runs another program now."""

    pid: int
    parent: int


@dataclass(slots=True)
class Births:
    """What the kernel tells, of all processes or of those of one family. `lost` counts gaps."""

    files: list[int] = field(default_factory=list)
    rings: list[mmap.mmap] = field(default_factory=list)
    lost: int = 0

    def read(self) -> list[Birth]:
        """Return what happened since the last call, in the order of time for each processor."""
        found: list[Birth] = []
        for ring in self.rings:
            self._drain(ring, found)
        # Forks first: one may have run another program on another processor.
        return sorted(found, key=lambda birth: not birth.parent)

    def close(self) -> None:
        """Let the kernel tell no more."""
        for ring in self.rings:
            ring.close()
        for fd in self.files:
            os.close(fd)
        self.rings, self.files = [], []

    def _drain(self, ring: mmap.mmap, found: list[Birth]) -> None:
        size = _PAGES * mmap.PAGESIZE
        head, tail = struct.unpack_from("<QQ", ring, _HEAD)

        def take(at: int, count: int) -> bytes:
            first = at % size
            raw = ring[mmap.PAGESIZE + first : mmap.PAGESIZE + min(first + count, size)]
            return raw + ring[mmap.PAGESIZE : mmap.PAGESIZE + count - len(raw)]

        while head - tail >= 8:
            kind, flags, length = struct.unpack("<IHH", take(tail, 8))
            if length < 8 or length > head - tail:  # cannot be
                self.lost += 1
                tail = head
                break
            raw = take(tail + 8, length - 8)
            if kind == _FORK and len(raw) >= 16:
                pid, parent, *_ = struct.unpack_from("<4i", raw)
                if pid > 0 and parent > 0 and pid != parent:  # else a thread, or not ours to see
                    found.append(Birth(pid, parent))
            elif kind == _COMM_RECORD and flags & _EXEC_MARK and len(raw) >= 8:
                found.append(Birth(struct.unpack_from("<i", raw)[0], 0))
            elif kind == _LOST and len(raw) >= 16:
                self.lost += int(struct.unpack_from("<QQ", raw)[1])
            tail += length
        struct.pack_into("<Q", ring, _HEAD + 8, tail)


def open_births(pid: int) -> Births | None:
    """Begin to hear of the descendants of `pid`, and maybe of others; None: the kernel does not tell.

    Those that are forked after this are told.
    """
    processors = _processors()
    machine = _open([-1], processors, 0)
    if machine is not None:
        return machine
    try:
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
    except OSError:
        return None
    return _open(threads, processors, _INHERIT)


def _processors() -> list[int]:
    """Return the processors that are there; a process may run on others than we do."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError), open("/sys/devices/system/cpu/online") as file:  # noqa: PTH123
        for part in file.read().strip().split(","):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    return found


def _open(threads: list[int], processors: list[int], flags: int) -> Births | None:
    births = Births()
    if not processors or len(threads) * len(processors) > _MOST_DESCRIPTORS:
        return None
    try:
        for processor in processors:
            first = -1
            for pid in threads:
                fd = _perf(pid, processor, flags)
                births.files.append(fd)
                if first < 0:
                    first = fd
                    births.rings.append(mmap.mmap(fd, (_PAGES + 1) * mmap.PAGESIZE))
                else:
                    _redirect(fd, first)
    except OSError:
        births.close()
        return None
    return births


def _perf(pid: int, processor: int, more: int) -> int:
    number = _CALLS.get(platform.machine())
    if number is None:
        raise OSError(38, "not known here")
    flags = _NO_KERNEL | _NO_HYPERVISOR | _COMM | _TASK | _COMM_EXEC | more
    plan = struct.pack("<IIQQQQQ", 1, _ATTRIBUTES, _DUMMY, 0, 0, 0, flags).ljust(_ATTRIBUTES, b"\0")
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    fd = int(
        library.syscall(
            ctypes.c_long(number), ctypes.create_string_buffer(plan, len(plan)),
            ctypes.c_int(pid), ctypes.c_int(processor), ctypes.c_int(-1), ctypes.c_ulong(_CLOSED),
        )
    )  # fmt: skip
    if fd < 0:
        raise OSError(ctypes.get_errno(), "perf_event_open")
    return fd


def _redirect(fd: int, to: int) -> None:
    fcntl.ioctl(fd, _SET_OUTPUT, to)
