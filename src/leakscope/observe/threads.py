# SPDX-License-Identifier: Apache-2.0
"""Where the threads of a process began: the library, and the address of the function in it.

A thread's function lies at the outer end of its stack: glibc and musl keep its address beside the
stack, and the first return addresses point into it. So the first word from that end which
points into code outside the C library is taken. Nothing is stopped; a thread that starts or ends
at that moment may be missed.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.errors import LeakscopeError
from leakscope.proc.maps import Mapping, read_maps
from leakscope.proc.modules import mapped_module
from leakscope.proc.process import living_task

if TYPE_CHECKING:
    from leakscope.model.frames import Module

__all__ = ["ThreadStart", "stack_pointers", "thread_starts"]

_MOST = 2000
_TOP_BYTES = 16 << 10
_LIBC = ("libc.so", "libc-", "libpthread", "ld-linux", "ld-musl", "ld-2", "libc.musl")


@dataclass(frozen=True, slots=True)
class ThreadStart:
    """Threads that began in the same function. `offset` is an ELF virtual address."""

    module: Module
    offset: int
    count: int


def thread_starts(pid: int) -> tuple[ThreadStart, ...]:
    """Return where the threads of `pid` but its first one began, most frequent first.

    Empty without permission, and for programs that keep stacks of their own, as Go's.
    """
    try:
        maps = read_maps(pid)
        memory = os.open(f"/proc/{living_task(pid)}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except (LeakscopeError, OSError):
        return ()
    found: Counter[tuple[Module, int]] = Counter()
    modules: dict[str, Module | None] = {}
    try:
        starts = [m.start for m in maps]
        for tid in _tids(pid):
            stack = _mapping_at(_stack_pointer(pid, tid), maps, starts)
            if stack is None:
                continue
            at = max(stack.start, stack.end - _TOP_BYTES)
            try:
                data = os.pread(memory, stack.end - at, at)
            except OSError:
                continue
            place = _first_code(data, pid, maps, starts, modules)
            if place is not None:
                found[place] += 1
    finally:
        os.close(memory)
    return tuple(ThreadStart(m, offset, n) for (m, offset), n in found.most_common())


def stack_pointers(pid: int) -> list[int]:
    """Return the stack pointer of each thread but the first; 0 for one that runs just now."""
    return [_stack_pointer(pid, tid) for tid in _tids(pid)]


def _tids(pid: int) -> list[int]:
    try:
        names = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return sorted(int(n) for n in names if n.isdecimal() and int(n) != pid)[:_MOST]


def _stack_pointer(pid: int, tid: int) -> int:
    """Return the stack pointer of a thread that waits in the kernel; 0 when it runs."""
    try:
        with open(f"/proc/{pid}/task/{tid}/syscall", encoding="ascii") as file:
            words = file.read(512).split()
        return int(words[-2], 16) if len(words) >= 3 else 0
    except (OSError, ValueError):
        return 0


def _mapping_at(address: int, maps: tuple[Mapping, ...], starts: list[int]) -> Mapping | None:
    at = bisect_right(starts, address) - 1
    return maps[at] if at >= 0 and address < maps[at].end else None


def _first_code(
    data: bytes,
    pid: int,
    maps: tuple[Mapping, ...],
    starts: list[int],
    modules: dict[str, Module | None],
) -> tuple[Module, int] | None:
    for word in reversed(memoryview(data[: len(data) // 8 * 8]).cast("Q")):
        mapping = _mapping_at(word, maps, starts) if word else None
        if mapping is None or "x" not in mapping.permissions or not mapping.path.startswith("/"):
            continue
        if mapping.path.rpartition("/")[2].startswith(_LIBC):
            continue
        if mapping.path not in modules:
            modules[mapping.path] = mapped_module(mapping.path, maps, pid)
        module = modules[mapping.path]
        return None if module is None else (module, word - module.bias)
    return None
