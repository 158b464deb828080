# SPDX-License-Identifier: Apache-2.0
"""Which stacks of two sides are the same allocation, although a compiler or a tool changed them.

The stable identity finds nearly all. Of the rest, a build without debug information tells no
files, another tool calls `new` malloc, or keeps fewer outer frames, and a function that ends in
a call to another one is not on the stack of an optimised build.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from leakscope.judge.stands import Name, Stand

__all__ = ["Pair", "paired"]

_T = TypeVar("_T")

_MOST_DROPPED = 3  # functions that end in a call, on one stack
_MOST_TRIED = 64  # candidates for one stack
_INNER = 4  # innermost functions by which candidates are found
_SAME_SIZE = 0.01
_SAME_SUM = 0.1


class Pair(NamedTuple):
    """The stacks of both sides that are one allocation; one of the lists may be empty."""

    before: tuple[Stand, ...]
    after: tuple[Stand, ...]
    renamed: bool = False


def paired(before: Mapping[str, Stand], after: Mapping[str, Stand]) -> list[Pair]:
    """Return all stands of both sides, each in one pair."""
    found = [Pair((before[key],), (after[key],)) for key in before if key in after]
    left = [stand for key, stand in before.items() if key not in after]
    right = [stand for key, stand in after.items() if key not in before]
    for match in (_by_names, _by_inner_frames, _by_dropped_frames, _together, _arenas):
        pairs = match(left, right)
        found += pairs
        taken = {id(stand) for pair in pairs for stand in (*pair.before, *pair.after)}
        left = [stand for stand in left if id(stand) not in taken]
        right = [stand for stand in right if id(stand) not in taken]
    left = _taken_up(found, left, before=True)
    right = _taken_up(found, right, before=False)
    found += [Pair((stand,), ()) for stand in left]
    found += [Pair((), (stand,)) for stand in right]
    return found


def _by_names(left: Sequence[Stand], right: Sequence[Stand]) -> list[Pair]:
    """The same functions, where one side does not tell their files, or calls the kind otherwise."""

    def key(stand: Stand) -> Hashable:
        return stand.mapping, tuple(name for name, _ in stand.names)

    return _grouped(left, right, key, _agree)


def _grouped(
    left: Sequence[Stand],
    right: Sequence[Stand],
    key: Callable[[Stand], Hashable],
    fits: Callable[[Stand, Stand], bool],
) -> list[Pair]:
    groups = _index(left, lambda stand: [key(stand)])
    found = []
    taken: set[int] = set()
    for stand in right:
        if not stand.names:
            continue
        fitting = [
            each
            for each in groups.get(key(stand), ())[:_MOST_TRIED]
            if id(each) not in taken and fits(each, stand)
        ]
        if fitting:
            taken.update(id(each) for each in fitting)
            found.append(Pair(tuple(fitting), (stand,), renamed=True))
    return found


def _agree(one: Stand, other: Stand) -> bool:
    return all(_same(a, b) for a, b in zip(one.names, other.names, strict=True))


def _same(one: Name, other: Name) -> bool:
    return one[0] == other[0] and (one[1] == other[1] or not one[1] or not other[1])


def _by_inner_frames(left: Sequence[Stand], right: Sequence[Stand]) -> list[Pair]:
    """Stacks of which one side keeps the inner frames alone: several there may be one here."""
    found: list[Pair] = []
    taken: set[int] = set()
    for few, many, few_are_left in ((left, right, True), (right, left, False)):
        longer = _index(many, lambda stand: [(stand.mapping, stand.names[0][0])])
        # The longest first: it is the most exact.
        for stand in sorted(few, key=lambda each: -len(each.names)):
            if not stand.cut or not stand.names or id(stand) in taken:
                continue
            fitting = [
                each
                for each in longer.get((stand.mapping, stand.names[0][0]), ())[:_MOST_TRIED]
                if id(each) not in taken
                and len(each.names) > len(stand.names)
                and all(_same(a, b) for a, b in zip(stand.names, each.names, strict=False))
            ]
            if fitting:
                taken.update(id(each) for each in (stand, *fitting))
                here, there = (stand,), tuple(fitting)
                found.append(Pair(here, there, True) if few_are_left else Pair(there, here, True))
    return found


def _inner(stand: Stand) -> list[Hashable]:
    return [(stand.mapping, name) for name, _ in stand.names[:_INNER]]


def _candidates(index: Mapping[Hashable, list[_T]], keys: Iterable[Hashable]) -> list[_T]:
    """The rarest functions first: a wrapper of malloc is on every stack."""
    found_by = sorted((index.get(key, []) for key in keys), key=len)
    tried = itertools.islice(itertools.chain(*found_by), _MOST_TRIED)
    return list({id(each): each for each in tried}.values())


def _taken_up(pairs: list[Pair], left: list[Stand], *, before: bool) -> list[Stand]:
    """Add stands to pairs whose other side took them up: without a frame, two stacks are one.

    So it is where the pair then differs by less. Returns those that are left.
    """
    index: dict[Hashable, list[int]] = {}
    for number, pair in enumerate(pairs):
        for stand in pair.after if before else pair.before:
            for key in _inner(stand):
                index.setdefault(key, []).append(number)
    rest = []
    for stand in sorted(left, key=lambda each: -each.held_bytes):
        best: tuple[int, int] | None = None
        for number in _candidates(index, _inner(stand)):
            pair = pairs[number]
            others = pair.after if before else pair.before
            fits = any(
                0 < len(stand.names) - len(each.names) <= _MOST_DROPPED and _within(each, stand)
                for each in others
            )
            gap = _gap(pair, before=before)
            if fits and abs(gap - stand.held_bytes) < abs(gap):
                dropped = min(abs(len(stand.names) - len(each.names)) for each in others)
                best = min(best or (dropped, number), (dropped, number))
        if best is None:
            rest.append(stand)
            continue
        pair = pairs[best[1]]
        here = (*pair.before, stand) if before else pair.before
        there = pair.after if before else (*pair.after, stand)
        pairs[best[1]] = Pair(here, there, renamed=True)
    return rest


def _gap(pair: Pair, *, before: bool) -> int:
    """By how many bytes the other side of a pair holds more."""
    sums = [sum(each.held_bytes for each in stands) for stands in (pair.before, pair.after)]
    return sums[1] - sums[0] if before else sums[0] - sums[1]


def _by_dropped_frames(left: Sequence[Stand], right: Sequence[Stand]) -> list[Pair]:
    """Stacks that differ by a few frames, and hold as many blocks, or blocks as large."""
    index = _index(left, _inner)
    ranked: list[tuple[int, int, int, int]] = []
    numbers = {id(stand): number for number, stand in enumerate(left)}
    for at, stand in enumerate(right):
        for each in _candidates(index, _inner(stand)):
            dropped = abs(len(each.names) - len(stand.names))
            if 0 < dropped <= _MOST_DROPPED and _alike(each, stand) and _within(each, stand):
                distance = abs(each.held_bytes - stand.held_bytes)
                ranked.append((dropped, distance, numbers[id(each)], at))
    found = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for _, _, here, there in sorted(ranked):
        if here not in taken[0] and there not in taken[1]:
            taken[0].add(here)
            taken[1].add(there)
            found.append(Pair((left[here],), (right[there],), renamed=True))
    return found


def _together(left: Sequence[Stand], right: Sequence[Stand]) -> list[Pair]:
    """Stacks of one side that are one on the other, where frames are left out of all of them."""
    found: list[Pair] = []
    taken: set[int] = set()
    for few, many, few_are_left in ((left, right, True), (right, left, False)):
        index = _index(many, _inner)
        for stand in few:
            chosen: list[Stand] = []
            gap = stand.held_bytes
            fitting = [
                each
                for each in _candidates(index, _inner(stand))
                if id(each) not in taken
                and 0 < len(each.names) - len(stand.names) <= _MOST_DROPPED
                and _within(each, stand)
            ]
            for each in sorted(fitting, key=lambda one: (len(one.names), -one.held_bytes)):
                if abs(gap - each.held_bytes) < abs(gap):
                    chosen.append(each)
                    gap -= each.held_bytes
            if len(chosen) > 1 and abs(gap) <= _SAME_SUM * stand.held_bytes:
                taken.update(id(each) for each in (stand, *chosen))
                here, there = (stand,), tuple(chosen)
                found.append(Pair(here, there, True) if few_are_left else Pair(there, here, True))
    return found


def _arenas(left: Sequence[Stand], right: Sequence[Stand]) -> list[Pair]:
    """Mappings of one size that one function makes: an allocator's, whoever needed the next one."""

    def key(stand: Stand) -> list[Hashable]:
        if not stand.mapping or not stand.held_count:
            return []
        return [(stand.names[0], stand.held_bytes // stand.held_count)]

    here, there = _index(left, key), _index(right, key)
    return [Pair(tuple(here[each]), tuple(there[each]), True) for each in here if each in there]


def _within(one: Stand, other: Stand) -> bool:
    """Whether the frames of the one with fewer are all in the other, in the same order."""
    few, many = sorted((one.names, other.names), key=len)
    rest = iter(many)
    return bool(few) and all(any(_same(name, each) for each in rest) for name in few)


def _alike(one: Stand, other: Stand) -> bool:
    if one.held_count is None or other.held_count is None:
        return one.held_bytes == other.held_bytes
    if one.held_count == other.held_count:
        return True
    if not one.held_count or not other.held_count:
        return False
    sizes = one.held_bytes / one.held_count, other.held_bytes / other.held_count
    return abs(sizes[0] - sizes[1]) <= _SAME_SIZE * max(sizes)


def _index(
    stands: Iterable[Stand], keys: Callable[[Stand], Iterable[Hashable]]
) -> dict[Hashable, list[Stand]]:
    found: dict[Hashable, list[Stand]] = {}
    for stand in stands:
        if stand.names:
            for key in keys(stand):
                found.setdefault(key, []).append(stand)
    return found
