# SPDX-License-Identifier: Apache-2.0
"""What attaching and detaching do to a stopped process: system calls in it, bytes written to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from leakscope.errors import TargetError
from leakscope.proc.maps import read_maps
from leakscope.proc.process import living_task, read_start
from leakscope.proc.text import read_text
from leakscope.target.borrowed import (
    Borrowed,
    Gadgets,
    RefusedError,
    borrow_thread,
    find_gadgets,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from leakscope.proc.maps import Mapping
    from leakscope.target.frozen import Frozen
    from leakscope.target.memory import Thread

__all__ = [
    "Calls",
    "TooSlowError",
    "Unstopped",
    "Writer",
    "borrow",
    "free_place",
    "inner_tid",
    "instructions",
]
__all__ += ["stack_words", "thread_pointers"]

MMAP, MUNMAP, MADVISE, CLOSE, FTRUNCATE, MEMFD_CREATE = 9, 11, 28, 3, 77, 319
READ, WRITE, EXEC = 1, 2, 4
SHARED, PRIVATE, FIXED, ANONYMOUS, NORESERVE = 1, 2, 0x10, 0x20, 0x4000
FIXED_NOREPLACE = 0x100000
DONTNEED, DONTFORK, DONTDUMP, WIPEONFORK = 4, 10, 16, 18
_AT_ENTRY = 9
_GROWN_UP_S = 1.0
# syscall; ret, and behind it: mov $15, %eax; syscall
_INSTRUCTIONS, _SIGRETURN_AT = b"\x0f\x05\xc3\xb8\x0f\0\0\0\x0f\x05", 3
_STACK_BYTES = 16384  # of each stack, for what a signal has interrupted
_STACK_ROOM = 1 << 30  # below the first stack, which grows
_HEAP_ROOM = 64 << 30  # above the heap, which grows
_APART = 16 << 20  # from other mappings, so that none of them is held up or joined


class TooSlowError(Exception):
    """The process would have stood still for too long; what was done is undone."""


class Calls:
    """System calls in a stopped process, by a thread of it that is free for that."""

    def __init__(self, thread: Borrowed, frozen: Frozen, deadline: float | None) -> None:
        self._thread, self._frozen = thread, frozen
        self._deadline = deadline

    def map(self, address: int, size: int, protection: int, flags: int, fd: int = -1) -> None:
        """Map memory at `address` and nowhere else. Raises `OSError`, `TooSlowError`."""
        self.check()
        result, _ = self._thread.call(MMAP, address, size, protection, flags, fd & (1 << 64) - 1, 0)
        if result != address:
            if not -4096 < result < 0:  # elsewhere: an old kernel
                self.unmap(result & (1 << 64) - 1, size)
                result = -17
            raise OSError(-result, os.strerror(-result))

    @contextlib.contextmanager
    def unmapped_if_killed(self, address: int, size: int) -> Iterator[None]:
        """Let the thread unmap what is mapped inside, should we not live to write down what it is.

        Where other threads run, or something is there, that is not done: it may be theirs.
        """
        there = self._frozen.mappings
        free = not any(m.start < address + size and address < m.end for m in there)
        if free and self._frozen.is_whole:
            with self._thread.undone_by(MUNMAP, address, size):
                yield
        else:
            yield

    def unmap(self, address: int, size: int) -> None:
        """Unmap memory. Raises `OSError`."""
        self._checked(MUNMAP, address, size)

    def advise(self, address: int, size: int, advice: int) -> None:
        """Call madvise. Raises `OSError`."""
        self._checked(MADVISE, address, size, advice)

    def memory_file(self, size: int) -> int:
        """Make a file of its own in the process; return its descriptor there. Raises `OSError`."""
        self.check()
        name = self._thread.write(b"leakscope.live\0")
        fd = self._checked(MEMFD_CREATE, name, 1)
        try:
            self._checked(FTRUNCATE, fd, size)
        except OSError:
            self.close(fd)
            raise
        return fd

    def close(self, fd: int) -> None:
        """Close a descriptor of the process."""
        self._checked(CLOSE, fd)

    def check(self) -> None:
        """Raise `TooSlowError` when the process stands still for too long."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TooSlowError

    def _checked(self, number: int, *arguments: int) -> int:
        result, _ = self._thread.call(number, *arguments)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result


@contextlib.contextmanager
def borrow(frozen: Frozen, gadgets: Gadgets, deadline: float | None) -> Iterator[Calls]:
    """Yield the system calls of a stopped process. Raises `RefusedError`: no thread is free."""
    with borrow_thread(frozen, gadgets) as thread:
        yield Calls(thread, frozen, deadline)


class Unstopped:
    """The memory of a process that runs: what is to be known of it before it is stopped."""

    threads: tuple[Thread, ...] = ()

    def __init__(self, memory: Writer) -> None:
        self.mappings = read_maps(memory.pid)
        self.read = memory.read


@contextlib.contextmanager
def instructions(memory: Writer, running: Unstopped) -> Iterator[tuple[Gadgets, set[int]]]:
    """Yield instructions of the process by which a thread of it can make system calls for us.

    And the pages that they were written to, which must stay as they are meanwhile. A small static program may have none that will do. Then they lie meanwhile where it began, where
    it never comes again. Raises `RefusedError` when there is no such place.
    """
    try:
        found = find_gadgets(running)
    except RefusedError:
        found = None
    if found is not None:
        yield found, set()
        return
    start = _entry(memory.pid)
    place = next((m for m in running.mappings if m.start <= start < m.end - 64), None)
    before = memory.read(start, len(_INSTRUCTIONS))
    if place is None or place.permissions != "r-xp" or not place.inode or before[:1] == b"\0":
        raise RefusedError("no instructions for system calls were found in it")
    if _age_s(memory.pid) < _GROWN_UP_S:
        raise RefusedError("it has just begun, and may be where its instructions would be put")
    memory.write(start, _INSTRUCTIONS)
    try:
        yield Gadgets(start, start + _SIGRETURN_AT), {start & -4096, start + 16 & -4096}
    finally:
        with contextlib.suppress(OSError):  # it ended
            memory.write(start, before)


def _age_s(pid: int) -> float:
    started = read_start(pid)
    ticks = os.sysconf("SC_CLK_TCK")
    return 0.0 if started is None else time.clock_gettime(time.CLOCK_BOOTTIME) - started / ticks


def _entry(pid: int) -> int:
    """Return the address at which the program began; 0: not known."""
    try:
        raw = Path(f"/proc/{living_task(pid)}/auxv").read_bytes()
    except OSError:
        return 0
    pairs = struct.iter_unpack("<QQ", raw[: len(raw) // 16 * 16])
    return next((value for kind, value in pairs if kind == _AT_ENTRY), 0)


class Writer:
    """A context manager: the memory of a process, to be read and written."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._fd = os.open(f"/proc/{living_task(self.pid)}/mem", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise TargetError(f"there is no process {self.pid}") from None
        except PermissionError:
            raise TargetError(
                f"the memory of process {self.pid} may not be written by this user",
                hint="Run as the user it runs as, or as root (it needs CAP_SYS_PTRACE).",
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, address: int, size: int) -> bytes:
        """Return up to `size` bytes; fewer where they cannot be read."""
        try:
            return os.pread(self._fd, size, address)
        except (OSError, OverflowError):
            return b""

    def write(self, address: int, data: bytes) -> None:
        """Write `data`, code too. Raises `OSError`."""
        at = 0
        while at < len(data):
            done = os.pwrite(self._fd, data[at : at + (1 << 20)], address + at)
            if done <= 0:
                raise OSError(5, os.strerror(5))
            at += done


def free_place(
    mappings: Sequence[Mapping], size: int, low: int, high: int, *, below: bool = True
) -> int | None:
    """Return an address in [low, high) with nothing around; None when there is none.

    Not where the heap or a stack grow to. The highest one, or with `below` False the lowest.
    """
    low = max(low, 1 << 16)
    places: list[int] = []
    edges = [(0, 0, "")] + [(m.start, m.end, m.path) for m in mappings] + [(1 << 47, 1 << 47, "")]
    for (_, before, path), (after, _, above) in itertools.pairwise(edges):
        first = before + (_HEAP_ROOM if path == "[heap]" else _APART)
        last = after - (_STACK_ROOM if above == "[stack]" else _APART) - size
        if after - before < 4 * _APART and path != "[heap]" and above != "[stack]":
            middle = (after - before - size) // 2
            first = last = before + middle if middle >= 4096 else -1
        first, last = max(first, low), min(last, high - size)
        if 0 <= first <= last:
            places.append((last if below else first) & -4096)
    places = [each for each in places if each >= low]
    if not places:
        return None
    return max(places) if below else min(places)


def inner_tid(pid: int, tid: int) -> int:
    """Return the number of a thread in its own pid namespace."""
    text = read_text(f"/proc/{pid}/task/{tid}/status") or read_text(f"/proc/{tid}/status") or ""
    numbers = text.partition("\nNSpid:")[2].partition("\n")[0].split()
    return int(numbers[-1]) if numbers else tid


def thread_pointers(frozen: Frozen) -> dict[int, int]:
    """Return the thread pointer of each stopped thread by its number."""
    return {thread.tid: thread.tls for thread in frozen.threads}


def stack_words(frozen: Frozen) -> np.ndarray:
    """Return the words at the inner ends of all stacks, and the program counters."""
    words = [np.array([thread.pc for thread in frozen.threads], np.uint64)]
    for thread in frozen.threads:
        raw = frozen.read(thread.sp & -8, _STACK_BYTES)
        if len(raw) < _STACK_BYTES:  # it ends before
            raw = frozen.read(thread.sp & -8, 4096 - (thread.sp & 4088))
        words.append(np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64))
    return np.concatenate(words)
