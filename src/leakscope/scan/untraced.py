# SPDX-License-Identifier: Apache-2.0
"""Scan a process that nobody traced, or its core file: walk the heap, then mark and sweep."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import TargetError
from leakscope.model.heap import HeapScan, LostContent, LostSize
from leakscope.model.reachability import Reachability, ScanFacts
from leakscope.proc.process import read_resident
from leakscope.scan.allocators import KNOWN, walk
from leakscope.scan.content import look_at_lost
from leakscope.scan.heap_account import account_of
from leakscope.scan.holders import HolderPlaces
from leakscope.scan.mark import disguised_text
from leakscope.scan.marking import ImageSource, mark_blocks
from leakscope.scan.roots import find_roots, find_unjoined
from leakscope.target.core import Core
from leakscope.target.image import MAX_PAUSE_S, open_image
from leakscope.target.kernel_words import words_of_process
from leakscope.target.resident import Resident
from leakscope.words import bytes_text

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from leakscope.scan.allocators import Heap
    from leakscope.target.memory import Memory, Thread

    Examine = Callable[["Walked"], None]

__all__ = ["Walked", "scan_core", "scan_untraced"]

_MOST_SIZES = 20
_TRIES = 4
_FEW_UNJOINED = 3


@dataclass(frozen=True, slots=True)
class Walked:
    """A heap and its image, while that is there."""

    pid: int
    memory: Memory
    heap: Heap
    kinds: npt.NDArray[np.uint8]
    places: HolderPlaces | None  # where pointers were found, if they were to be kept


def scan_untraced(
    pid: int,
    *,
    max_pause_s: float = MAX_PAUSE_S,
    examine: Examine | None = None,
    keep: bool = False,
) -> HeapScan:
    """Take an image of the process, walk its heap and say what nothing points to.

    `examine` is called while there is the image, and again if the walk is; with `keep` it gets
    the places of pointers, which costs 8 bytes a block.

    Raises `TargetError` when the process may not be stopped, ends meanwhile, or uses an
    allocator that is not known, and when no image can be taken without harm within
    `max_pause_s` seconds.
    """
    began = time.monotonic_ns()
    paused_ns = 0
    for _ in range(_TRIES):
        # Before and after the image is taken: the process may go on meanwhile.
        held = words_of_process(pid)
        with open_image(pid, max_pause_s=max_pause_s) as image:
            held = np.concatenate([held, words_of_process(pid)])
            memory = Resident(image)
            held = np.concatenate([held, memory.words_of_others()])
            found = _scan(
                memory,
                image.threads,
                f"process {pid}",
                ImageSource.of(memory),
                held,
                pid,
                keep=keep,
                examine=examine,
            )
            image.check()
            resident = read_resident(pid)
        paused_ns += image.paused_ns
        # A thread may have stopped in the middle of changing the heap.
        if found.heap.is_whole:
            break
    facts = ScanFacts(
        method=image.method,
        pause_ms=paused_ns / 1e6,
        seconds=(time.monotonic_ns() - began) / 1e9,
        scanned_bytes=found.scanned,
        threads=len(image.threads),
        roots_bytes=found.roots_bytes,
        notes=(*image.notes, *found.notes),
    )
    return _result(pid, found, resident, facts)


def scan_core(path: str | os.PathLike[str]) -> tuple[HeapScan, str]:
    """Walk the heap in a core file, and say what nothing points to; and the program's name.

    Raises `TargetError` when the file is not a core file that can be read, or when the
    allocator is not known.
    """
    began = time.monotonic_ns()
    with Core(path) as core:
        if core.missing_bytes and walk(core) is None:
            raise TargetError(
                f"core file {path} was cut off: {core.missing_bytes:,} bytes are missing, the"
                " allocator's tables among them",
                hint="See ulimit -c, and the free space where it was written.",
            )
        try:
            source, held = ImageSource(segments=core.segments), np.empty(0, np.uint64)
            found = _scan(core, core.threads, f"core file {path}", source, held)
        except TargetError:
            if not core.vanished:
                raise
            raise TargetError(f"core file {path} was cut off while it was read") from None
        if core.vanished:
            found.give_up("the core file was cut off while it was read")
        if core.missing_bytes:
            found.give_up(f"the core file was cut off: {core.missing_bytes:,} bytes are missing")
        if core.left_out_bytes:
            found.give_up(f"{core.left_out_bytes:,} bytes of memory are not in the core file")
        resident, pid, name, threads = core.dumped_bytes, core.pid, core.name, len(core.threads)
    facts = ScanFacts(
        method="core",
        pause_ms=0.0,
        seconds=(time.monotonic_ns() - began) / 1e9,
        scanned_bytes=found.scanned,
        threads=threads,
        roots_bytes=found.roots_bytes,
        notes=tuple(found.notes),
    )
    return _result(pid, found, resident, facts), name


@dataclass(slots=True)
class _Found:
    heap: Heap
    kinds: npt.NDArray[np.uint8]
    scanned: int
    roots_bytes: int
    notes: list[str]
    content: tuple[LostContent, ...] = ()

    def give_up(self, why: str) -> None:
        """Call nothing lost: a pointer may be in what was not seen."""
        self.notes.append(f"{why}, so nothing is called lost")
        self.kinds = np.full(len(self.kinds), int(Reachability.UNKNOWN), np.uint8)


def _scan(
    memory: Memory,
    threads: Sequence[Thread],
    what: str,
    source: ImageSource,
    held: npt.NDArray[np.uint64],
    target: int = 0,
    *,
    keep: bool = False,
    examine: Examine | None = None,
) -> _Found:
    heap = walk(memory)
    if heap is None:
        raise TargetError(
            f"{what} has no heap of an allocator that can be walked from outside",
            hint=f"{KNOWN} are known. `leakscope attach PID` records what is allocated from now on.",
        )
    roots = find_roots(memory, threads, [*heap.regions, *heap.tables], ())
    unjoined = find_unjoined(memory, threads)
    marked = mark_blocks(
        memory, heap.starts, heap.sizes, roots, source,
        threads=threads, heap=heap, held=held, unjoined=unjoined, keep=keep,
    )  # fmt: skip
    ranges = [(root.start, root.end) for root in roots]
    if isinstance(memory, Resident):
        size = memory.bytes_of(ranges)
    else:  # a core file: all that it has is there
        size = sum(end - start for start, end in ranges)
    found = _Found(heap, marked.kinds, marked.scanned, size, list(heap.notes))
    if marked.unread:
        found.notes.append(f"{marked.unread:,} bytes could not be read")
    if len(unjoined) > _FEW_UNJOINED:
        size = sum(thread.stack[1] - thread.stack[0] for thread in unjoined)
        found.notes.append(
            f"{len(unjoined):,} threads have ended and were not joined: their stacks take"
            f" {bytes_text(size)} of address space"
        )
    if marked.disguised:
        found.notes.append(disguised_text(marked.disguised))
    if not heap.is_whole:
        found.give_up("the heap could not be walked whole")
    lost = found.kinds == Reachability.DEFINITELY_LOST
    lost |= found.kinds == Reachability.INDIRECTLY_LOST
    if examine is None:
        found.content = look_at_lost(memory, heap.starts[lost], heap.sizes[lost], target)
    else:
        places = None
        if marked.places is not None:
            places = HolderPlaces(marked.places, tuple(roots), tuple(threads))
        examine(Walked(target, memory, heap, found.kinds, places))
    return found


def _result(pid: int, found: _Found, resident: int, facts: ScanFacts) -> HeapScan:
    heap, kinds = found.heap, found.kinds
    return HeapScan(
        pid=pid,
        allocator=heap.allocator,
        blocks=len(kinds),
        counts={kind: int(np.count_nonzero(kinds == kind)) for kind in Reachability},
        bytes={
            # `where` spares a copy of nearly all sizes.
            kind: int(heap.sizes.sum(dtype=np.uint64, where=kinds == kind))
            for kind in Reachability
        },
        sizes=_by_size(heap, kinds),
        account=account_of(heap, resident),
        share=heap.enumerated_share,
        facts=facts,
        content=found.content,
    )


def _by_size(heap: Heap, kinds: npt.NDArray[np.uint8]) -> tuple[LostSize, ...]:
    definite = Counter(heap.sizes[kinds == Reachability.DEFINITELY_LOST].tolist())
    indirect = Counter(heap.sizes[kinds == Reachability.INDIRECTLY_LOST].tolist())
    found = [LostSize(size, definite[size], indirect[size]) for size in definite | indirect]
    return tuple(sorted(found, key=lambda each: -each.bytes)[:_MOST_SIZES])
