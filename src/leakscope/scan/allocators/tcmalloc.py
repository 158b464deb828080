# SPDX-License-Identifier: Apache-2.0
"""The heap of gperftools' tcmalloc, from outside: its map of pages, spans, caches.

Needs no symbols: the map is recognised by spans that say the same page as its entries do, the
sizes of the classes by their order, and central and thread caches by repeating classes or sizes.
Layouts are those of gperftools 2.6 to 2.16 (span.h, pagemap.h, central_freelist.h,
thread_cache.h) with addresses of 48 bits. Google's other tcmalloc is built differently.
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

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.scan.allocators._radix import Variables
    from leakscope.target.memory import Memory

    Words = npt.NDArray[np.uint64]

__all__ = ["ROOT_WORDS", "walk"]

_PAGE_SHIFTS = (13, 12, 15, 16, 18)  # as it may be built, the usual one first
_SHAPES = tuple(
    Shape(1 << (48 - shift - (49 - shift) // 2), 1 << (49 - shift) // 2, 1 << shift)
    for shift in _PAGE_SHIFTS
)
ROOT_WORDS = min(shape.root for shape in _SHAPES)
"""Words of the smallest root that is looked for among the variables of modules."""
_SPAN = 48  # bytes of a span's description: start, length, next, prev, objects, bits
_IN_USE, _NORMAL, _RETURNED = 0, 1, 2
_LARGEST = 256 << 10  # size of the last class
_CLASSES = 128
_LIST = 32  # bytes of a thread cache's list: head, length and limits, size at 24
_AFTER_LISTS = 512  # bytes behind the lists in which the next cache's address is
_SLOTS, _SLOTS_AT, _USED_AT = 64, 120, 1144  # of a central cache, from its class on
_STRIDES = range(1152, 1408, 8)
_SURE = 12  # classes in a row
_SAMPLE = 32
_RUN = 4096  # spans looked at together
_RUN_BYTES = 64 << 20
_MOST_LINKS = 1 << 23
_MOST_MOVED = 1 << 16  # objects that go from thread to thread at once
_MOST_CACHES = 1 << 16
_NONE = np.empty(0, np.uint64)


@dataclass(slots=True)
class _Spans:
    """Columns, ascending by page."""

    first: Words  # address
    size: Words  # bytes
    objects: Words  # the first free object
    bits: npt.NDArray[np.uint32]

    @property
    def size_class(self) -> npt.NDArray[np.int64]:
        return ((self.bits >> np.uint32(16)) & np.uint32(0xFF)).astype(np.int64)

    @property
    def location(self) -> npt.NDArray[np.int64]:
        return ((self.bits >> np.uint32(24)) & np.uint32(3)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> _Spans:
        return _Spans(self.first[which], self.size[which], self.objects[which], self.bits[which])


@dataclass(slots=True)
class _Walk:
    memory: Memory
    start: int  # of tcmalloc's variables
    variables: Words
    notes: list[str] = field(default_factory=list)
    damaged: int = 0  # bytes of which nothing is known

    def words(self, address: int, count: int) -> Words:
        return read_words(self.memory, address, count)


def walk(memory: Memory, variables: list[Variables]) -> Heap | None:
    """Return the blocks in use of tcmalloc; None when the process has no such heap."""
    for shape in _SHAPES:
        found = find_root(memory, variables, shape, partial(_is_leaf_of, memory, shape))
        if found is not None:
            return _heap(memory, found[0], found[1], shape)
    return None


def _heap(memory: Memory, root: int, variables: Variables, shape: Shape) -> Heap | None:
    work = _Walk(memory, variables.start, read_words(memory, variables.start, variables.count))
    sizes_of = _class_sizes(work)
    if sizes_of is None:
        return None
    spans = _spans(work, root, shape, sizes_of)
    in_use = spans[spans.location == _IN_USE]
    starts, sizes, free, unsure = _blocks(work, in_use, sizes_of)
    caches = _thread_caches(work, sizes_of)
    waiting, moving = _cached(work, caches, starts)
    free += total(sizes[waiting]) + total(spans.size[spans.location == _NORMAL])
    starts, sizes = starts[~waiting], sizes[~waiting]
    mapped = total(spans.size[spans.location != _RETURNED])
    ends = spans.first + spans.size
    return Heap(
        allocator="tcmalloc (gperftools)",
        starts=starts,
        sizes=sizes if np.any(sizes > 0xFFFFFFFF) else sizes.astype(np.uint32),
        regions=tuple(zip(spans.first.tolist(), ends.tolist(), strict=True)),
        mapped_bytes=mapped + work.damaged,
        enumerated_bytes=mapped,
        free_bytes=free,
        top_bytes=0,
        arenas=len(caches),
        notes=tuple(work.notes),
        moving=np.concatenate([moving, unsure]),
    )


# -- the map ------------------------------------------------------------------


def _is_leaf_of(memory: Memory, shape: Shape, leaf: int, first: int) -> bool:
    """Whether the leaf leads to spans whose first page leads to them, by a sample of its entries.

    What was joined to another span leaves entries behind that say nothing.
    """
    entries = read_words(memory, leaf, shape.leaf)
    pages = np.flatnonzero(entries)
    sample = np.unique(entries[pages[:: max(1, len(pages) // _SAMPLE)]])
    good = 0
    for span in sample.tolist():
        about = read_words(memory, span, 2)
        if len(about) == 2 and about[1]:
            page = int(about[0]) - first // shape.page
            good += 0 <= page < len(entries) and int(entries[page]) == span
    return 20 * good > len(sample)


def _class_sizes(work: _Walk) -> Words | None:
    """Find the table of the classes' sizes: it ascends from nothing to the largest of them."""
    numbers = work.variables.view(np.int32)
    for last in np.flatnonzero(numbers == _LARGEST).tolist():
        before = numbers[max(0, last - _CLASSES) : last + 1]
        rises = np.flatnonzero(np.diff(before) <= 0)
        table = before[rises[-1] + 1 if len(rises) else 0 :]
        if len(table) > _SURE and table[0] == 0 and table[1] in {8, 16} and not np.any(table % 8):
            return table.astype(np.uint64)
    return None


def _spans(work: _Walk, root: int, shape: Shape, sizes_of: Words) -> _Spans:
    """Read the spans that the map leads to; those that make no sense are left out."""
    found: list[Words] = [_NONE]
    begins, ends = writable(work.memory)
    most = 4 * (total(ends - begins) // shape.page) + shape.leaf
    seen: set[int] = set()
    for turn, leaf in enumerate(work.words(root, shape.root).tolist()):
        if not leaf:
            continue
        if leaf in seen:
            work.notes.append(f"the map of the pages from {turn * shape.span:#x} on is another's")
            work.damaged += shape.span
            continue
        seen.add(leaf)
        entries = work.words(leaf, shape.leaf)
        if len(entries) < shape.leaf:
            work.notes.append(f"the map of the pages from {turn * shape.span:#x} on cannot be read")
            work.damaged += shape.page * (shape.leaf - len(entries))
        found.append(np.unique(entries[entries != 0]))
        if sum(map(len, found)) > most:
            work.notes.append("there are more pages than any process has")
            work.damaged += shape.span
            break
    at = np.unique(np.concatenate(found))
    rows = read_rows(work.memory, at, _SPAN // 8)
    page = np.uint64(shape.page)
    good = (rows[:, 0] < np.uint64((1 << 48) // shape.page)) & (rows[:, 1] > 0)
    good &= rows[:, 1] < np.uint64((1 << 48) // shape.page)
    spans = _Spans(
        rows[:, 0] * page, rows[:, 1] * page, rows[:, 4], rows[:, 5].astype(np.uint32)
    )  # fmt: skip
    good &= spans.size_class < len(sizes_of)
    good &= spans.location <= _RETURNED
    # Descriptions that are not used any more keep what they said: only what the map says counts.
    good &= _is_mapped(work, root, shape, spans, at)
    there = are_writable(work.memory, spans.first, spans.size) | (spans.location == _RETURNED)
    if np.any(good & ~there):
        work.damaged += total(np.minimum(spans.size[good & ~there], np.uint64(shape.span)))
        work.notes.append("spans lie where there is no memory: what is in them is not known")
    good &= there
    spans = spans[good]
    spans = spans[np.argsort(spans.first, kind="stable")]
    apart = np.ones(len(spans), np.bool_)
    reach = np.maximum.accumulate(spans.first + spans.size)
    apart[1:] = spans.first[1:] >= reach[:-1]
    if not apart.all():
        count = int(np.count_nonzero(~apart))
        work.damaged += total(spans.size[~apart])
        work.notes.append(f"{count:,} spans overlap: what is in them is not known")
    return spans[apart]


def _is_mapped(
    work: _Walk, root: int, shape: Shape, spans: _Spans, at: Words
) -> npt.NDArray[np.bool_]:
    """Whether the map leads from the first page of each span to it."""
    number = spans.first // np.uint64(shape.page)
    turns = (number // np.uint64(shape.leaf)).astype(np.int64)
    leaves = work.words(root, shape.root)
    found = np.zeros(len(spans), np.bool_)
    for turn in np.unique(turns[turns < len(leaves)]).tolist():
        if not leaves[turn]:
            continue
        entries = work.words(int(leaves[turn]), shape.leaf)
        here = np.flatnonzero(turns == turn)
        place = (number[here] % np.uint64(shape.leaf)).astype(np.int64)
        here, place = here[place < len(entries)], place[place < len(entries)]
        found[here] = entries[place] == at[here]
    return found


# -- blocks -------------------------------------------------------------------


def _blocks(work: _Walk, spans: _Spans, sizes_of: Words) -> tuple[Words, Words, int, Words]:
    """Return start and size of what is not in its span's list of free objects.

    And the bytes of what is, and blocks that are in the list and should not be: see `_listed`.
    """
    starts: list[Words] = [_NONE]
    sizes: list[Words] = [_NONE]
    unsure: list[Words] = [_NONE]
    free_bytes = low = 0
    limits = np.cumsum(spans.size)
    while low < len(spans):
        before = int(limits[low - 1]) if low else 0
        most = int(np.searchsorted(limits, np.uint64(before + _RUN_BYTES), "right"))
        high = min(max(most, low + 1), low + _RUN)
        some = spans[low:high]
        low = high
        small = some.size_class > 0
        step = np.where(small, sizes_of[some.size_class], some.size)
        count = np.where(small, some.size // np.maximum(step, np.uint64(1)), 1).astype(np.int64)
        begin = np.cumsum(count) - count
        blocks = int(count.sum())
        index = np.arange(blocks) - np.repeat(begin, count)
        start = np.repeat(some.first, count) + index.astype(np.uint64) * np.repeat(step, count)
        size = np.repeat(step, count)
        used = np.ones(blocks, np.bool_)
        listed = small & (some.objects != 0)
        if listed.any():
            free, more = _listed(work, some[listed], step[listed], begin[listed], count[listed])
            used[free] = False
            unsure.append(start[more])
        free_bytes += total(size[~used])
        starts.append(start[used])
        sizes.append(size[used])
    return np.concatenate(starts), np.concatenate(sizes), free_bytes, np.concatenate(unsure)


def _listed(
    work: _Walk,
    spans: _Spans,
    step: Words,
    begin: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Follow all spans' lists of free objects, one link of each at a time; return which they are.

    And those beyond the number that is free: a thread is just moving objects to or from there.
    """
    found: list[npt.NDArray[np.int64]] = []
    size = (spans.size // np.uint64(8)).astype(np.int64)
    offset = np.cumsum(size) - size
    content = np.zeros(int(size.sum()), np.uint64)
    for place, words, first in zip(
        offset.tolist(), size.tolist(), spans.first.tolist(), strict=True
    ):
        got = work.words(first, words)
        content[place : place + len(got)] = got
    at = spans.objects
    row = np.arange(len(spans))
    length = count - (spans.bits & np.uint32(0xFFFF)).astype(np.int64)
    more: list[npt.NDArray[np.int64]] = []
    for done in range(int(count.max())):
        within = at - spans.first[row]
        # A list that leads elsewhere is damaged; it ends there.
        good = (at >= spans.first[row]) & (within < spans.size[row]) & (within % step[row] == 0)
        number = (within // step[row]).astype(np.int64)
        good &= number < count[row]
        row, within, number = row[good], within[good], number[good]
        if not len(row):
            break
        sure = done < length[row]
        found.append((begin[row] + number)[sure])
        more.append((begin[row] + number)[~sure])
        at = content[offset[row] + (within // np.uint64(8)).astype(np.int64)]
        row, at = row[at != 0], at[at != 0]
    none = np.empty(0, np.int64)
    return np.concatenate([none, *found]), np.concatenate([none, *more])


# -- caches -------------------------------------------------------------------


def _thread_caches(work: _Walk, sizes_of: Words) -> list[int]:
    """Return the addresses of the thread caches: they are chained, and variables point to one."""
    words = work.variables
    some = np.unique(words[(words != 0) & (words % np.uint64(8) == 0)])
    some = some[are_writable(work.memory, some, np.full(len(some), _CLASSES * _LIST, np.uint64))]
    waiting = [place for place in some.tolist() if _is_thread_cache(work, place, sizes_of)]
    found: set[int] = set()
    while waiting and len(found) < _MOST_CACHES:
        cache = waiting.pop()
        if cache in found:
            continue
        found.add(cache)
        tail = work.words(cache + _CLASSES * _LIST, _AFTER_LISTS // 8)
        for other in tail.tolist():
            new = other and other % 8 == 0 and other not in found
            if new and _is_thread_cache(work, other, sizes_of):
                waiting.append(other)
    return sorted(found)


def _is_thread_cache(work: _Walk, address: int, sizes_of: Words) -> bool:
    """Whether lists begin here that repeat the classes' sizes."""
    first = work.words(address + _LIST, _LIST // 8)
    if len(first) < 4 or int(first[3]) & 0xFFFFFFFF != int(sizes_of[1]):
        return False
    lists = work.words(address, len(sizes_of) * _LIST // 8)
    sizes = lists[3::4] & np.uint64(0xFFFFFFFF)
    return len(sizes) == len(sizes_of) and bool(np.array_equal(sizes[1:], sizes_of[1:]))


def _cached(work: _Walk, caches: list[int], starts: Words) -> tuple[npt.NDArray[np.bool_], Words]:
    """Say which blocks wait in a thread's cache or in the slots between threads.

    And which ones may be on their way: a list is as long as it says to be, but a thread may have
    stopped between the list and its length, or between a slot and their number.
    """
    heads: list[int] = []
    lengths: list[int] = []
    for cache in caches:
        lists = work.words(cache, _CLASSES * _LIST // 8)
        heads += lists[::4].tolist()
        lengths += (lists[1::4] & np.uint64(0xFFFFFFFF)).tolist()
    for central in _central_caches(work):
        words = work.words(central - 8, (_USED_AT + 16) // 8)
        if len(words) * 8 < _USED_AT + 16:
            continue
        locked = int(words[0]) & 0xFFFFFFFF != 0
        used = min(int(words[_USED_AT // 8 + 1]) & 0xFFFFFFFF, _SLOTS)
        slots = words[_SLOTS_AT // 8 + 1 :: 2][: min(used + locked, _SLOTS)].tolist()
        heads += slots
        sure = used - locked
        lengths += [_MOST_MOVED if number < sure else 0 for number in range(len(slots))]
    waiting = np.zeros(len(starts), np.bool_)
    moving: list[Words] = [_NONE]
    at, left = np.array(heads, np.uint64), np.array(lengths, np.int64)
    steps = _MOST_LINKS
    seen = np.zeros(len(starts), np.bool_)
    while steps > 0 and len(starts):
        place = np.minimum(np.searchsorted(starts, at), len(starts) - 1)
        new = (at != 0) & (starts[place] == at) & ~seen[place] & (left > -_MOST_MOVED)
        at, place, left = at[new], place[new], left[new]
        if not len(at):
            break
        seen[place] = True
        waiting[place[left > 0]] = True
        moving.append(at[left <= 0])
        steps -= len(at)
        links = [work.words(address, 1) for address in at.tolist()]
        at = np.array([int(link[0]) if len(link) else 0 for link in links], np.uint64)
        left = left - 1
    return waiting, np.concatenate(moving)


def _central_caches(work: _Walk) -> list[int]:
    """Return where each central cache keeps its class: they stand in a row, counting up."""
    words = work.variables
    ones = np.flatnonzero(words == 1)
    for stride in _STRIDES:
        step = stride // 8
        row = ones[ones + step * _SURE < len(words)]
        for number in range(2, _SURE + 1):
            row = row[words[row + step * (number - 1)] == number]
        for first in row.tolist():
            found: list[int] = []
            for place in range(first, len(words), step):
                if int(words[place]) != len(found) + 1:
                    break
                found.append(work.start + 8 * place)
            if all(_has_lists(work, each) for each in found[:_SURE]):
                return found
    return []


def _has_lists(work: _Walk, central: int) -> bool:
    """Whether two lists of spans begin behind the class: rings that lead back to it."""
    for header in (central + 8, central + 8 + _SPAN):
        links = work.words(header + 16, 2)
        if len(links) < 2:
            return False
        back = work.words(int(links[0]) + 24, 1)
        if len(back) < 1 or int(back[0]) != header:
            return False
    return True
