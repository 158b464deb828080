# SPDX-License-Identifier: Apache-2.0
"""Scan a process: say which of its blocks anything still points to."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import TargetError
from leakscope.model.reachability import Reachability, ScanFacts
from leakscope.proc.process import read_resident
from leakscope.recording.mapped import with_lengths
from leakscope.recording.walked import knows_all, with_unseen, without_freed
from leakscope.scan.allocators import walk
from leakscope.scan.graph import graph_of, positions_in
from leakscope.scan.holders import Holders
from leakscope.scan.join import places_in
from leakscope.scan.mark import disguised_text
from leakscope.scan.marking import ImageSource, mark_blocks
from leakscope.scan.roots import find_roots, find_unjoined
from leakscope.scan.unjoined import lose_unjoined, with_descriptors
from leakscope.target.frozen import Frozen
from leakscope.target.image import MAX_PAUSE_S, open_image
from leakscope.target.kernel_words import words_of_process
from leakscope.target.lease import HELD_UP_S
from leakscope.target.resident import Resident

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from leakscope.model.reachability import UnjoinedThreads
    from leakscope.model.recordings import Recording
    from leakscope.scan.allocators import Heap
    from leakscope.scan.graph import Graph
    from leakscope.scan.marking import Marked
    from leakscope.scan.roots import Root
    from leakscope.target.ending import Ending
    from leakscope.target.memory import Memory, Thread

__all__ = ["scan_ending", "scan_holders", "scan_process"]

_SAMPLE = 100_000  # blocks that stand for all
_MOST = 0.9  # of a recording's blocks
_STANDING_S, _PER_SECOND, _PER_BLOCK_S = 0.02, 1e9, 5e-7  # a scan of what stands still takes


def scan_process(
    pid: int,
    read: Callable[[], Recording],
    *,
    own: Sequence[tuple[int, int]] = (),
    max_pause_s: float = MAX_PAUSE_S,
) -> Recording:
    """Take an image of the process, and return its recording with the reachability of blocks.

    `read` returns the live recording. It is called while the process stands still, or, when the
    image is a copy, before and after it was taken: a block that is not in both is `UNKNOWN`.
    `own` are ranges of memory that belong to the tracer. Raises `TargetError` when the process
    may not be stopped or ends meanwhile.
    """
    return without_freed(_scan(pid, read, own, max_pause_s, keep=False)[0])


def scan_ending(
    ending: Ending,
    recording: Recording,
    *,
    own: Sequence[tuple[int, int]] = (),
    stack_end: int = 0,
    pointers: Sequence[int] = (),
) -> Recording:
    """Return the recording of a process that is about to end with the reachability of its blocks.

    `own` as in `scan_process`; `stack_end`, when not 0, says where the stack of the thread that
    waits ends whose inner part is known to be of no meaning; `pointers` are further roots.
    Blocks that are `FREED` are still among those of the recording.
    Raises `TargetError` when the process ends meanwhile.
    """
    began = time.monotonic_ns()
    image = Resident(ending)
    ends = {ending.waiting: stack_end} if stack_end else {}
    # Below lie frames that have returned, some of them the allocator's: it is not inside.
    image.threads = [replace(t, sp=ends.get(t.tid, t.sp)) for t in image.threads]
    heap = _heap_of(image, recording)
    held = np.concatenate(
        [words_of_process(ending.pid), ending.pending, np.array(pointers, np.uint64)]
    )
    found = _mark(image, recording, heap, own, ends, held, keep=False)
    return _result(image, found, recording, recording, heap, began, 0)[0]


def scan_holders(
    pid: int,
    read: Callable[[], Recording],
    *,
    own: Sequence[tuple[int, int]] = (),
    max_pause_s: float = MAX_PAUSE_S,
) -> tuple[Recording, Holders]:
    """Do what `scan_process` does, and keep what leads to each block."""
    recording, holders = _scan(pid, read, own, max_pause_s, keep=True)
    assert holders is not None
    return recording, holders


def _scan(
    pid: int,
    read: Callable[[], Recording],
    own: Sequence[tuple[int, int]],
    max_pause_s: float,
    *,
    keep: bool,
) -> tuple[Recording, Holders | None]:
    began = time.monotonic_ns()
    before = read()
    # Before and after the image is taken: the process goes on meanwhile.
    held = words_of_process(pid)
    with open_image(pid, max_pause_s=max_pause_s, own=own) as taken:
        image = Resident(taken)
        heap = walk(image)
        if heap is not None and heap.is_whole and _covers(heap, before):
            # The image does not change any more: what it shows is worked out meanwhile.
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(1) as pool:
                reading = pool.submit(read)
                held = np.concatenate([held, words_of_process(pid)])
                found = _mark(image, before, heap, own, {}, held, keep=keep)
                after = reading.result()
            return _result(image, found, before, after, heap, began, taken.paused_ns)
        paused_ns = taken.paused_ns
    _check_pause(pid, before, max_pause_s)
    with Frozen(pid, limit_s=max_pause_s + HELD_UP_S) as frozen:
        recording = read()
        image = Resident(frozen)
        heap = _heap_of(image, recording)
        found = _mark(image, recording, heap, own, {}, words_of_process(pid), keep=keep)
    paused_ns += frozen.paused_ns
    return _result(image, found, recording, recording, heap, began, paused_ns)


def _check_pause(pid: int, recording: Recording, max_pause_s: float) -> None:
    """Refuse to stop the process for a whole scan that takes long.

    Where the heap cannot be walked, the blocks are those of the recording, so both have to be of
    one moment.
    """
    needed_s = _STANDING_S + read_resident(pid) / _PER_SECOND
    needed_s += len(recording.blocks) * _PER_BLOCK_S
    if needed_s > max_pause_s:
        raise TargetError(
            f"process {pid} was not scanned, because it would have been stopped for about"
            f" {needed_s:.2g} s: its allocator is not one whose heap can be walked",
            hint=f"--max-pause {needed_s * 2:.2g} lets it be stopped for that long.",
        )


def _heap_of(image: Resident, recording: Recording) -> Heap | None:
    heap = walk(image)
    if heap is not None and not _covers(heap, recording):
        return None  # there, but the program uses another allocator
    return heap


@dataclass(frozen=True, slots=True)
class _Found:
    graph: Graph
    marked: Marked
    roots: list[Root]
    threads: list[Thread]
    freed: npt.NDArray[np.bool_]  # of the recording's blocks
    unjoined: tuple[UnjoinedThreads, ...]


def _mark(
    image: Resident,
    recording: Recording,
    heap: Heap | None,
    own: Sequence[tuple[int, int]],
    ends: Mapping[int, int],
    held: npt.NDArray[np.uint64],
    *,
    keep: bool,
) -> _Found:
    unjoined = find_unjoined(image, image.threads)
    freed = _freed(recording, heap, image)
    graph = with_descriptors(graph_of(recording, heap, freed), unjoined)
    threads = [replace(t, sp=ends.get(t.tid, t.sp)) for t in image.threads]
    roots = find_roots(image, threads, _owned(image, heap, graph), own)
    marked = mark_blocks(
        image, graph.starts, graph.sizes, roots, ImageSource.of(image),
        threads=threads, heap=heap, held=np.concatenate([held, image.words_of_others()]),
        unjoined=unjoined, without_registers=ends, keep=keep,
    )  # fmt: skip
    image.check()
    lost = lose_unjoined(image, recording, graph, marked.kinds, unjoined)
    return _Found(graph, marked, roots, threads, freed, lost)


def _result(
    image: Resident,
    found: _Found,
    before: Recording,
    after: Recording,
    heap: Heap | None,
    began: int,
    paused_ns: int,
) -> tuple[Recording, Holders | None]:
    """Give the blocks of `after` the kinds of those of `before` that are the same."""
    notes = [*image.notes, *(heap.notes if heap is not None else ())]
    complete = _is_complete(before, heap, notes)
    if found.marked.unread:
        notes.append(f"{found.marked.unread:,} bytes could not be read")
    if found.marked.disguised:
        notes.append(disguised_text(found.marked.disguised))
    facts = ScanFacts(
        method=image.method,
        pause_ms=paused_ns / 1e6,
        seconds=(time.monotonic_ns() - began) / 1e9,
        scanned_bytes=found.marked.scanned,
        threads=len(image.threads),
        roots_bytes=image.bytes_of((root.start, root.end) for root in found.roots),
        notes=tuple(notes),
        unjoined=found.unjoined if complete else (),
    )
    graph = replace(found.graph, known=positions_in(after, before, found.graph.known))
    reachability = np.full(len(after.blocks), int(Reachability.UNKNOWN), np.uint8)
    if complete:
        ours = graph.known >= 0
        reachability[graph.known[ours]] = found.marked.kinds[ours]
    if complete:
        gone = positions_in(after, before, np.flatnonzero(found.freed))
        reachability[gone[gone >= 0]] = int(Reachability.FREED)
    holders = None
    if found.marked.places is not None:
        holders = Holders(graph, found.marked.places, found.roots, found.threads)
    result = with_lengths(after, _resident_lengths(image, before, after))
    result = replace(result, reachability=reachability)
    if complete and heap is not None:
        result = _with_lost_beside(result, found)
        notes += _past_the_agent(result)
    return replace(result, scan=replace(facts, notes=tuple(notes))), holders


def _freed(recording: Recording, heap: Heap | None, image: Resident) -> npt.NDArray[np.bool_]:
    """Which of the recording's blocks are free, as the state of their allocator proves.

    It has them among its free memory, has given the memory back, or has a block there that is
    too small for what was recorded. A recorded block may have been freed past the agent.
    """
    addresses = recording.blocks["address"].astype(np.uint64)
    if heap is None or not heap.is_whole or not len(addresses):
        return np.zeros(len(addresses), np.bool_)
    order = np.argsort(addresses, kind="stable")
    wanted = addresses[order]
    at = places_in(wanted, heap.starts)
    used = at >= 0
    fits = np.zeros(len(wanted), np.bool_)
    fits[used] = recording.blocks["size"][order][used] <= heap.sizes[at[used]]
    inside = np.zeros(len(wanted), np.bool_)
    for start, end in heap.regions:
        low, high = np.searchsorted(wanted, [start, end])
        inside[low:high] = True
    mapped = np.zeros(len(wanted), np.bool_)
    for mapping in image.mappings:
        low, high = np.searchsorted(wanted, [mapping.start, mapping.end])
        mapped[low:high] = True
    free = np.where(used, ~fits, inside | ~mapped)
    # In the hands of a thread that is inside the allocator.
    free &= ~np.isin(wanted, heap.moving)
    found = np.zeros(len(wanted), np.bool_)
    found[order] = free
    return found


def _with_lost_beside(recording: Recording, found: _Found) -> Recording:
    """Add the lost blocks that should have been recorded and were not."""
    if not knows_all(recording):
        return recording
    graph, kinds = found.graph, found.marked.kinds
    lost = (kinds == Reachability.DEFINITELY_LOST) | (kinds == Reachability.INDIRECTLY_LOST)
    assert recording.reachability is not None
    still = recording.blocks["address"][recording.reachability != Reachability.FREED]
    lost &= (graph.known < 0) & ~np.isin(graph.starts, still)
    return with_unseen(recording, graph.starts[lost], graph.sizes[lost], kinds[lost])


def _past_the_agent(recording: Recording) -> list[str]:
    assert recording.reachability is not None
    freed = recording.blocks["size"][recording.reachability == Reachability.FREED]
    notes = []
    if len(freed):
        notes.append(
            f"{len(freed):,} blocks of {int(freed.sum()):,} bytes were freed by a way past the"
            " agent, as the allocator's own lists show: they are not counted as live"
        )
    unseen = recording.blocks["size"][
        (recording.blocks["site"] == 0) & (recording.blocks["birth_ns"] == 0)
    ]
    if len(unseen):
        how = "by a way past the agent"
        if "attached" in recording.coverage.troubles:
            how = "before leakscope was attached"
        notes.append(
            f"{len(unseen):,} lost blocks of {int(unseen.sum()):,} bytes were allocated {how}:"
            " they have no call stack"
        )
    return notes


def _resident_lengths(
    image: Resident, before: Recording, after: Recording
) -> npt.NDArray[np.uint64]:
    """Return how much there is of each range; of one that came after the image, all of it."""
    starts, lengths = after.ranges["start"], after.ranges["length"].astype(np.uint64)
    for at in np.flatnonzero(np.isin(starts, before.ranges["start"])):
        start = int(starts[at])
        lengths[at] = image.resident_bytes(start, start + int(lengths[at]))
    return lengths


def _covers(heap: Heap, recording: Recording) -> bool:
    """Whether the recording's blocks lie in this heap: the program may use another allocator."""
    addresses = recording.blocks["address"]
    if not len(addresses):
        return True
    addresses = addresses[:: max(1, len(addresses) // _SAMPLE)]
    starts = np.array([start for start, _ in heap.regions], np.uint64)
    ends = np.array([0] + [end for _, end in heap.regions], np.uint64)
    inside = addresses < ends[np.searchsorted(starts, addresses, side="right")]
    return float(np.mean(inside)) > _MOST


def _is_complete(recording: Recording, heap: Heap | None, notes: list[str]) -> bool:
    """Whether every block that may hold a pointer is known: else "lost" could be false."""
    if heap is not None:
        if not heap.is_whole:
            notes.append(
                f"only {heap.enumerated_share:.0%} of the heap could be walked, so no block is called lost"
            )
            return False
        return True
    coverage = recording.coverage
    unseen = {"early", "reentrant", "table_full", "no_space", "paused", "filtered"}
    lost = sum(count for name, count in coverage.dropped.items() if name in unseen)
    if coverage.mode == "sampled" or lost or "attached" in coverage.troubles:
        notes.append(
            "the allocator is not one whose heap can be walked, and the recording does not have every"
            " block, so no block is called lost"
        )
        return False
    return True


def _owned(memory: Memory, heap: Heap | None, graph: Graph) -> list[tuple[int, int]]:
    """Memory that is the allocator's: scanned only where a block in it is reached."""
    owned = [*heap.regions, *heap.tables] if heap is not None else []
    # Of an unknown allocator, the anonymous mappings that hold them are its own.
    for mapping in memory.mappings if heap is None else ():
        if mapping.path not in {"", "[heap]"} or not mapping.permissions.startswith("rw"):
            continue
        first, last = np.searchsorted(graph.starts, [mapping.start, mapping.end])
        if last > first:
            owned.append((mapping.start, mapping.end))
    return owned
