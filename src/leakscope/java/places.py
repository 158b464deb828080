# SPDX-License-Identifier: Apache-2.0
"""Where memory accumulates: the objects below which a heap falls apart into many small ones.

The way down is that of Eclipse MAT: from what nothing else holds to the heaviest object below it,
until that has less than seven tenths of the one above. What is no place of its own, as a class or
a class loader, is looked through where several heavy objects lie below it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from leakscope.java._core import NONE, Level
from leakscope.java.paths import is_thread, key_of, steps
from leakscope.model.heapdump import HeapPlace, HeldClass, PathStep

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.java.dump import HeapDump

__all__ = ["FoundPlace", "find_groups", "find_places", "held_by", "place_of"]

_DROP = 0.7
_CHAIN = 8  # objects of one class, each below the other: a list, whose length is what grows
_OFTEN = 32  # objects of one class on one way: a list with something in between
_DEEPEST = 10_000  # steps down
_MOST = 40  # places
_ROWS = 12
_SAMPLE = 100
_COMMON = 0.8
_LENGTHS = ("size", "count", "elementCount", "baseCount")
_SOFT = (Level.SOFT, Level.WEAK)


class FoundPlace(NamedTuple):
    """A place, and what was suspected first: the top-most object that comes down to it."""

    top: int
    point: int
    retained: int  # of the objects in question
    group: str | None = None  # their class, where not all below `point` is meant
    objects: int = 1


def find_places(dump: HeapDump, floor: int, under: int = NONE) -> list[FoundPlace]:
    """Return the places with at least `floor` bytes, heaviest first; only those below `under`."""
    retained = dump.all_retained
    big = np.flatnonzero(retained >= np.uint64(max(floor, 1)))
    big = big[dump.level[big] == Level.STRONG]
    tree = _Tree(dump, big, retained)
    found: list[FoundPlace] = []
    todo = [int(top) for top in tree.below(under)]
    while todo and len(found) < _MOST:
        top = todo.pop(0)
        point, split = _descend(dump, tree, top)
        if split:
            todo += split
            continue
        if not is_plumbing(dump, point):
            found.append(FoundPlace(top, point, dump.retained(point)))
            continue
        group = _heaviest_group(dump, dump.children(point))
        if group is not None and group[2] >= floor:
            found.append(FoundPlace(top, point, group[2], group[0], group[1]))
    return sorted(found, key=lambda one: -one.retained)


class _Tree:
    """The heavy objects and who dominates them."""

    def __init__(
        self, dump: HeapDump, big: npt.NDArray[np.int64], retained: npt.NDArray[np.uint64]
    ) -> None:
        above = dump.idom[big]
        order = np.lexsort((-retained[big].astype(np.int64), above))
        self._big, self._above = big[order], above[order]

    def below(self, number: int) -> npt.NDArray[np.int64]:
        """Return the heavy objects that an object dominates directly, heaviest first."""
        wanted = np.uint32(number)  # of the same type: else the whole column is converted
        low = np.searchsorted(self._above, wanted, side="left")
        return self._big[low : np.searchsorted(self._above, wanted, side="right")]


def _descend(dump: HeapDump, tree: _Tree, top: int) -> tuple[int, list[int]]:
    """Return where the way down ends, and what to look at instead, where that is several.

    A list is not gone through: its length is what grows, and its end says nothing. It is known by
    objects of one class in a row, or by a class that comes up again and again (nodes that hold
    wrappers that hold nodes).
    """
    way, row, often = [top], 1, Counter((int(dump.class_of[top]),))
    while len(way) < _DEEPEST:
        at = way[-1]
        below = tree.below(at)
        if not len(below):
            break
        heaviest = int(below[0])
        if dump.retained(heaviest) < _DROP * dump.retained(at):
            if is_plumbing(dump, at):
                return at, [int(each) for each in below]
            break
        way.append(heaviest)
        if dump.kinds[heaviest] == 0:
            continue
        of = int(dump.class_of[heaviest])
        row = row + 1 if of == dump.class_of[at] else 1
        often[of] += 1
        if row >= _CHAIN:
            return _holder(dump, way, len(way) - row), []
        if often[of] >= _OFTEN:
            return _holder(dump, way, [int(dump.class_of[each]) for each in way].index(of)), []
    return way[-1], []


def _holder(dump: HeapDump, way: list[int], start: int) -> int:
    """Return what holds the list that begins at a step, where that is an object of the program."""
    above = way[max(start - 1, 0)]
    return way[start] if is_plumbing(dump, above) else above


def is_plumbing(dump: HeapDump, number: int) -> bool:
    """Whether an object holds things by the nature of Java and not as a program's data.

    Classes, class loaders and their lists of classes, threads.
    """
    if dump.kinds[number] == 0 or is_thread(dump, number):
        return True
    for _ in range(3):
        if number == NONE or dump.kinds[number] == 0:
            return False
        if is_loader(dump, number):
            return True
        number = int(dump.idom[number])
    return False


def is_loader(dump: HeapDump, number: int) -> bool:
    """Whether an object is a class loader."""
    index = int(dump.class_of[number])
    for _ in range(32):
        if index == NONE:
            return False
        if dump.names.class_name(index) == "java.lang.ClassLoader":
            return True
        index = int(dump.classes["super_index"][index])
    return False


def _heaviest_group(dump: HeapDump, numbers: npt.NDArray[np.int64]) -> tuple[str, int, int] | None:
    """Return class, number and retained bytes of the heaviest class among some objects."""
    numbers = numbers[dump.kinds[numbers] != 0]
    of = dump.class_of[numbers]
    numbers, of = numbers[of != NONE], of[of != NONE]
    if not len(numbers):
        return None
    sums = np.bincount(of, dump.all_retained[numbers].astype(np.float64))
    best = int(np.argmax(sums))
    return dump.names.class_name(best), int((of == best).sum()), int(sums[best])


def find_groups(dump: HeapDump, floor: int) -> list[tuple[str, npt.NDArray[np.int64], int]]:
    """Return classes whose objects are heavy together, and none of them alone.

    Those are objects that several others hold, so that no single one holds them all.
    """
    top = (dump.idom == NONE) & dump.strong & (dump.kinds != 0) & (dump.class_of != NONE)
    numbers = np.flatnonzero(top)
    retained = dump.all_retained[numbers]
    light = retained < floor
    numbers, retained = numbers[light], retained[light]
    if not len(numbers):
        return []
    of = dump.class_of[numbers]
    sums = np.bincount(of, retained.astype(np.float64))
    found = []
    for index in np.flatnonzero(sums >= floor).tolist():
        of_it = numbers[of == index]
        if len(of_it) > 1:
            found.append((dump.names.class_name(index), of_it, int(sums[index])))
    return sorted(found, key=lambda one: -one[2])


def common_way(dump: HeapDump, numbers: npt.NDArray[np.int64]) -> list[int]:
    """Return the beginning that most ways to some objects share, roots first."""
    sample = numbers[:: max(1, len(numbers) // _SAMPLE)][:_SAMPLE]
    paths = [dump.path(int(number)) for number in sample]
    found: list[int] = []
    for depth in range(200):
        here = [path[depth] for path in paths if len(path) > depth]
        if not here:
            break
        values, counts = np.unique(here, return_counts=True)
        best = int(np.argmax(counts))
        if counts[best] < _COMMON * len(paths):
            break
        found.append(int(values[best]))
        paths = [path for path in paths if len(path) > depth and path[depth] == values[best]]
    return found


def held_by(dump: HeapDump, number: int) -> tuple[HeldClass, ...]:
    """Return what an object holds, by class, heaviest first."""
    inside = dump.dominated(number)
    inside[number] = False
    numbers = np.flatnonzero(inside)
    return _by_class(dump, numbers)


def _by_class(dump: HeapDump, numbers: npt.NDArray[np.int64]) -> tuple[HeldClass, ...]:
    if not len(numbers):
        return ()
    # What has no class in the dump is known by its kind.
    none = len(dump.classes)
    of = np.where(
        dump.class_of[numbers] == NONE,
        none + dump.kinds[numbers].astype(np.int64),
        dump.class_of[numbers],
    )
    sizes = np.bincount(of, dump.all_sizes[numbers].astype(np.float64))
    counts = np.bincount(of)
    found = []
    for index in np.argsort(sizes)[::-1][:_ROWS].tolist():
        if not counts[index]:
            break
        name = dump.class_name(int(numbers[np.argmax(of == index)]))
        found.append(HeldClass(name, int(counts[index]), int(sizes[index])))
    return tuple(found)


def place_of(dump: HeapDump, number: int, path: tuple[PathStep, ...] | None = None) -> HeapPlace:
    """Put together what is to be said of an object in which memory accumulates."""
    way = steps(dump, number) if path is None else path
    index = dump.class_index_of_object(number)
    name = dump.class_name(number) if index == NONE else dump.names.class_name(index)
    return HeapPlace(
        name,
        int(dump.objects["id"][number]),
        dump.retained(number),
        _entries(dump, number),
        held_by(dump, number),
        way,
        key_of(way),
        _is_soft(dump, number),
    )


def _is_soft(dump: HeapDump, number: int) -> bool:
    """Whether most of what it holds directly, or one below, are soft or weak references."""
    children = dump.children(number)[:_SAMPLE]
    if not len(children):
        return False
    soft = 0
    for child in children.tolist():
        inner = [child, *dump.children_few(child)]
        soft += any(
            dump.class_of[each] != NONE and dump.classes["kind"][dump.class_of[each]] in _SOFT
            for each in inner
        )
    return soft > len(children) // 2


def _entries(dump: HeapDump, number: int) -> int:
    """How many objects are in it: as the collection says itself, else what it holds directly."""
    for each in (number, int(dump.idom[number])):
        told = _told_size(dump, each)
        if told:
            return told
    count = int((dump.idom == number).sum())
    if count >= 4:
        return count
    # A list: its length is that of the chain below.
    below = number
    for _ in range(3):
        of, length, at = dump.class_of[below], 1, below
        while (at := int(dump.heaviest[at])) != NONE and dump.class_of[at] == of:
            length += 1
        if length >= _CHAIN:
            return length
        below = int(dump.heaviest[below])
        if below == NONE:
            break
    return count


def _told_size(dump: HeapDump, number: int) -> int | None:
    if number == NONE or dump.kinds[number] != 1:
        return None
    if not dump.class_name(number).startswith("java.util."):
        return None
    for one in dump.values(number):
        if one.name in _LENGTHS and not one.is_reference and isinstance(one.value, int):
            return max(one.value, 0)
    return None
