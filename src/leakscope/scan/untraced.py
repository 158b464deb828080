# SPDX-License-Identifier: Apache-2.0
"""Scan a process that nobody traced: walk its heap, then mark and sweep the blocks found."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import TargetError
from leakscope.model.heap import Account, HeapScan, LostSize
from leakscope.model.reachability import Reachability, ScanFacts
from leakscope.scan.allocators import walk
from leakscope.scan.frozen import Frozen
from leakscope.scan.mark import Marker
from leakscope.scan.roots import find_roots, guard_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.scan.allocators import Heap

__all__ = ["scan_untraced"]

_MOST_SIZES = 20


def scan_untraced(pid: int) -> HeapScan:
    """Stop the process, walk its heap and say what nothing points to.

    Raises `TargetError` when the process may not be stopped, ends meanwhile, or uses an
    allocator that is not known.
    """
    began = time.monotonic_ns()
    with Frozen(pid) as frozen:
        heap = walk(frozen)
        if heap is None:
            raise TargetError(
                f"process {pid} has no heap of an allocator that can be walked from outside",
                hint="glibc's malloc is known. Start the program with `leakscope run` instead.",
            )
        roots = find_roots(frozen, frozen.threads, [*heap.regions, *heap.tables], ())
        guard = guard_of(frozen, frozen.threads)
        with Marker(
            heap.starts, heap.sizes, pid=pid, guard=guard, vtables=_tables(frozen)
        ) as marker:
            for thread in frozen.threads:
                marker.mark_words(thread.words)
            marker.mark(roots)
            kinds = marker.sweep()
            scanned = marker.scanned_bytes
        resident = _resident(pid)
    notes = list(heap.notes)
    if heap.enumerated_share < 0.999:
        notes.append("the heap could not be walked whole, so nothing is called lost")
        kinds = np.full(len(kinds), int(Reachability.UNKNOWN), np.uint8)
    facts = ScanFacts(
        method="frozen",
        pause_ms=frozen.paused_ns / 1e6,
        seconds=(time.monotonic_ns() - began) / 1e9,
        scanned_bytes=scanned,
        threads=len(frozen.threads),
        roots_bytes=sum(root.end - root.start for root in roots),
        notes=tuple(notes),
    )
    return HeapScan(
        pid=pid,
        allocator=heap.allocator,
        blocks=len(kinds),
        counts={kind: int(np.count_nonzero(kinds == kind)) for kind in Reachability},
        bytes={kind: int(heap.sizes[kinds == kind].sum()) for kind in Reachability},
        sizes=_by_size(heap, kinds),
        account=Account(
            resident=resident,
            heap_mapped=heap.mapped_bytes,
            live=heap.live_bytes,
            free_in_allocator=heap.free_bytes,
            top=heap.top_bytes,
            overhead=heap.overhead_bytes,
        ),
        share=heap.enumerated_share,
        facts=facts,
    )


def _by_size(heap: Heap, kinds: npt.NDArray[np.uint8]) -> tuple[LostSize, ...]:
    definite = Counter(heap.sizes[kinds == Reachability.DEFINITELY_LOST].tolist())
    indirect = Counter(heap.sizes[kinds == Reachability.INDIRECTLY_LOST].tolist())
    found = [LostSize(size, definite[size], indirect[size]) for size in definite | indirect]
    return tuple(sorted(found, key=lambda each: -each.bytes)[:_MOST_SIZES])


def _tables(frozen: Frozen) -> list[tuple[int, int]]:
    return [
        (m.start, m.end)
        for m in frozen.mappings
        if m.permissions.startswith("r--") and m.path.startswith("/")
    ]


def _resident(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * 4096
