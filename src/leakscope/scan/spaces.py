# SPDX-License-Identifier: Apache-2.0
"""Where in a heap the memory lies that its allocator keeps: in which arenas, beside which blocks.

Works on blocks and regions alone, so for every allocator whose heap can be walked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.census import Space, Spaces

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.scan.allocators import Heap
    from leakscope.target.memory import Memory

    Places = npt.NDArray[np.int64]
    Words = npt.NDArray[np.uint64]

__all__ = ["find_spaces"]

_PAGE = 4096
_HEADER = 8  # glibc's usable size reaches to the next block's header
_SMALLEST = 64  # a smaller gap is a header or the rounding of a size
_HEAP_BYTES = 64 << 20  # glibc: heaps of other arenas are aligned to it
_LARGEST_MARK = 256
_MOST_PARTS, _MOST_SIZES = 16, 8


def find_spaces(memory: Memory, heap: Heap, spans: Words | None = None) -> Spaces:
    """Return what is free and in memory, by part of the heap and by the blocks beside it.

    `spans` are the ranges that are in memory, ascending; without them all pages count.
    """
    if not heap.regions:
        return Spaces((), ())
    starts = heap.starts.astype(np.int64)
    ends = starts + heap.sizes.astype(np.int64)
    low = np.array([start for start, _ in heap.regions], np.int64)
    high = np.array([end for _, end in heap.regions], np.int64)
    first = np.searchsorted(starts, low)
    last = np.searchsorted(starts, high)
    # A gap begins at the end of a block and goes to the next one, or to the region's end.
    after = np.append(starts[1:], np.iinfo(np.int64).max) if len(starts) else starts
    region = np.searchsorted(low, starts, side="right") - 1
    until = np.minimum(after, high[np.maximum(region, 0)])
    gap = np.maximum(until - ends - _HEADER, 0)
    gap[(gap < _SMALLEST) | (region < 0)] = 0
    whole = _whole_pages(ends, ends + gap, None)
    pages = _whole_pages(ends, ends + gap, spans)
    edges = gap - whole  # of pages that blocks in use share
    gap = edges + pages  # what was never touched, or given back, is no memory
    names = _names(memory, heap)
    parts: dict[str, list[int]] = {}
    total_live = np.append(0, np.cumsum(heap.sizes, dtype=np.int64))
    total_gap, total_pages = np.append(0, np.cumsum(gap)), np.append(0, np.cumsum(pages))
    for number, name in enumerate(names):
        a, b = first[number], last[number]
        part = parts.setdefault(name, [0, 0, 0, 0])
        part[0] += int(high[number] - low[number])
        part[1] += int(total_live[b] - total_live[a])
        part[2] += int(total_gap[b] - total_gap[a])
        part[3] += int(total_pages[b] - total_pages[a])
    found = [Space(name, *numbers) for name, numbers in parts.items()]
    found.sort(key=lambda part: -part.free)
    return Spaces(tuple(found[:_MOST_PARTS]), _beside(heap, edges))


def _whole_pages(starts: Places, ends: Places, spans: Words | None) -> Places:
    """Bytes of whole pages in each range, of those in memory."""
    low = -(-starts // _PAGE) * _PAGE
    high = np.maximum(ends // _PAGE * _PAGE, low)
    if spans is None or not len(spans):
        return (high - low).astype(np.int64)
    edges = spans.astype(np.int64)
    before = np.append(0, np.cumsum(edges[:, 1] - edges[:, 0]))

    def below(places: Places) -> Places:
        at = np.searchsorted(edges[:, 0], places, side="right")
        over = np.maximum(edges[np.maximum(at - 1, 0), 1] - places, 0)
        return np.asarray(before[at] - np.where(at > 0, over, 0), np.int64)

    return below(high) - below(low)


def _beside(heap: Heap, free: Places) -> tuple[tuple[int, int, int], ...]:
    """Return by usable size how many blocks keep how much free space from going back."""
    some = np.flatnonzero(free)
    if not len(some):
        return ()
    sizes, where, counts = np.unique(heap.sizes[some], return_inverse=True, return_counts=True)
    sums = np.bincount(where, free[some].astype(np.float64), len(sizes))
    order = np.argsort(-sums, kind="stable")[:_MOST_SIZES]
    return tuple((int(sizes[i]), int(counts[i]), int(sums[i])) for i in order)


def _names(memory: Memory, heap: Heap) -> list[str]:
    """Name the part of the heap that each region belongs to."""
    if not heap.allocator.startswith("glibc") or " and " in heap.allocator:
        return ["the heap"] * len(heap.regions)
    arenas: dict[int, str] = {}
    names = []
    program = {m.start for m in memory.mappings if m.path == "[heap]"}
    for start, end in heap.regions:
        arena = 0
        if start % _HEAP_BYTES == 0 and end - start <= _HEAP_BYTES:
            arena = int.from_bytes(memory.read(start, 8), "little")
        if start in program:
            names.append("the main arena")
        elif 0 < arena % _HEAP_BYTES <= _LARGEST_MARK:
            names.append(arenas.setdefault(arena, f"arena {len(arenas) + 1}"))
        else:
            names.append("blocks with a mapping of their own")
    return names
