# SPDX-License-Identifier: Apache-2.0
"""The heap of jemalloc 5.3, from outside: its radix tree of extents, slabs, thread caches.

Needs no symbols: the tree's root is an array of 2**18 pointers in the data of a module, one for
each GiB of addresses, and every leaf it leads to describes pages whose extent says the same
address. Layouts are those of jemalloc 5.3 (rtree.h, edata.h, base.h, cache_bin.h) with pages of
4 KiB and addresses of 48 bits, as distributions build it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from leakscope.scan.allocators import Heap
from leakscope.scan.allocators._radix import Shape, find_root, read_rows, read_words, total

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.scan.allocators import Memory
    from leakscope.scan.allocators._radix import Variables

    Words = npt.NDArray[np.uint64]
    Sizes = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]

__all__ = ["walk"]

_PAGE = 4096
_LEVEL = 1 << 18  # entries of the root, and of a leaf
_LEAF_SPAN = _LEVEL * _PAGE
_ADDRESS = (1 << 48) - 1
_EDATA = 128  # bytes of an extent's description, and its alignment
_MOST_ENTRIES = 1 << 28
_ACTIVE, _RETAINED, _STATES = 0, 3, 6
# Bits of edata's first word.
_SLAB, _STATE, _SIZE_CLASS = 12, 17, 20
_BITMAP = 64  # offset of a slab's free regions, 512 bits
_CLASSES = 232
_HUGE = 2 << 20  # metadata comes in multiples of it
_MOST_METADATA = 1 << 16
_FAR = 64 << 20  # how large a block of metadata may be
_TLS_BYTES = 64 << 10  # below a thread's pointer
_SMALL_BINS = 36  # thread caches have at least a bin for each size of a slab
_SAMPLE = 32
_RUN = 1 << 14  # extents looked at together
_NONE = np.empty(0, np.uint64)


def _class_sizes() -> Words:
    """Return the usable size of each size class: four to a doubling, from 8 bytes up."""
    sizes = [8, 16, 32, 48, 64]
    while len(sizes) < _CLASSES:
        sizes += [sizes[-1] + n * sizes[-1] // 4 for n in (1, 2, 3, 4)]
    return np.array(sizes[:_CLASSES], np.uint64)


_CLASS_SIZES = _class_sizes()


@dataclass(slots=True)
class _Extents:
    """Columns, ascending by address; `bitmaps` has eight words a row."""

    at: Words  # of the description
    bits: Words
    address: Words  # of the block in a large one, of the first page's first byte in a slab
    size: Words
    bitmaps: npt.NDArray[np.uint64]

    def field(self, shift: int, width: int) -> npt.NDArray[np.int64]:
        return ((self.bits >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.int64)

    @property
    def base(self) -> Words:
        return self.address & ~np.uint64(_PAGE - 1)

    def __getitem__(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> _Extents:
        return _Extents(
            self.at[which], self.bits[which], self.address[which], self.size[which],
            self.bitmaps[which],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.at)


@dataclass(slots=True)
class _Walk:
    memory: Memory
    notes: list[str] = field(default_factory=list)
    damaged: int = 0  # pages whose description makes no sense

    def words(self, address: int, count: int) -> Words:
        return read_words(self.memory, address, count)


def walk(memory: Memory, variables: list[Variables]) -> Heap | None:
    """Return the blocks in use of jemalloc; None when the process has no such heap."""
    work = _Walk(memory)
    shape = Shape(_LEVEL, _LEVEL, _PAGE)
    root = find_root(memory, variables, shape, partial(_is_leaf_of, memory))
    if root is None:
        return None
    entries = work.words(root, _LEVEL)
    extents = _extents(work, entries)
    state = extents.field(_STATE, 3)
    active = extents[state == _ACTIVE]
    starts, sizes = _blocks(active)
    cached, own = _cached(work, starts, sizes)
    resident = extents[state != _RETAINED]
    size_of = total(resident.size)
    slabs = active.field(_SLAB, 1) == 1
    large = total(_CLASS_SIZES[active.field(_SIZE_CLASS, 8)[~slabs]])
    free = size_of - total(active.size)
    free += total(active.size[slabs]) - (total(sizes) - large) + total(sizes[cached])
    starts, sizes = starts[~(cached | own)], sizes[~(cached | own)]
    size_of += _EDATA * len(extents)
    bases = extents.base
    metadata = _metadata(work, np.concatenate([extents.at, entries[entries != 0]]))
    return Heap(
        allocator="jemalloc 5.3",
        starts=starts,
        sizes=sizes if total(sizes > 0xFFFFFFFF) else sizes.astype(np.uint32),
        regions=tuple(zip(bases.tolist(), (bases + extents.size).tolist(), strict=True)),
        mapped_bytes=size_of + _PAGE * work.damaged,
        enumerated_bytes=size_of,
        free_bytes=free,
        top_bytes=0,
        arenas=len(np.unique(active.field(0, 12))),
        notes=tuple(work.notes),
        # Descriptions point to what they describe: they keep nothing alive.
        tables=tuple(metadata),
    )


# -- the tree -----------------------------------------------------------------


def _is_leaf_of(memory: Memory, leaf: int, first: int) -> bool:
    """Whether the leaf describes pages from `first` on, by a sample of its entries."""
    entries = read_words(memory, leaf, _LEVEL) & np.uint64(_ADDRESS & ~(_EDATA - 1))
    pages = np.flatnonzero(entries)
    if not len(pages):
        return False
    good = 0
    sample = pages[:: max(1, len(pages) // _SAMPLE)][: 2 * _SAMPLE]
    for page in sample.tolist():
        about = read_words(memory, int(entries[page]), 3)
        if len(about) == 3:
            base, size = int(about[1]) & ~(_PAGE - 1), int(about[2]) & ~(_PAGE - 1)
            good += base <= first + page * _PAGE < base + size
    return 10 * good >= 9 * len(sample)


def _extents(work: _Walk, root: Words) -> _Extents:
    """Read the descriptions that the leaves lead to; those that make no sense are left out."""
    found: list[Words] = []
    pages: list[Words] = []
    for gig in np.flatnonzero(root).tolist():
        entries = work.words(int(root[gig]), _LEVEL)
        if len(entries) < _LEVEL:
            work.notes.append(
                f"the table of the pages from {gig * _LEAF_SPAN:#x} on cannot be read"
            )
            work.damaged += _LEVEL - len(entries)
        entries = entries & np.uint64(
            _ADDRESS & ~(_EDATA - 1)
        )  # without the bits that mirror the extent
        used = np.flatnonzero(entries)
        found.append(entries[used])
        pages.append((np.uint64(gig * _LEVEL) + used.astype(np.uint64)) * np.uint64(_PAGE))
        if sum(map(len, found)) > _MOST_ENTRIES:
            work.notes.append("there are more pages than any process has")
            work.damaged += _LEVEL
            break
    at, first = np.unique(np.concatenate([*found, _NONE]), return_index=True)
    page = np.concatenate([*pages, _NONE])[first]  # leaves are in order: the lowest page
    rows = read_rows(work.memory, at, _EDATA // 8)
    extents = _Extents(
        at, rows[:, 0], rows[:, 1], rows[:, 2] & ~np.uint64(_PAGE - 1), rows[:, _BITMAP // 8 :]
    )
    order = np.argsort(page)
    extents, page = extents[order], page[order]
    good = (extents.base == page) & (extents.size > 0) & (extents.size < np.uint64(_ADDRESS))
    good &= (extents.field(_STATE, 3) < _STATES) & (extents.field(_SIZE_CLASS, 8) <= _CLASSES)
    # An active extent has a class; a slab has no more regions than its bitmap has bits.
    active, slab = extents.field(_STATE, 3) == _ACTIVE, extents.field(_SLAB, 1) == 1
    kind = np.minimum(extents.field(_SIZE_CLASS, 8), _CLASSES - 1)
    block = _CLASS_SIZES[kind]
    good &= ~active | ((extents.field(_SIZE_CLASS, 8) < _CLASSES) & (block <= extents.size))
    good &= ~(active & slab) | (extents.size // block <= np.uint64(8 * _BITMAP))
    end = extents.base + extents.size
    good[:-1] &= end[:-1] <= extents.base[1:]
    if not good.all():
        count = int(np.count_nonzero(~good))
        work.damaged += count
        work.notes.append(f"{count:,} extents are damaged: what is in them is not known")
    return extents[good]


# -- blocks -------------------------------------------------------------------


def _blocks(active: _Extents) -> tuple[Words, Words]:
    """Return start and usable size of what is in use, ascending; thread caches count as use."""
    starts: list[Words] = [_NONE]
    sizes: list[Words] = [_NONE]
    for low in range(0, len(active), _RUN):
        some = active[np.arange(low, min(low + _RUN, len(active)))]
        slab = some.field(_SLAB, 1) == 1
        step = _CLASS_SIZES[some.field(_SIZE_CLASS, 8)]
        count = np.where(slab, some.size // step, 1).astype(np.int64)
        blocks = int(count.sum())
        before = np.repeat(np.cumsum(count) - count, count)
        index = np.arange(blocks) - before
        first = np.repeat(np.where(slab, some.base, some.address), count)
        size = np.repeat(step, count)
        bits = np.unpackbits(
            np.ascontiguousarray(some.bitmaps).view(np.uint8), axis=1, bitorder="little"
        )
        row = np.repeat(np.arange(len(some)), count)
        free = (bits[row, index] == 1) & slab[row]
        starts.append((first + index.astype(np.uint64) * size)[~free])
        sizes.append(size[~free])
    return np.concatenate(starts), np.concatenate(sizes)


def _cached(
    work: _Walk, starts: Words, sizes: Words
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Say which blocks wait in a thread's cache, and which ones are such a cache.

    A cache is a row of bins in thread-local storage; their stacks are in a block of the heap,
    where also what was handed out long ago is still written.
    """
    found, own = np.zeros(len(starts), np.bool_), np.zeros(len(starts), np.bool_)
    ends = starts + sizes
    for thread in work.memory.threads:
        place = next((m for m in work.memory.mappings if m.start <= thread.tls < m.end), None)
        if place is None or not len(starts):
            continue
        low = max(place.start, thread.tls - _TLS_BYTES) & ~7
        for head, count in _bins(work.words(low, (thread.tls - low) // 8)):
            blocks = work.words(head, count)
            at = np.minimum(np.searchsorted(starts, blocks), len(starts) - 1)
            # Something else that looks like a bin would not hold blocks of one size.
            if len(blocks) and np.array_equal(starts[at], blocks) and len(set(sizes[at])) == 1:
                found[at] = True
                holder = int(np.searchsorted(starts, np.uint64(head), "right")) - 1
                if holder >= 0 and head < int(ends[holder]):
                    own[holder] = True
    return found, own & ~found


def _bins(words: Words) -> list[tuple[int, int]]:
    """Return (address, number of pointers) of the stacks of what may be a thread cache."""
    if len(words) < 3 * _SMALL_BINS:
        return []
    head, marks = words[:-2], words[2:]
    full = (marks >> np.uint64(16)) & np.uint64(0xFFFF)
    empty = (marks >> np.uint64(32)) & np.uint64(0xFFFF)
    held = (empty - head) & np.uint64(0xFFFF)
    fits = (head > np.uint64(_PAGE)) & (head < np.uint64(1 << 47)) & (head % np.uint64(8) == 0)
    fits &= (marks & np.uint64(7) == 0) & (full % np.uint64(8) == 0) & (empty % np.uint64(8) == 0)
    fits &= held <= ((empty - full) & np.uint64(0xFFFF))
    found: list[tuple[int, int]] = []
    for phase in range(3):
        column = np.concatenate([[False], fits[phase::3], [False]])
        edges = np.flatnonzero(column[1:] != column[:-1])
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if end - begin >= _SMALL_BINS:
                rows = [phase + 3 * n for n in range(begin, end)]
                found += [(int(head[n]), int(held[n]) // 8) for n in rows if held[n]]
    return found


# -- metadata -----------------------------------------------------------------


def _metadata(work: _Walk, inside: Words) -> list[tuple[int, int]]:
    """Return the blocks of metadata that hold these addresses, and those chained to them."""
    waiting = sorted({int(a) & ~(_HUGE - 1) for a in np.unique(inside // np.uint64(_HUGE)) * _HUGE})
    blocks: dict[int, int] = {}
    while waiting and len(blocks) < _MOST_METADATA:
        start = waiting.pop()
        for place in range(start, max(start - _FAR, 0), -_HUGE):
            if place in blocks:
                break
            header = work.words(place, 4)
            if len(header) < 4:
                continue
            size, following, _, used = header.tolist()
            if size and size % _HUGE == 0 and place + size > start and following % _HUGE == 0:
                if not place < used <= place + size:
                    continue
                blocks[place] = size
                if following and following not in blocks:
                    waiting.append(following)
                break
    return sorted((start, start + size) for start, size in blocks.items())
