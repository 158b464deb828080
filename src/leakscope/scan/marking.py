# SPDX-License-Identifier: Apache-2.0
"""What is a root of a process or a core file, and in which order roots are marked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from leakscope.scan.holders import KERNEL, origin_of
from leakscope.scan.mark import Marker
from leakscope.scan.roots import find_thread_vectors, guard_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    import numpy.typing as npt

    from leakscope.proc import maps
    from leakscope.scan.allocators import Heap
    from leakscope.scan.mark import Sizes
    from leakscope.scan.roots import Root, Unjoined
    from leakscope.target.memory import Memory, Segment, Thread
    from leakscope.target.resident import Resident

    Words = npt.NDArray[np.uint64]

__all__ = ["ImageSource", "Marked", "mark_blocks"]


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where a marker reads: in the memory of the process `pid`, or in `segments` held here."""

    pid: int = 0
    segments: Sequence[Segment] = ()
    resident: Words | None = None  # the only ranges that are read of a process
    # Tells apart the roots that are read there, and words that are given with their address.
    split: Callable[[Sequence[Root]], tuple[Sequence[Root], Sequence[tuple[Words, int]]]] = field(
        default=lambda roots: (roots, ())
    )

    @classmethod
    def of(cls, image: Resident) -> ImageSource:
        """Return that of an image of a process."""
        return cls(image.pid, image.segments, image.spans, image.split)


@dataclass(frozen=True, slots=True)
class Marked:
    """What marking found; `kinds` and `places` are of each block."""

    kinds: npt.NDArray[np.uint8]  # Reachability
    places: Words | None  # as of `Marker.keep_places`
    scanned: int  # bytes
    unread: int  # bytes
    disguised: int  # blocks


def mark_blocks(
    memory: Memory,
    starts: Words,
    sizes: Sizes,
    roots: Sequence[Root],
    source: ImageSource,
    *,
    threads: Sequence[Thread],
    heap: Heap | None,
    held: Words,
    unjoined: Sequence[Unjoined] = (),
    without_registers: Container[int] = (),
    keep: bool = False,
) -> Marked:
    """Say which of the blocks can be reached from the roots, from registers and from `held`.

    `held` are words that only the kernel has, `heap` what the walk found, `unjoined` the threads
    that may still be joined. The registers of threads in `without_registers` mean nothing. With
    `keep`, the places of the pointers are kept, and what lasts is marked first.
    """
    inside, words = source.split(roots)
    with Marker(
        starts,
        sizes,
        pid=source.pid,
        segments=source.segments,
        guard=guard_of(memory, memory.threads),
        vtables=_vtables(memory.mappings),
        resident=source.resident,
    ) as marker:
        places = marker.keep_places() if keep else None
        # What lasts comes first: it tells more about who holds a block.
        marker.mark([root for root in inside if not root.is_stack])
        for some, place in words:
            marker.mark_words(some, place)
        if keep:
            marker.follow()
        marker.mark([root for root in inside if root.is_stack])
        for thread in threads:
            if thread.tid not in without_registers:
                marker.mark_words(thread.words, origin_of(thread))
        marker.mark_words(held, KERNEL)
        marker.mark_words(np.array([thread.result for thread in unjoined], np.uint64))
        marker.mark_words(np.array(find_thread_vectors(memory, memory.threads), np.uint64))
        if heap is not None:
            marker.mark_words(heap.moving)
        disguised = marker.find_disguised(
            [root for root in inside if not root.is_stack],
            [root for root in inside if root.is_stack],
        )
        kinds = marker.sweep()
        return Marked(kinds, places, marker.scanned_bytes, marker.unread_bytes, disguised)


def _vtables(mappings: Sequence[maps.Mapping]) -> list[tuple[int, int]]:
    """Read-only data of modules: where the tables of virtual functions are."""
    return [
        (m.start, m.end)
        for m in mappings
        if m.permissions[:3] == "r--" and m.path.startswith("/") and not m.path.endswith(".live")
    ]
