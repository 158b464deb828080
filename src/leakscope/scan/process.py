# SPDX-License-Identifier: Apache-2.0
"""Scan a process: say which of its blocks anything still points to."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.reachability import Reachability, ScanFacts
from leakscope.scan.allocators import walk
from leakscope.scan.frozen import Frozen
from leakscope.scan.mark import Marker
from leakscope.scan.roots import find_roots, guard_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from leakscope.model.recordings import Recording
    from leakscope.proc import maps
    from leakscope.scan.allocators import Heap, Memory

__all__ = ["Graph", "graph_of", "scan_process"]


@dataclass(frozen=True, slots=True)
class Graph:
    """The blocks of a heap, ascending, and which of them a recording knows.

    `known[i]` is the position in the recording's blocks, -1 for a block that only the walk of
    the heap found: it was allocated before tracing began, or was not sampled.
    """

    starts: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint64]
    known: npt.NDArray[np.int64]


def scan_process(
    pid: int,
    read: Callable[[], Recording],
    *,
    own: Sequence[tuple[int, int]] = (),
    stack_ends: Mapping[int, int] | None = None,
    pointers: Sequence[int] = (),
) -> Recording:
    """Stop the process, and return its recording with the reachability of every block.

    `read` is called while the process stands still; `own` are ranges of memory that belong to
    the tracer; `stack_ends` says by thread where a stack ends whose inner part is known to be
    of no meaning, registers included; `pointers` are further roots. Raises `TargetError` when the process may not be stopped or ends meanwhile.
    """
    began = time.monotonic_ns()
    with Frozen(pid) as frozen:
        recording = read()
        heap = walk(frozen)
        graph = graph_of(recording, heap)
        notes = list(heap.notes) if heap is not None else []
        complete = _is_complete(recording, heap, notes)
        ends = stack_ends or {}
        threads = [replace(t, sp=ends.get(t.tid, t.sp)) for t in frozen.threads]
        roots = find_roots(frozen, threads, _owned(frozen, heap, graph), own)
        with Marker(
            graph.starts,
            graph.sizes,
            pid=pid,
            guard=guard_of(frozen, frozen.threads),
            vtables=_vtables(frozen.mappings),
        ) as marker:
            for thread in threads:
                if thread.tid not in ends:
                    marker.mark_words(thread.words)
            marker.mark_words(np.array(pointers, np.uint64))
            marker.mark(roots)
            kinds = marker.sweep()
            scanned, unread = marker.scanned_bytes, marker.unread_bytes
    if unread:
        notes.append(f"{unread:,} bytes could not be read")
    facts = ScanFacts(
        method="frozen",
        pause_ms=frozen.paused_ns / 1e6,
        seconds=(time.monotonic_ns() - began) / 1e9,
        scanned_bytes=scanned,
        threads=len(frozen.threads),
        roots_bytes=sum(root.end - root.start for root in roots),
        notes=tuple(notes),
    )
    reachability = np.full(len(recording.blocks), int(Reachability.UNKNOWN), np.uint8)
    if complete:
        ours = graph.known >= 0
        reachability[graph.known[ours]] = kinds[ours]
    return replace(recording, reachability=reachability, scan=facts)


def graph_of(recording: Recording, heap: Heap | None) -> Graph:
    """Join the recording's blocks with those that the walk of the heap found."""
    blocks = recording.blocks
    starts = blocks["address"].astype(np.uint64)
    # The size that was asked for: a pointer behind it is not one into the block.
    sizes = np.maximum(blocks["size"].astype(np.uint64), np.uint64(1))
    known = np.arange(len(starts), dtype=np.int64)
    if heap is not None and len(heap.starts):
        new = ~np.isin(heap.starts, starts)
        starts = np.concatenate([starts, heap.starts[new]])
        sizes = np.concatenate([sizes, heap.sizes[new]])
        known = np.concatenate([known, np.full(int(new.sum()), -1, np.int64)])
    order = np.argsort(starts, kind="stable")
    starts, sizes, known = starts[order], sizes[order], known[order]
    if len(starts) > 1:  # never overlapping, whatever a damaged table says
        sizes[:-1] = np.minimum(sizes[:-1], np.diff(starts))
    return Graph(starts, sizes, known)


def _is_complete(recording: Recording, heap: Heap | None, notes: list[str]) -> bool:
    """Whether every block that may hold a pointer is known: else "lost" could be false."""
    if heap is not None:
        if heap.enumerated_share < 0.999:
            notes.append(
                f"only {heap.enumerated_share:.0%} of the heap could be walked, so no block is called lost"
            )
            return False
        return True
    coverage = recording.coverage
    unseen = {"early", "reentrant", "table_full", "no_space", "paused", "filtered"}
    lost = sum(count for name, count in coverage.dropped.items() if name in unseen)
    if coverage.mode == "sampled" or lost:
        notes.append(
            "the allocator is not one whose heap can be walked, and the recording does not have every"
            " block, so no block is called lost"
        )
        return False
    return True


def _owned(memory: Memory, heap: Heap | None, graph: Graph) -> list[tuple[int, int]]:
    """Memory that is the allocator's: scanned only where a block in it is reached."""
    owned = [*heap.regions, *heap.tables] if heap is not None else []
    # Another allocator's blocks: the anonymous mappings that hold them are its own.
    for mapping in memory.mappings:
        if mapping.path not in {"", "[heap]"} or not mapping.permissions.startswith("rw"):
            continue
        if any(start <= mapping.start and mapping.end <= end for start, end in owned):
            continue
        first, last = np.searchsorted(graph.starts, [mapping.start, mapping.end])
        if heap is None and last > first:
            owned.append((mapping.start, mapping.end))
    return owned


def _vtables(mappings: Sequence[maps.Mapping]) -> list[tuple[int, int]]:
    """Read-only data of modules: where the tables of virtual functions are."""
    return [
        (m.start, m.end)
        for m in mappings
        if m.permissions[:3] == "r--"
        and m.path.startswith("/")
        and PurePath(m.path).suffix != ".live"
    ]
