# SPDX-License-Identifier: Apache-2.0
"""One heap dump, from the file to the answer: suspects, oddities, and what is missing."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from leakscope.java import patterns
from leakscope.java._core import NONE, HeapTable, Level
from leakscope.java.dump import HeapDump, open_heap
from leakscope.java.paths import is_thread, static_name, thread_facts
from leakscope.java.places import FoundPlace, common_way, find_groups, find_places, place_of
from leakscope.model.heapdump import ClassRow, HeapAnswer, HeapPlace, JavaPattern, Suspect
from leakscope.words import bytes_text, count_text, percent_text, plural

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

    from leakscope.model.heapdump import PathStep, ThreadFacts

__all__ = ["analyse_dump", "answer_of"]

_SUSPECT = 0.10  # share of the heap
_PLACE = 0.01
_LEAST_SUSPECT = 64 << 10
_LEAST_GROUP = 256 << 10
_LEAST_PLACE = 16 << 10
_MOST_SUSPECTS = 8
_MOST_CLASSES = 2000
_PRIMITIVE = 4  # kinds from here on are arrays of numbers
_LEVELS = {
    Level.SOFT: "softly held: given back before memory runs out",
    Level.FINAL: "held only until finalized",
    Level.WEAK: "weakly held: gone with the next collection",
    Level.PHANTOM: "held by phantom references only",
    Level.GARBAGE: "garbage",
}


def analyse_dump(path: str | os.PathLike[str]) -> HeapAnswer:
    """Return what one dump tells. Raises `RecordingError`."""
    began = time.perf_counter()
    with open_heap(path) as dump:
        return answer_of(dump, began)


def answer_of(dump: HeapDump, began: float | None = None) -> HeapAnswer:
    """Return what an open dump tells; `began` is when its reading began, for what it cost."""
    began = time.perf_counter() if began is None else began
    strong = dump.bytes_of(dump.strong)
    places = _places(dump, strong)
    suspects = _suspects(dump, strong, places)
    oddities = patterns.find_oddities(dump, strong)
    facts = dump.core.facts
    return HeapAnswer(
        dump.file.name,
        dump.file.version,
        dump.android,
        dump.file.id_size,
        dump.file.taken_ms,
        len(dump.objects),
        len(dump.classes),
        len(dump.roots),
        strong,
        tuple(
            (words, int((dump.level == level).sum()), dump.bytes_of(dump.level == level))
            for level, words in _LEVELS.items()
        ),
        *_classes(dump),
        tuple(suspects),
        tuple(oddities),
        tuple(place for _, place in places),
        _notes(dump),
        time.perf_counter() - began,
        int(facts.most),
        _heaps(dump),
    )


def _classes(dump: HeapDump) -> tuple[tuple[ClassRow, ...], int]:
    """The histogram of what is strongly held, and how many names it has in all."""
    strong = dump.strong & (dump.class_of != NONE) & (dump.kinds != 0)
    of = dump.class_of[strong]
    counts = np.bincount(of, minlength=len(dump.classes))
    sizes = np.bincount(of, dump.all_sizes[strong].astype(np.float64), len(dump.classes))
    names: dict[str, tuple[int, int]] = {}
    for index in np.flatnonzero(counts).tolist():
        name = dump.names.class_name(index)
        count, size = names.get(name, (0, 0))
        names[name] = (count + int(counts[index]), size + int(sizes[index]))
    without = dump.strong & (dump.class_of == NONE) & (dump.kinds >= _PRIMITIVE)
    for number in np.unique(dump.kinds[without]).tolist():
        of_kind = np.flatnonzero(without & (dump.kinds == number))
        sizes_of = int(dump.all_sizes[of_kind].sum())
        names[dump.class_name(int(of_kind[0]))] = (len(of_kind), sizes_of)
    rows = sorted((ClassRow(n, c, s) for n, (c, s) in names.items()), key=lambda r: -r.size)
    return tuple(rows[:_MOST_CLASSES]), len(rows)


def _places(dump: HeapDump, strong: int) -> list[tuple[FoundPlace, HeapPlace]]:
    floor = max(int(_PLACE * strong), _LEAST_PLACE)
    return [(found, place_of(dump, found.point)) for found in find_places(dump, floor)]


def _suspects(
    dump: HeapDump, strong: int, places: list[tuple[FoundPlace, HeapPlace]]
) -> list[Suspect]:
    floor = max(int(_SUSPECT * strong), _LEAST_SUSPECT)
    alike: dict[tuple[str, ...], list[tuple[FoundPlace, HeapPlace]]] = {}
    for one, place in places:
        alike.setdefault((*place.key, one.group or ""), []).append((one, place))
    found = []
    for several in alike.values():
        retained = sum(one.retained for one, _ in several)
        if retained >= floor:
            first, place = several[0]
            one = first._replace(
                retained=retained, objects=sum(each.objects for each, _ in several)
            )
            found.append(_suspect(dump, strong, one, place, len(several) - 1))
    seen = {suspect.class_name for suspect in found}
    for name, numbers, retained in find_groups(dump, max(floor, _LEAST_GROUP)):
        if name in seen:
            continue
        heaviest = int(numbers[np.argmax(dump.all_retained[numbers])])
        if is_thread(dump, heaviest):
            below = find_places(dump, dump.retained(heaviest) // 2, under=heaviest)
            point = below[0].point if below else heaviest
            one = FoundPlace(heaviest, point, retained, None, len(numbers))
            found.append(_suspect(dump, strong, one, place_of(dump, point), len(numbers) - 1))
            continue
        way = common_way(dump, numbers)
        last = way[-1] if way else heaviest
        one = FoundPlace(last, last, retained, name, len(numbers))
        found.append(_suspect(dump, strong, one, place_of(dump, last), 0))
    return sorted(found, key=lambda one: -one.retained)[:_MOST_SUSPECTS]


def _suspect(dump: HeapDump, strong: int, one: FoundPlace, place: HeapPlace, more: int) -> Suspect:
    thread = _thread(dump, one.point)
    if thread is not None:
        thread = replace(thread, more=more)
    pattern = patterns.pattern_of(dump, place, place.path)
    return Suspect(
        place.class_name if one.group is None else one.group,
        one.objects,
        one.retained,
        one.retained / max(strong, 1),
        place,
        thread,
        pattern,
        _sentence(one, place, pattern, thread, strong),
        patterns.NEXT_STEPS[pattern] if pattern is not None else _TWICE,
    )


_TWICE = "Take a second dump later and name both: what grew between them leaks"


def _thread(dump: HeapDump, number: int) -> ThreadFacts | None:
    path = dump.path(number)
    for at, each in enumerate(path):
        if is_thread(dump, each):
            return thread_facts(dump, each, path[at + 1] if at + 1 < len(path) else NONE)
    return None


def _sentence(
    one: FoundPlace,
    place: HeapPlace,
    pattern: JavaPattern | None,
    thread: ThreadFacts | None,
    strong: int,
) -> str:
    amount = f"{bytes_text(one.retained)} ({percent_text(one.retained, strong)} of the heap)"
    where = holder_words(place.path, thread)
    if one.group is not None:
        what = f"{count_text(one.objects)} objects of {one.group} keep {amount}"
        return f"{what}, held through {where}"
    entries = f", {plural(place.entries, 'entry', 'entries')}" if place.entries > 1 else ""
    known = f": {pattern}" if pattern is not None else ""
    if place.soft:
        known = ": a cache by soft or weak references, which gives back what they refer to"
    keeps = "keep" if thread is not None and thread.more else "keeps"
    return f"{where} {keeps} {amount}{entries}{known}"


def holder_words(path: tuple[PathStep, ...], thread: ThreadFacts | None) -> str:
    """Name what a way begins at: a static field, a variable of a frame, a thread, a root."""
    if not path:
        return "something that is not on the way from a root"
    first = path[0]
    if first.is_class and len(path) > 1 and path[1].reference.startswith("static "):
        return static_name(path)
    if thread is not None:
        if thread.more:
            return f'{thread.more + 1} threads like "{thread.name}"'
        if thread.frame is not None:
            return f'a variable of {thread.frame.function} in the thread "{thread.name}"'
        return f'the thread "{thread.name}"'
    if first.is_class:
        return f"the class {first.class_name}"
    return f"{first.reference or 'root'} {first.class_name}"


def _notes(dump: HeapDump) -> tuple[str, ...]:
    facts, file = dump.core.facts, dump.file
    found = []
    if file.cut is not None:
        found.append(f"{file.cut}: what came behind is missing")
    if facts.truncated_at:
        share = percent_text(facts.truncated_at, max(file.size, 1))
        found.append(
            f"the dump is cut at byte {facts.truncated_at:,}: objects and roots behind it are missing,"
            f" so that what they hold looks like garbage or like held by others ({share} of the file was read)"
        )
    elif not facts.ended and not dump.android:
        found.append("the dump has no mark of its end: it may have been cut between two records")
    if facts.damaged:
        places = plural(facts.damaged, "place")
        found.append(
            f"{places} of the dump cannot be understood, the first at byte {facts.damaged_at:,}; the rest"
            " of each part was left out"
        )
    if facts.nowhere:
        found.append(f"{plural(facts.nowhere, 'reference')} to objects that are not in the dump")
    if facts.duplicates:
        found.append(f"{plural(facts.duplicates, 'object')} at an address that another one has")
    if facts.no_class or facts.short_bodies:
        count = facts.no_class + facts.short_bodies
        found.append(f"{plural(count, 'object')} whose class is missing or does not fit")
    if not len(dump.roots):
        found.append("there are no roots in the dump, so nothing counts as held")
    return tuple(found)


def _heaps(dump: HeapDump) -> tuple[tuple[str, int, int], ...]:
    """Android: the objects of each heap (app, zygote, image)."""
    parts = dump.core.table(HeapTable.PARTS)
    if not len(parts):
        return ()
    order = np.argsort(parts["offset"])
    offsets, names = parts["offset"][order], parts["name_id"][order]
    at = np.searchsorted(offsets, dump.objects["place"] >> np.uint64(4), side="right")
    sizes: npt.NDArray[np.uint64] = dump.all_sizes
    found: dict[str, tuple[int, int]] = {}
    for index in np.unique(at).tolist():
        inside = at == index
        name = dump.names.text(int(names[index - 1])) if index else None
        count, size = found.get(name or "(default)", (0, 0))
        found[name or "(default)"] = (
            count + int(inside.sum()),
            size + int(sizes[inside].sum()),
        )
    return tuple((name, count, size) for name, (count, size) in found.items())
