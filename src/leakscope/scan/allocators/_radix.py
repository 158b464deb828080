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

    from leakscope.target.memory import Memory

    Words = npt.NDArray[np.uint64]

__all__ = ["Shape", "Variables", "are_writable", "find_root", "read_rows", "read_variables"]
__all__ += ["read_words", "total", "writable"]

_MOST_DATA = 64 << 20  # bytes of a module's variables
_MOST_VALUES = 2 << 20  # in it that are not zero
_MOST_READ = 256  # leaves, of a module
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


@dataclass(frozen=True, slots=True)
class Variables:
    """The data of a module, with the zeroed memory behind it: `values` that are not zero."""

    start: int
    count: int  # words in all
    places: npt.NDArray[np.int64]  # of each value, in words from `start`
    values: Words
    room: Words  # bytes of writable memory from the address that the value is, 0 when it is none


def read_variables(memory: Memory, least: int = 0) -> list[Variables]:
    """Read where variables of modules are; no more than the first 64 MiB of each.

    Modules with fewer than `least` words have no room for a root and are not read.
    """
    areas: list[tuple[int, int]] = []
    for mapping in memory.mappings:
        if not mapping.permissions.startswith("rw"):
            continue
        if areas and areas[-1][1] == mapping.start and not mapping.path.startswith("["):
            areas[-1] = (areas[-1][0], mapping.end)
        elif mapping.path.startswith("/") and mapping.permissions[3] == "p":
            areas.append((mapping.start, mapping.end))
    areas = [area for area in areas if (area[1] - area[0]) // 8 >= least]
    found: list[Variables] = []
    if not areas:
        return found
    begins, ends = writable(memory)
    for start, end in areas:
        words = read_words(memory, start, min(end - start, _MOST_DATA) // 8)
        places = np.flatnonzero(words)
        if len(places) > _MOST_VALUES:  # a table of the program's, not an allocator's variables
            continue
        values = words[places]
        at = np.maximum(np.searchsorted(begins, values, "right").astype(np.int64) - 1, 0)
        inside = (values >= begins[at]) & (values < ends[at])
        room = np.where(inside, ends[at] - values, np.uint64(0))
        found.append(Variables(start, len(words), places, values, room))
    return found


def writable(memory: Memory) -> tuple[Words, Words]:
    """Return where writable memory begins and ends, mappings without a gap taken as one."""
    spans: list[tuple[int, int]] = []
    for mapping in memory.mappings:
        if mapping.permissions.startswith("rw"):
            if spans and spans[-1][1] == mapping.start:
                spans[-1] = (spans[-1][0], mapping.end)
            else:
                spans.append((mapping.start, mapping.end))
    columns = np.array(spans or [(0, 0)], np.uint64)
    return columns[:, 0], columns[:, 1]


def are_writable(memory: Memory, starts: Words, sizes: Words) -> npt.NDArray[np.bool_]:
    """Say which ranges lie in writable memory, whole."""
    begins, ends = writable(memory)
    at = np.maximum(np.searchsorted(begins, starts, "right").astype(np.int64) - 1, 0)
    room = ends[at] - starts
    return (starts >= begins[at]) & (starts < ends[at]) & (sizes <= room)


def find_root(
    memory: Memory,
    variables: list[Variables],
    shape: Shape,
    is_leaf: Callable[[int, int], bool],
) -> tuple[int, Variables] | None:
    """Return the address of the root and what it is a part of; None when there is no such tree.

    `is_leaf` is called with the address of a leaf and the first address it should be about.
    """
    turns: list[int] | None = None
    for some in variables:
        if some.count < shape.root:
            continue
        turns = _turns(memory, shape.span) if turns is None else turns
        values, places = some.values, some.places
        leaf = (values % np.uint64(8) == 0) & (some.room >= np.uint64(8 * shape.leaf))
        leaves = np.concatenate([[0], np.cumsum(leaf)])
        numbers = np.flatnonzero(leaf)
        reads = 0
        for turn in turns:
            first = places[numbers] - turn
            inside = (first >= 0) & (first + shape.root <= some.count)
            guesses, at = first[inside], numbers[inside]
            low, high = np.searchsorted(places, [guesses, guesses + shape.root])
            # A root holds leaves and zeros and nothing else.
            for fits in np.flatnonzero(leaves[high] - leaves[low] == high - low).tolist():
                reads += 1
                if reads > _MOST_READ:
                    break
                if is_leaf(int(values[at[fits]]), turn * shape.span):
                    return some.start + 8 * int(guesses[fits]), some
    return None


def _turns(memory: Memory, span: int) -> list[int]:
    """Return which leaves there must be for writable memory, those of its ends first."""
    begins, ends = (column.tolist() for column in writable(memory))
    turns = dict.fromkeys(
        turn
        for start, end in zip(begins, ends, strict=True)
        for turn in (start // span, (end - 1) // span)
    )
    for start, end in zip(begins, ends, strict=True):
        turns |= dict.fromkeys(range(start // span, min(end // span, start // span + 64)))
    return list(turns)


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
