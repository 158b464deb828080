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

from leakscope.scan.allocators._radix import (
    Shape,
    are_writable,
    find_root,
    read_rows,
    read_words,
    total,
    writable,
)
from leakscope.scan.allocators.heap import Heap
from leakscope.scan.roots import find_dead_threads

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.scan.allocators._radix import Variables
    from leakscope.target.memory import Memory

    Words = npt.NDArray[np.uint64]

__all__ = ["ROOT_WORDS", "walk"]

_PAGE = 4096
_LEVEL = 1 << 18  # entries of the root, and of a leaf
_LEAF_SPAN = _LEVEL * _PAGE
ROOT_WORDS = _LEVEL
"""Words of the root that is looked for among the variables of modules."""
_ADDRESS = (1 << 48) - 1
_EDATA = 128  # bytes of an extent's description, and its alignment
_TO_EDATA = np.uint64(_ADDRESS & ~(_EDATA - 1))  # other bits of a leaf's entry mirror the extent
_ACTIVE, _RETAINED, _STATES = 0, 3, 6
# Bits of edata's first word.
_SLAB, _STATE, _SIZE_CLASS, _FREE = 12, 17, 20, 28
_FREE_BITS = 10
_BITMAP = 64  # offset of a slab's free regions, 512 bits
_LARGEST = 7 << 60  # size of the last class
_MOST_CLASSES = 256
_HUGE = 2 << 20  # metadata comes in multiples of it
_MOST_METADATA = 1 << 16
_FAR = 64 << 20  # how large a block of metadata may be
_TOP_WORDS = 128  # of a stack, in which a thread inside the allocator has its return address
_TLS_BYTES = 256 << 10  # below a thread's pointer
_SMALL_BINS = 36  # thread caches have at least a bin for each size of a slab
_SAMPLE = 32
_RUN = 1 << 14  # extents looked at together
_NOBODY = -1  # number of a thread that is no more
_NONE = np.empty(0, np.uint64)


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

    def __getitem__(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> _Extents:
        return _Extents(
            self.at[which], self.bits[which], self.address[which], self.size[which],
            self.bitmaps[which],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.at)


@dataclass(slots=True)
class _Walk:
    memory: Memory
    sizes_of: Words  # of the classes, in usable bytes
    notes: list[str] = field(default_factory=list)
    damaged: int = 0  # bytes whose description makes no sense

    def words(self, address: int, count: int) -> Words:
        return read_words(self.memory, address, count)


def walk(memory: Memory, variables: list[Variables]) -> Heap | None:
    """Return the blocks in use of jemalloc; None when the process has no such heap."""
    shape = Shape(_LEVEL, _LEVEL, _PAGE)
    found = find_root(memory, variables, shape, partial(_is_leaf_of, memory))
    sizes_of = None if found is None else _class_sizes(found[1])
    if found is None or sizes_of is None:
        return None
    root = found[0]
    work = _Walk(memory, sizes_of)
    entries = work.words(root, _LEVEL)
    extents = _extents(work, entries)
    state = extents.field(_STATE, 3)
    # What has no class was taken by the allocator and not handed out.
    active = extents[(state == _ACTIVE) & (extents.field(_SIZE_CLASS, 8) < len(sizes_of))]
    starts, sizes, unsure = _blocks(work, active)
    caches = _caches(work, active, starts, sizes)
    inside = _inside(work, root)
    # A thread that is inside may have given back what it still lists, and another one taken it.
    certain = [c.waiting for c in caches if c.sound and c.thread not in inside]
    cached = _among(starts, np.concatenate([_NONE, *certain]))
    own = _holding(starts, sizes, _stacks(caches))
    moving = np.concatenate([unsure, _moving(work, inside, active, caches)])
    resident = extents[state != _RETAINED]
    size_of = total(resident.size)
    slabs = active.field(_SLAB, 1) == 1
    large = total(sizes_of[active.field(_SIZE_CLASS, 8)[~slabs]])
    free = size_of - total(active.size)
    free += total(active.size[slabs]) - (total(sizes) - large) + total(sizes[cached])
    starts, sizes = starts[~(cached | own)], sizes[~(cached | own)]
    size_of += _EDATA * len(extents)
    bases = extents.base
    metadata = _metadata(work, np.concatenate([extents.at, entries[entries != 0]]))
    return Heap(
        allocator="jemalloc 5.3",
        starts=starts,
        sizes=sizes if np.any(sizes > 0xFFFFFFFF) else sizes.astype(np.uint32),
        regions=tuple(zip(bases.tolist(), (bases + extents.size).tolist(), strict=True)),
        mapped_bytes=size_of + work.damaged,
        enumerated_bytes=size_of,
        free_bytes=free,
        top_bytes=0,
        arenas=len(np.unique(active.field(0, 12))),
        notes=tuple(work.notes),
        # Descriptions point to what they describe: they keep nothing alive.
        tables=tuple(metadata),
        moving=moving,
    )


def _class_sizes(variables: Variables) -> Words | None:
    """Find the table of the classes' sizes, which depend on how jemalloc was built."""
    for last in np.flatnonzero(variables.values == np.uint64(_LARGEST)).tolist():
        before = variables.values[max(0, last - _MOST_CLASSES) : last + 1]
        falls = np.flatnonzero(before[1:] <= before[:-1])
        table = before[falls[-1] + 1 if len(falls) else 0 :]
        place = variables.places[last - len(table) + 1 : last + 1]
        if len(table) > _SMALL_BINS and table[0] == 8 and np.all(np.diff(place) == 1):
            return table
    return None


# -- the tree -----------------------------------------------------------------


def _is_leaf_of(memory: Memory, leaf: int, first: int) -> bool:
    """Whether the leaf describes pages from `first` on, by a sample of its entries."""
    entries = read_words(memory, leaf, _LEVEL) & _TO_EDATA
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
    begins, ends = writable(work.memory)
    most = 4 * (total(ends - begins) // _PAGE) + _LEVEL
    seen: set[int] = set()
    for gig in np.flatnonzero(root).tolist():
        if int(root[gig]) in seen:
            work.notes.append(f"the table of the pages from {gig * _LEAF_SPAN:#x} on is another's")
            work.damaged += _LEAF_SPAN
            continue
        seen.add(int(root[gig]))
        entries = work.words(int(root[gig]), _LEVEL)
        if len(entries) < _LEVEL:
            work.notes.append(
                f"the table of the pages from {gig * _LEAF_SPAN:#x} on cannot be read"
            )
            work.damaged += _PAGE * (_LEVEL - len(entries))
        entries = entries & _TO_EDATA
        used = np.flatnonzero(entries)
        found.append(entries[used])
        pages.append((np.uint64(gig * _LEVEL) + used.astype(np.uint64)) * np.uint64(_PAGE))
        if sum(map(len, found)) > most:
            work.notes.append("there are more pages than any process has")
            work.damaged += _PAGE * _LEVEL
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
    state, kind = extents.field(_STATE, 3), extents.field(_SIZE_CLASS, 8)
    good &= (state < _STATES) & (kind <= len(work.sizes_of))
    # What is in use has a class, or is not handed out yet; it lies in memory that there is; and
    # a slab has no more regions than its bitmap has bits.
    active, slab = state == _ACTIVE, extents.field(_SLAB, 1) == 1
    handed = active & (kind < len(work.sizes_of))
    block = work.sizes_of[np.minimum(kind, len(work.sizes_of) - 1)]
    good &= ~active | are_writable(work.memory, extents.base, extents.size)
    good &= ~handed | (block <= extents.size)
    good &= ~(handed & slab) | (extents.size // block <= np.uint64(8 * _BITMAP))
    reach = np.maximum.accumulate(np.where(good, extents.base + extents.size, 0))
    good[1:] &= reach[:-1] <= extents.base[1:]
    if not good.all():
        count = int(np.count_nonzero(~good))
        sizes = np.minimum(extents.size[~good], np.uint64(_LEAF_SPAN))
        work.damaged += max(total(sizes), _PAGE * count)
        work.notes.append(f"{count:,} extents are damaged: what is in them is not known")
    return extents[good]


# -- blocks -------------------------------------------------------------------


def _blocks(work: _Walk, active: _Extents) -> tuple[Words, Words, Words]:
    """Return start and usable size of what is in use, ascending; thread caches count as use.

    And the blocks of slabs whose bitmap does not agree with its own count: a thread is just
    changing them.
    """
    starts: list[Words] = [_NONE]
    sizes: list[Words] = [_NONE]
    unsure: list[Words] = [_NONE]
    for low in range(0, len(active), _RUN):
        some = active[np.arange(low, min(low + _RUN, len(active)))]
        slab = some.field(_SLAB, 1) == 1
        step = work.sizes_of[some.field(_SIZE_CLASS, 8)]
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
        start = first + index.astype(np.uint64) * size
        starts.append(start[~free])
        sizes.append(size[~free])
        counted = np.bincount(row, free, len(some)).astype(np.int64)
        odd = slab & (counted != some.field(_FREE, _FREE_BITS))
        if odd.any():
            unsure.append(start[~free & odd[row]])
    return np.concatenate(starts), np.concatenate(sizes), np.concatenate(unsure)


def _among(starts: Words, addresses: Words) -> npt.NDArray[np.bool_]:
    """Say which of `starts` are among `addresses`."""
    found = np.zeros(len(starts), np.bool_)
    if len(starts):
        at = np.minimum(np.searchsorted(starts, addresses), len(starts) - 1)
        found[at[starts[at] == addresses]] = True
    return found


def _holding(starts: Words, sizes: Words, addresses: list[int]) -> npt.NDArray[np.bool_]:
    """Say which blocks hold one of `addresses`."""
    found = np.zeros(len(starts), np.bool_)
    wanted = np.array(addresses, np.uint64)
    at = np.searchsorted(starts, wanted, "right").astype(np.int64) - 1
    wanted, at = wanted[at >= 0], at[at >= 0]
    found[at[wanted < starts[at] + sizes[at]]] = True
    return found


@dataclass(frozen=True, slots=True)
class _Bin:
    """What one thread keeps of blocks of one size: pointers on a stack that grows down."""

    thread: int  # number of the thread
    head: int  # address of the newest pointer
    waiting: Words  # blocks that were freed and not given back
    room: int  # address of the last pointer that it can take, where its stack begins
    sound: bool  # all of `waiting` are places of blocks of one size


def _caches(work: _Walk, active: _Extents, starts: Words, sizes: Words) -> list[_Bin]:
    """Find the bins of all threads: rows of them in thread-local storage.

    Their stacks are in blocks of the heap, where also what was handed out long ago is still
    written. In a forked child those of the parent's other threads are left over.
    """
    found: list[_Bin] = []
    for number, thread in enumerate(work.memory.threads):
        found += _bins_of(work, active, number, thread.tls)
    for tls in find_dead_threads(work.memory, work.memory.threads):
        left = _bins_of(work, active, _NOBODY, tls)
        # A thread that ended properly gave its stacks back; they may be another thread's now.
        taken = _holding(starts, sizes, _stacks(found))
        kept = _holding(starts, sizes, _stacks(left))
        if kept.any() and not np.any(kept & taken):
            found += left
    return found


def _stacks(bins: list[_Bin]) -> list[int]:
    """Return where the stacks of bins are: those that hold something, and surely are bins."""
    return [each.room for each in bins if each.sound and len(each.waiting)]


def _bins_of(work: _Walk, active: _Extents, number: int, tls: int) -> list[_Bin]:
    place = next((m for m in work.memory.mappings if m.start <= tls < m.end), None)
    if place is None:
        return []
    low = max(place.start, tls - _TLS_BYTES) & ~7
    for row in _rows_of_bins(work.words(low, (tls - low) // 8)):
        bins: list[_Bin] = []
        for head, count, room in row:
            waiting = work.words(head, count)
            sound = len(waiting) == count and _of_one_size(work, active, waiting)
            bins.append(_Bin(number, head, waiting, room, sound))
        if any(each.sound and len(each.waiting) for each in bins):
            return bins
    return []


def _of_one_size(work: _Walk, active: _Extents, blocks: Words) -> bool:
    """Whether these are places of blocks of one size: else something only looks like a bin.

    Whether they are in use does not matter: a thread may be giving them back just now.
    """
    at = np.searchsorted(active.base, blocks, "right").astype(np.int64) - 1
    if not len(blocks):
        return True
    if not len(active) or np.any(at < 0):
        return False
    holders = active[at]
    kinds = holders.field(_SIZE_CLASS, 8)
    slab = holders.field(_SLAB, 1) == 1
    within = blocks - holders.base
    fits = np.where(slab, within % work.sizes_of[kinds] == 0, blocks == holders.address)
    return bool(np.all(fits & (within < holders.size)) and np.all(kinds == kinds[0]))


def _inside(work: _Walk, root: int) -> dict[int, Words]:
    """Return the threads that are inside the allocator, by number: registers and top of stack."""
    code = _code_of(work, root)
    found: dict[int, Words] = {}
    for number, thread in enumerate(work.memory.threads):
        top = np.concatenate([thread.words, work.words(thread.sp & ~7, _TOP_WORDS)])
        where = np.append(top, np.uint64(thread.pc))
        if any(np.any((where >= start) & (where < end)) for start, end in code):
            found[number] = top
    return found


def _moving(work: _Walk, inside: dict[int, Words], active: _Extents, caches: list[_Bin]) -> Words:
    """Return the blocks that threads inside the allocator have in hand.

    A bin that is filled or emptied has pointers beyond its head for a while; a large block that
    is made or given back may be known by its description alone.
    """
    found: list[Words] = [_NONE]
    for number, top in inside.items():
        for each in caches:
            if each.thread == number:
                end = each.head + 8 * len(each.waiting)
                found.append(work.words(each.room, (end - each.room) // 8))
        found.append(active.address[np.isin(active.at, top)])
    return np.concatenate(found)


def _code_of(work: _Walk, root: int) -> list[tuple[int, int]]:
    """Return the code of the module whose variable the root is."""
    path, end = "", 0
    for mapping in work.memory.mappings:
        if mapping.path:
            path = mapping.path
        elif mapping.start != end:
            path = ""
        end = mapping.end
        if mapping.start <= root < end:
            break
    return [
        (m.start, m.end)
        for m in work.memory.mappings
        if path and m.path == path and "x" in m.permissions
    ]


def _rows_of_bins(words: Words) -> list[list[tuple[int, int, int]]]:
    """Return what may be caches: (head, number of pointers, lowest place) of each bin's stack."""
    if len(words) < 3 * _SMALL_BINS:
        return []
    head, marks = words[:-2], words[2:]
    full = (marks >> np.uint64(16)) & np.uint64(0xFFFF)
    empty = (marks >> np.uint64(32)) & np.uint64(0xFFFF)
    held = (empty - head) & np.uint64(0xFFFF)
    room = (empty - full) & np.uint64(0xFFFF)
    fits = (head > np.uint64(1 << 17)) & (head < np.uint64(1 << 47)) & (head % np.uint64(8) == 0)
    fits &= (marks & np.uint64(7) == 0) & (full % np.uint64(8) == 0) & (empty % np.uint64(8) == 0)
    fits &= held <= room
    low = head + held - room
    found: list[list[tuple[int, int, int]]] = []
    for phase in range(3):
        column = np.concatenate([[False], fits[phase::3], [False]])
        edges = np.flatnonzero(column[1:] != column[:-1])
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if end - begin >= _SMALL_BINS:
                rows = [phase + 3 * n for n in range(begin, end)]
                bins = [(int(head[n]), int(held[n]) // 8, int(low[n])) for n in rows if room[n]]
                found.append(bins)
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
