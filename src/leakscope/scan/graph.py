# SPDX-License-Identifier: Apache-2.0
"""The blocks that pointers are looked for to: those of a recording and those of a walked heap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.recordings import Kind
from leakscope.scan.join import places_in

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.model.recordings import Recording
    from leakscope.scan.allocators import Heap

__all__ = ["Graph", "graph_of", "positions_in"]

_COUNT_BYTES = 8  # in front of the elements of an array with destructors
_PIECE = 1 << 18  # blocks compared at a time


@dataclass(frozen=True, slots=True)
class Graph:
    """The blocks of a heap, ascending, and which of them a recording knows.

    `known[i]` is the position in the recording's blocks, -1 for a block that only the walk of
    the heap found: it was allocated before tracing began, or was not sampled.
    """

    starts: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.unsignedinteger]
    known: npt.NDArray[np.int64]


def graph_of(
    recording: Recording, heap: Heap | None, freed: npt.NDArray[np.bool_] | None = None
) -> Graph:
    """Join the recording's blocks, but for those `freed`, with those that the walk found."""
    blocks = recording.blocks
    starts = blocks["address"].astype(np.uint64)
    # The size that was asked for: a pointer behind it is not one into the block.
    sizes = np.maximum(blocks["size"].astype(np.uint64), np.uint64(1))
    if len(starts) and len(recording.sites):
        # A pointer to an empty array of objects is one behind the count of its elements.
        kinds = recording.sites["kind"][blocks["site"]]
        by_new = (kinds == Kind.NEW) | (kinds == Kind.NEW_ARRAY)  # one may call the other
        sizes[by_new & (sizes == _COUNT_BYTES)] += np.uint64(1)
    known = np.arange(len(starts))
    if freed is not None and freed.any():
        known = np.flatnonzero(~freed)
        starts, sizes = starts[known], sizes[known]
    if np.any(starts[1:] < starts[:-1]):
        order = np.argsort(starts)
        starts, sizes, known = starts[order], sizes[order], known[order]
    if heap is not None and len(heap.starts):
        new = places_in(heap.starts, starts) < 0
        found = heap.starts[new]
        if len(found):
            at = np.searchsorted(starts, found)
            starts = np.insert(starts, at, found)
            sizes = np.insert(sizes, at, heap.sizes[new].astype(np.uint64))
            known = np.insert(known, at, -1)
    if len(starts) > 1:  # never overlapping, whatever a damaged table says
        if np.any(starts[1:] == starts[:-1]):
            first = np.concatenate([[True], starts[1:] != starts[:-1]])
            starts, sizes, known = starts[first], sizes[first], known[first]
        sizes[:-1] = np.minimum(sizes[:-1], np.diff(starts))
    return Graph(starts, sizes, known)


def positions_in(
    after: Recording, before: Recording, known: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Turn positions in the blocks of `before` into those in `after`; -1 for what went."""
    if after is before:
        return known
    old, new = before.blocks, after.blocks
    moved = np.full(len(old) + 1, -1, np.int64)  # the last one stands for -1
    if not len(new):
        return moved[known]
    moved[:-1] = _places(old["address"], new["address"])
    # A block that was freed and allocated again in the meantime is another one. Each reading
    # knows the length of a tick a little better, so it is ticks that are compared.
    for low in range(0, len(old), _PIECE):
        some = moved[low : min(low + _PIECE, len(old))]
        there = new[some]  # for -1 the last one, which does not count
        mine = old[low : low + len(some)]
        same = np.rint(mine["birth_ns"] / before.tick_ns) == np.rint(
            there["birth_ns"] / after.tick_ns
        )
        for column in ("address", "size", "site"):
            same &= mine[column] == there[column]
        some[~same] = -1
    return moved[known]


def _places(wanted: npt.NDArray[np.uint64], among: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return where each of `wanted`, ascending, stands in `among`; -1 where it does not."""
    if np.all(among[1:] >= among[:-1]):
        return places_in(wanted, among)
    order = np.argsort(among, kind="stable")
    places = places_in(wanted, among[order])
    return np.where(places < 0, -1, order[places])
