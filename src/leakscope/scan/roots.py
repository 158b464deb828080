# SPDX-License-Identifier: Apache-2.0
"""Where the pointers of a process start.

Stacks from the stack pointer up, static and dynamic thread-local storage, data of every
module, and all memory that the allocator does not own. (Registers are `Thread.words`.)
"""

from __future__ import annotations

import platform
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leakscope.target.areas import is_tracers
from leakscope.target.memory import Range
from leakscope.target.resident import Resident

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from leakscope.proc.maps import Mapping
    from leakscope.target.memory import Memory, Thread

__all__ = ["Root", "Unjoined", "find_dead_threads", "find_roots", "find_thread_vectors"]
__all__ += ["find_unjoined", "guard_of"]

_RED_ZONE = 128  # bytes below the stack pointer that a leaf function may use (System V ABI)
_SHARED = ("shm", "zero")
_SMALLEST_STACK = 16 << 10
_TCB_REACH = 1 << 16  # a thread's descriptor lies in the last bytes of its stack's mapping
_DESCRIPTOR_BYTES = 0x900
_START_ROUTINE = range(0x600, 0x700)  # where it is in struct pthread
_TID_OFFSETS = (0x2D0,)  # of `tid` in struct pthread, x86-64 glibc 2.27 and later


@dataclass(frozen=True, slots=True)
class Root(Range):
    """A range of memory that is scanned, and what it is."""

    name: str  # "stack of thread 12", "libfoo.so.1", "mapping"
    is_stack: bool = False


def find_roots(
    memory: Memory,
    threads: Sequence[Thread],
    heap: Iterable[tuple[int, int]],
    own: Iterable[tuple[int, int]],
) -> list[Root]:
    """Return the ranges to scan, ascending.

    `heap` is what the allocator owns, `own` the tracer's memory; neither is a root.
    """
    stacks = sorted(thread.sp for thread in threads)
    hidden = _merged([*heap, *own])
    found: list[Root] = []
    before = None
    for mapping in memory.mappings:
        if before is not None and _is_relro(before, mapping) and _is_scanned(mapping):
            # Written at the start, and read-only since.
            found.append(Root(before.start, before.end, _name(before)))
        before = mapping
        if not _is_scanned(mapping):
            continue
        start, name, is_stack = mapping.start, _name(mapping), False
        at = bisect_right(stacks, mapping.start)
        if at < len(stacks) and stacks[at] < mapping.end:
            # Below the lowest stack pointer lies what has returned.
            start, is_stack = max(start, stacks[at] - _RED_ZONE), True
            tids = [t.tid for t in threads if mapping.start <= t.sp < mapping.end]
            name = f"stack of thread {tids[0]}" if len(tids) == 1 else f"stacks of threads {tids}"
        left = _without(start, mapping.end, hidden)
        if left and not is_stack and _may_be_stack(mapping):
            descriptor = _dead_stack(memory, mapping)
            left = left if descriptor is None else []
        found += [Root(low, high, name, is_stack) for low, high in left]
    return found


def find_thread_vectors(memory: Memory, threads: Sequence[Thread]) -> list[int]:
    """Return the addresses of the vectors through which threads find their TLS (DTV).

    A thread's descriptor points to the second of a vector's entries, so to the inside of the
    block; those of threads that have ended wait in their stacks for the next ones.
    """
    x86 = platform.machine() == "x86_64"
    places = [thread.tls + 8 if x86 else thread.tls for thread in threads if thread.tls]
    places += [descriptor + 8 for descriptor in find_dead_threads(memory, threads)]
    words = [int.from_bytes(memory.read(place, 8), "little") for place in places]
    return [word - 16 for word in words if word > 16]


def find_dead_threads(memory: Memory, threads: Sequence[Thread]) -> list[int]:
    """Return the descriptors of threads that have ended, whose stacks are kept for others.

    In a forked child these are the threads of its parent.
    """
    stacks = sorted(thread.sp for thread in threads)
    found: list[int] = []
    for mapping in memory.mappings:
        if not _may_be_stack(mapping):
            continue
        at = bisect_right(stacks, mapping.start)
        if at < len(stacks) and stacks[at] < mapping.end:
            continue
        descriptor = _dead_stack(memory, mapping)
        if descriptor is not None:
            found.append(descriptor)
    return found


@dataclass(frozen=True, slots=True)
class Unjoined:
    """A thread that has ended and that pthread_join may still be called for."""

    descriptor: int  # address of its struct pthread, which is its pthread_t
    result: int  # what pthread_join would return
    stack: tuple[int, int]  # its mapping


def find_unjoined(memory: Memory, threads: Sequence[Thread]) -> list[Unjoined]:
    """Return the threads that have ended, and were neither joined nor detached (x86-64 glibc)."""
    code = [(m.start, m.end) for m in memory.mappings if "x" in m.permissions]
    starts = [start for start, _ in code]
    found: list[Unjoined] = []
    for descriptor in find_dead_threads(memory, threads):
        raw = memory.read(descriptor, _DESCRIPTOR_BYTES)
        words = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64).tolist()
        if len(words) * 8 < _START_ROUTINE.stop:
            continue
        # In struct pthread: joinid, flags, result, policy, start_routine; where they begin
        # depends on the version, so the routine is found by being code.
        for at in range(_START_ROUTINE.start // 8, _START_ROUTINE.stop // 8):
            inside = bisect_right(starts, words[at]) - 1
            if inside >= 0 and words[at] < code[inside][1]:
                ended = words[_TID_OFFSETS[0] // 8] & 0xFFFFFFFF == 0
                # A detached thread's joinid is itself; some versions have flags after it.
                if ended and descriptor not in words[at - 4 : at - 2]:
                    place = next(m for m in memory.mappings if m.start <= descriptor < m.end)
                    stack = (place.start, place.end)
                    found.append(Unjoined(descriptor, words[at - 2], stack))
                break
    return found


def guard_of(memory: Memory, threads: Sequence[Thread]) -> int:
    """Return glibc's pointer guard (x86-64: fs:0x30), 0 when it is not known."""
    for thread in threads:
        raw = memory.read(thread.tls, 0x38)
        words = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64)
        # tcbhead_t begins with its own address, twice.
        if len(words) == 7 and int(words[0]) == thread.tls == int(words[2]):
            return int(words[6])
    return 0


def _is_scanned(mapping: Mapping) -> bool:
    # Whatever its permissions are now, anonymous memory was written; and shared memory may be
    # written elsewhere.
    sealed = not mapping.path or mapping.path == "[heap]" or mapping.permissions[3] == "s"
    if not mapping.permissions.startswith("rw") and not sealed:
        return False
    if mapping.path.startswith("[v"):  # the kernel's
        return False
    # Memory of a device may not be read; shared memory is data like any other.
    if mapping.path.startswith("/dev/") and mapping.path.split("/")[2] not in _SHARED:
        return False
    return not is_tracers(mapping)


def _may_be_stack(mapping: Mapping) -> bool:
    """Whether glibc may have mapped it for a thread's stack; `PTHREAD_STACK_MIN` is 16 KiB."""
    return (
        not mapping.path
        and mapping.permissions.startswith("rw")
        and mapping.end - mapping.start >= _SMALLEST_STACK
    )


def _is_relro(mapping: Mapping, following: Mapping) -> bool:
    """Whether these are the variables of a module that are constant once it is relocated."""
    return (
        mapping.permissions.startswith("r--")
        and following.permissions.startswith("rw")
        and mapping.path == following.path != ""
        and mapping.end == following.start
    )


def _name(mapping: Mapping) -> str:
    return mapping.path.rpartition("/")[2] or "mapping"


def _dead_stack(memory: Memory, mapping: Mapping) -> int | None:
    """Return the descriptor in the stack of a thread that ended, kept by glibc for the next one.

    None when this is something else. At its top lies the thread's descriptor, which begins with its own address. The kernel
    zeroes the thread id in it when the thread ends; joining sets it to -1.
    """
    if not isinstance(memory, Resident):
        return _look_for_descriptor(memory, mapping)
    # It is asked for again by everybody who wants to know of ended threads.
    known = memory.ended_stacks
    if mapping.start not in known:
        known[mapping.start] = _look_for_descriptor(memory, mapping)
    return known[mapping.start]


def _look_for_descriptor(memory: Memory, mapping: Mapping) -> int | None:
    start = max(mapping.start, mapping.end - _TCB_REACH)
    if isinstance(memory, Resident) and not memory.resident_bytes(start, mapping.end):
        return None  # nothing but zeros
    raw = memory.read(start, mapping.end - start)
    words = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64)
    if len(words) < 128:
        return None
    addresses = start + 8 * np.arange(len(words), dtype=np.uint64)
    for at in np.flatnonzero((words[:-2] == addresses[:-2]) & (words[2:] == addresses[:-2])):
        for offset in _TID_OFFSETS:
            place = int(at) + offset // 8
            if place < len(words):
                ended = int(words[place]) & 0xFFFFFFFF in {0, 0xFFFFFFFF}
                return start + 8 * int(at) if ended else None
    return None


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(r for r in ranges if r[0] < r[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _without(start: int, end: int, hidden: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what is left of [start, end) without the hidden ranges."""
    left = []
    at = bisect_right(hidden, (start, 1 << 64)) - 1
    for low, high in hidden[max(at, 0) :]:
        if low >= end:
            break
        if high <= start:
            continue
        if start < low:
            left.append((start, low))
        start = max(start, high)
    if start < end:
        left.append((start, end))
    return left
