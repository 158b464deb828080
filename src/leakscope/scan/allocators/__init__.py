# SPDX-License-Identifier: Apache-2.0
"""What lives in the heap of a process that nobody traced: one file for each allocator.

An allocator's module has a function `walk(memory, ...) -> Heap | None`, None when the process does
not use it. It reads memory and nothing else; damage ends a walk early and is said in `notes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.scan.allocators.heap import Heap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.target.memory import Memory

__all__ = ["KNOWN", "Heap", "walk"]

KNOWN = "glibc's malloc, jemalloc 5.3 and gperftools' tcmalloc"


def walk(memory: Memory) -> Heap | None:
    """Return the heaps of all allocators that are recognised as one; None when there is none.

    A program that brings its own allocator has libc's as well, which others may use.
    """
    from leakscope.scan.allocators import glibc, jemalloc, tcmalloc
    from leakscope.scan.allocators._radix import read_variables

    variables = read_variables(memory, min(jemalloc.ROOT_WORDS, tcmalloc.ROOT_WORDS))
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
