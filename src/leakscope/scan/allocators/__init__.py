# SPDX-License-Identifier: Apache-2.0
"""What lives in the heap of a process that nobody traced: one file for each allocator.

An allocator's module has a function `walk(memory, ...) -> Heap | None`, None when the process does
not use it. It reads memory and nothing else; damage ends a walk early and is said in `notes`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from leakscope.target.memory import Memory

__all__ = ["KNOWN", "Heap", "walk"]

_WHOLE = 0.999
KNOWN = "glibc's malloc, jemalloc 5.3 and gperftools' tcmalloc"


@dataclass(frozen=True, slots=True)
class Heap:
    """The blocks in use, by address, and where the rest of the allocator's memory went."""

    allocator: str  # "glibc 2.36"
    starts: npt.NDArray[np.uint64]  # what malloc returned, ascending
    # Usable bytes; of 64 bits only when there is a block that needs them.
    sizes: npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
    regions: tuple[tuple[int, int], ...]  # memory that belongs to the allocator, ascending
    mapped_bytes: int  # of `regions`, without address space that is only kept in reserve
    enumerated_bytes: int  # of them, those that the walk accounted for
    free_bytes: int  # in free chunks and caches
    top_bytes: int  # never handed out yet, at the ends of the arenas
    arenas: int
    notes: tuple[str, ...] = field(default_factory=tuple)
    tables: tuple[tuple[int, int], ...] = ()  # the allocator's variables outside `regions`
    # Blocks that a thread was just taking from the allocator or giving back to it: nothing but
    # the allocator may point to them, and they are not lost.
    moving: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    @property
    def live_bytes(self) -> int:
        """Usable bytes of the blocks in use."""
        return int(self.sizes.sum(dtype=np.uint64))

    @property
    def overhead_bytes(self) -> int:
        """What the allocator needs for itself: headers and tables."""
        return max(self.enumerated_bytes - self.live_bytes - self.free_bytes - self.top_bytes, 0)

    @property
    def enumerated_share(self) -> float:
        """Share of the allocator's memory that the walk accounted for, 0..1."""
        return self.enumerated_bytes / self.mapped_bytes if self.mapped_bytes else 1.0

    @property
    def is_whole(self) -> bool:
        """Whether all of it was walked, but for what hardly holds a pointer."""
        return self.enumerated_share >= _WHOLE


def walk(memory: Memory) -> Heap | None:
    """Return the heaps of all allocators that are recognised as one; None when there is none.

    A program that brings its own allocator has libc's as well, which others may use.
    """
    from leakscope.scan.allocators import glibc, jemalloc, tcmalloc
    from leakscope.scan.allocators._radix import read_variables

    variables = read_variables(memory)
    found = (
        jemalloc.walk(memory, variables),
        tcmalloc.walk(memory, variables),
        glibc.walk(memory),
    )
    heaps = [heap for heap in found if heap is not None]
    used = [heap for heap in heaps if len(heap.starts)] or heaps[-1:]
    return _together(used) if used else None


def _together(heaps: Sequence[Heap]) -> Heap:
    if len(heaps) == 1:
        return heaps[0]
    starts = np.concatenate([heap.starts for heap in heaps])
    sizes = np.concatenate([heap.sizes for heap in heaps])  # of 64 bits if one of them is
    order = np.argsort(starts, kind="stable")
    return Heap(
        allocator=" and ".join(heap.allocator for heap in heaps),
        starts=starts[order],
        sizes=sizes[order],
        regions=tuple(sorted(region for heap in heaps for region in heap.regions)),
        mapped_bytes=sum(heap.mapped_bytes for heap in heaps),
        enumerated_bytes=sum(heap.enumerated_bytes for heap in heaps),
        free_bytes=sum(heap.free_bytes for heap in heaps),
        top_bytes=sum(heap.top_bytes for heap in heaps),
        arenas=sum(heap.arenas for heap in heaps),
        notes=tuple(note for heap in heaps for note in heap.notes),
        tables=tuple(sorted(table for heap in heaps for table in heap.tables)),
        moving=np.concatenate([heap.moving for heap in heaps]),
    )
