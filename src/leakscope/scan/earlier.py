# SPDX-License-Identifier: Apache-2.0
"""What was on the heap before somebody attached, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.scan.join import places_in
from leakscope.words import bytes_text

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.scan.census import Census

__all__ = ["fate_text", "heap_text"]

_MOST_ROWS = 3


def heap_text(before: Census) -> str:
    """Say how much there was before, what most of it looks like, and what nothing points to."""
    cells = sorted(before.cells.items(), key=lambda cell: -cell[1].bytes)[:_MOST_ROWS]
    rows = [f"{tally.blocks:,} of {bytes_text(size)} ({what})" for (what, size), tally in cells]
    lost = places_in(before.lost, before.starts)
    return (
        f"before attach: {_amount(before.sizes)}, of which nothing points to"
        f" {_amount(before.sizes[lost])}; most are {', '.join(rows)}{_pause(before)}"
    )


def fate_text(before: Census, after: Census, born: npt.NDArray[np.uint64]) -> str:
    """Say what became of the blocks of `before`.

    `born` holds the addresses of blocks that were recorded since and live: where one of them has
    the address of an earlier block, the earlier one was freed.
    """
    there = (places_in(before.starts, after.starts) >= 0) & ~np.isin(before.starts, born)
    was_lost = np.isin(before.starts, before.lost)
    newly = there & ~was_lost & np.isin(before.starts, after.lost)
    return (
        f"of what was there before, {_amount(before.sizes[there])} are still there,"
        f" {_amount(before.sizes[~there])} were freed, and nothing points any more to"
        f" {_amount(before.sizes[newly])}{_pause(after)}"
    )


def _pause(census: Census) -> str:
    return f"; to be walked, the process stood still for {census.scan.facts.pause_ms:.1f} ms"


def _amount(sizes: npt.NDArray[np.unsignedinteger]) -> str:
    size = int(sizes.sum(dtype=np.uint64))
    return f"{bytes_text(size)} in {len(sizes):,} block{'' if len(sizes) == 1 else 's'}"
