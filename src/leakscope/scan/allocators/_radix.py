# SPDX-License-Identifier: Apache-2.0
"""Finding an allocator's radix tree of pages in a process without symbols.

jemalloc and tcmalloc both keep a tree of two levels that leads from a page to its description.
Its root is an array in the data of a module; an entry is zero or points to a leaf. Where it
begins is not known, but an entry stands as far from there as its addresses from zero: each
guess is checked by what its leaf says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from leakscope.proc.maps import Mapping
    from leakscope.scan.allocators import Memory

    Words = npt.NDArray[np.uint64]

__all__ = ["Shape", "data_areas", "find_root", "read_rows", "read_words", "total"]

_MOST_DATA = 256 << 20  # bytes of a module's variables that are searched
_MOST_GUESSES = 10_000
_MOST_READ = 64  # leaves
_RUN = 1 << 14  # rows read together
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Shape:
    """How many entries root and leaf have, and how many bytes an entry of the leaf is about."""

    root: int
    leaf: int
    page: int

    @property
    def span(self) -> int:
        """How many bytes a leaf is about."""
        return self.leaf * self.page


def read_words(memory: Memory, address: int, count: int) -> Words:
    """Return up to `count` words; fewer where they cannot be read."""
    raw = memory.read(address, 8 * count)
    return np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64)


def data_areas(memory: Memory) -> list[tuple[int, int]]:
    """Return where variables of modules are: their data, with the zeroed memory behind it."""
    areas: list[tuple[int, int]] = []
    for mapping in memory.mappings:
        if not mapping.permissions.startswith("rw"):
            continue
        if areas and areas[-1][1] == mapping.start and not mapping.path.startswith("["):
            areas[-1] = (areas[-1][0], min(mapping.end, areas[-1][0] + _MOST_DATA))
        elif mapping.path.startswith("/"):
            areas.append((mapping.start, min(mapping.end, mapping.start + _MOST_DATA)))
    return areas


def _turns(places: list[Mapping], span: int) -> list[int]:
    """Return which leaves there must be for these mappings, those of their ends first."""
    turns = dict.fromkeys(t for m in places for t in (m.start // span, (m.end - 1) // span))
    for m in places:
        turns |= dict.fromkeys(range(m.start // span, min(m.end // span, m.start // span + 64)))
    return list(turns)


def find_root(memory: Memory, shape: Shape, is_leaf: Callable[[int, int], bool]) -> int | None:
    """Return the address of the root; None when there is no such tree.

    `is_leaf` is called with the address of a leaf and the first address it should be about.
    """
    places = [m for m in memory.mappings if m.permissions.startswith("rw")]
    turns = _turns(places, shape.span)
    begins = np.array([m.start for m in places], np.uint64)
    ends = np.array([m.end for m in places], np.uint64)
    guesses = reads = 0
    for start, end in data_areas(memory):
        if end - start < 8 * shape.root:
            continue
        words = read_words(memory, start, (end - start) // 8)
        at = np.maximum(np.searchsorted(begins, words, "right").astype(np.int64) - 1, 0)
        room = words + np.uint64(8 * shape.leaf) <= ends[at]
        leaf = (words % np.uint64(8) == 0) & (words >= begins[at]) & room & (words != 0)
        # A root holds leaves and zeros and nothing else.
        used = np.concatenate([[0], np.cumsum(words != 0)])
        fits = np.concatenate([[0], np.cumsum(leaf)])
        tried: set[int] = set()
        for place in np.flatnonzero(leaf).tolist():
            for turn in turns:
                first = place - turn
                last = first + shape.root
                if first < 0 or last > len(words) or first in tried:
                    continue
                tried.add(first)
                guesses += 1
                if guesses > _MOST_GUESSES or reads > _MOST_READ:
                    return None
                if used[last] - used[first] != fits[last] - fits[first]:
                    continue
                reads += 1
                if is_leaf(int(words[place]), turn * shape.span):
                    return start + 8 * first
    return None


def read_rows(memory: Memory, at: Words, count: int) -> Words:
    """Return `count` words from each of the ascending addresses, zeros where they cannot be read.

    Its shape is (len(at), count).
    """
    rows = np.zeros((len(at), count), np.uint64)
    if not len(at):
        return rows
    # Descriptions lie close together: whole runs of them are read at once.
    cuts = np.flatnonzero(np.diff(at) > np.uint64(_PAGE)) + 1
    for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(at)], strict=True):
        for low in range(begin, end, _RUN):
            high = min(low + _RUN, end)
            first = int(at[low])
            words = read_words(memory, first, (int(at[high - 1]) - first) // 8 + count)
            index = ((at[low:high] - np.uint64(first)) // np.uint64(8)).astype(np.int64)
            index = index[index + count <= len(words)]
            rows[low : low + len(index)] = words[index[:, None] + np.arange(count)]
    return rows


def total(values: npt.NDArray[np.generic]) -> int:
    """Return the sum, of sizes or of what is true."""
    return int(values.sum(dtype=np.uint64))
