# SPDX-License-Identifier: Apache-2.0
"""What was on the heap before somebody attached, and what became of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.census import Tally
from leakscope.model.earlier import MOST_CONTENTS, Earlier, EarlierContent
from leakscope.scan.join import places_in

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.scan.census import Census

__all__ = ["earlier_of", "with_fate"]


def earlier_of(before: Census) -> Earlier:
    """Return how much there was before, what most of it looks like, and what nothing points to."""
    cells = sorted(before.cells.items(), key=lambda cell: -cell[1].bytes)[:MOST_CONTENTS]
    everything = np.ones(len(before.starts), np.bool_)
    return Earlier(
        allocator=before.scan.allocator,
        then=_tally(before, everything, np.isin(before.starts, before.lost)),
        contents=tuple(EarlierContent(what, size, tally) for (what, size), tally in cells),
        stopped_ms=before.scan.facts.pause_ms,
    )


def with_fate(before: Census, after: Census, born: npt.NDArray[np.uint64]) -> Earlier:
    """Return the same with what became of the blocks of `before`.

    `born` holds the addresses of blocks that were recorded since and live: where one of them has
    the address of an earlier block, the earlier one was freed.
    """
    where = places_in(before.starts, after.starts)
    # Another size is another block, whoever allocated it.
    same = where >= 0
    same[same] = after.sizes[where[same]] == before.sizes[same]
    there = same & ~np.isin(before.starts, born)
    was_lost = np.isin(before.starts, before.lost)
    is_lost = there & np.isin(before.starts, after.lost)
    newly = is_lost & ~was_lost
    return replace(
        earlier_of(before),
        there=_tally(before, there, is_lost),
        freed=_tally(before, ~there, was_lost),
        newly_lost=_tally(before, newly, newly),
        stopped_after_ms=after.scan.facts.pause_ms,
    )


def _tally(before: Census, some: npt.NDArray[np.bool_], lost: npt.NDArray[np.bool_]) -> Tally:
    sizes, gone = before.sizes[some], before.sizes[some & lost]
    return Tally(
        len(sizes), int(sizes.sum(dtype=np.uint64)), len(gone), int(gone.sum(dtype=np.uint64))
    )
