# SPDX-License-Identifier: Apache-2.0
"""Several heap dumps of one process: which classes and which places grew, and what that means."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from leakscope.errors import UsageError
from leakscope.java.paths import static_name
from leakscope.judge.live_sets import LiveVerdict, judge_live_set
from leakscope.model.findings import Verdict
from leakscope.model.heapdump import (
    DumpGrowth,
    GrownPart,
    HeapAnswer,
    HeapOddity,
    HeldClass,
    JavaPattern,
)
from leakscope.words import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.heapdump import HeapPlace

__all__ = ["compare_dumps"]

_ORDER = (Verdict.LEAKING, Verdict.GROWING, Verdict.FILLING, Verdict.WARM_UP, Verdict.BOUNDED)
_MOST = 40
_SHARE = 0.5  # of a class's growth that one place has, for it to be its holder


def compare_dumps(answers: Sequence[HeapAnswer]) -> DumpGrowth:
    """Compare dumps, which are put in the order of their times. Raises `UsageError` for one."""
    if len(answers) < 2:
        raise UsageError("one dump shows no growth", hint="Name two or more of one process.")
    # Dumps of one second have the order in which they were named.
    dumps = tuple(sorted(answers, key=lambda one: one.taken_ms))
    times = tuple((one.taken_ms - dumps[0].taken_ms) / 1000 for one in dumps)
    places = _places(dumps, times)
    classes, steady = _classes(dumps, times, places)
    places += _patterns(dumps, times)
    grown = sorted(places + classes, key=lambda g: (_ORDER.index(g.verdict), -_growth(g)))
    verdict = grown[0].verdict if grown else None
    return DumpGrowth(dumps, times, verdict, tuple(grown[:_MOST]), steady, _notes(dumps))


def _growth(one: GrownPart) -> int:
    return one.sizes[-1] - one.sizes[0]


def _places(dumps: Sequence[HeapAnswer], times: Sequence[float]) -> list[GrownPart]:
    """Places by their way from a root: the same classes and fields in each dump."""
    found = []
    heap = [one.strong_bytes for one in dumps]
    for key, newest in _by_key(dumps[-1]).items():
        courses = [_by_key(one).get(key) for one in dumps]
        sizes = [0 if place is None else place.retained for place in courses]
        counts = [0 if place is None else place.entries for place in courses]
        # What was too small to be kept in an earlier dump was small, and nobody knows how small.
        judged = judge_live_set(
            times, sizes, counts, heap, held_in_one_place=counts[-1] > counts[0]
        )
        if judged is None:
            continue
        if newest.soft and judged.verdict in (Verdict.LEAKING, Verdict.GROWING):
            judged = _given_back(judged)
        pattern = next((s.pattern for s in dumps[-1].suspects if s.place.key == key), None)
        found.append(
            _part(
                "place",
                place_name(newest),
                judged,
                counts,
                sizes,
                newest,
                pattern or _plain(newest),
            )
        )
    return found


def _part(
    subject: str,
    name: str,
    judged: LiveVerdict,
    counts: Sequence[int],
    sizes: Sequence[int],
    place: HeapPlace | None,
    pattern: JavaPattern | None,
) -> GrownPart:
    return GrownPart(
        subject,
        name,
        tuple(counts),
        tuple(sizes),
        judged.verdict,
        judged.confidence,
        judged.rate,
        judged.sentence,
        judged.evidence,
        place,
        pattern,
    )


def _given_back(judged: LiveVerdict) -> LiveVerdict:
    """A cache by soft references: what it refers to goes before memory runs out."""
    why = (
        "a cache by soft or weak references: what they refer to is given back when memory is short"
    )
    return replace(judged, verdict=Verdict.BOUNDED, confidence=0.7, sentence=why)


def _patterns(dumps: Sequence[HeapAnswer], times: Sequence[float]) -> list[GrownPart]:
    """What has a known name and no single holder: streams, buffers, loaders, finalizers."""
    found = []
    for newest in dumps[-1].oddities:
        course = [_oddity(one, newest.subject) for one in dumps]
        counts = tuple(0 if each is None else each.count for each in course)
        sizes = tuple(0 if each is None else each.size for each in course)
        counted = newest.pattern is JavaPattern.STREAMS
        judged = judge_live_set(
            times,
            counts if counted else sizes,
            counts,
            [0] * len(dumps),
            held_in_one_place=True,
            unit="count" if counted else "bytes",
        )
        if judged is not None:
            found.append(
                _part("pattern", newest.subject, judged, counts, sizes, None, newest.pattern)
            )
    return found


def _oddity(answer: HeapAnswer, subject: str) -> HeapOddity | None:
    return next((one for one in answer.oddities if one.subject == subject), None)


def _plain(place: HeapPlace) -> JavaPattern | None:
    if len(place.path) > 1 and place.path[1].reference.startswith("static "):
        return JavaPattern.STATIC_COLLECTION if place.entries > 1 else None
    return None


def _by_key(answer: HeapAnswer) -> dict[tuple[str, ...], HeapPlace]:
    found: dict[tuple[str, ...], HeapPlace] = {}
    for place in answer.places:
        kept = found.get(place.key)
        if kept is not None:  # places that differ in nothing that has a name count as one
            place = replace(  # noqa: PLW2901 - the sum is what goes on
                place,
                retained=place.retained + kept.retained,
                entries=place.entries + kept.entries,
                held=_together(place.held, kept.held),
            )
        found[place.key] = place
    return found


def _together(one: tuple[HeldClass, ...], other: tuple[HeldClass, ...]) -> tuple[HeldClass, ...]:
    sums: dict[str, tuple[int, int]] = {}
    for each in (*one, *other):
        count, size = sums.get(each.class_name, (0, 0))
        sums[each.class_name] = (count + each.count, size + each.size)
    return tuple(HeldClass(name, count, size) for name, (count, size) in sums.items())


def place_name(place: HeapPlace) -> str:
    """Name a place by what its way begins at."""
    path = place.path
    if len(path) > 1 and path[0].is_class and path[1].reference.startswith("static "):
        return static_name(path)
    if not path:
        return place.class_name
    return f"{path[0].class_name} … {place.class_name}" if len(path) > 1 else place.class_name


def _classes(
    dumps: Sequence[HeapAnswer], times: Sequence[float], places: Sequence[GrownPart]
) -> tuple[list[GrownPart], int]:
    heap = [one.strong_bytes for one in dumps]
    rows = [{row.class_name: row for row in one.classes} for one in dumps]
    found, steady = [], 0
    for name in rows[-1]:
        course = [each.get(name) for each in rows]
        sizes = tuple(0 if row is None else row.size for row in course)
        counts = tuple(0 if row is None else row.count for row in course)
        holder = _holder(name, sizes[-1] - sizes[0], places)
        leaks = holder is not None and holder.verdict is Verdict.LEAKING
        judged = judge_live_set(times, sizes, counts, heap, held_in_one_place=leaks)
        if judged is None:
            steady += 1
            continue
        if holder is not None and holder.place is not None and holder.place.soft:
            judged = _given_back(judged)
        found.append(
            _part(
                "class",
                name,
                judged,
                counts,
                sizes,
                None if holder is None else holder.place,
                None if holder is None else holder.pattern,
            )
        )
    return found, steady


def _holder(name: str, grown: int, places: Sequence[GrownPart]) -> GrownPart | None:
    """Return the growing place that holds most of what a class grew by."""
    for one in places:
        held = () if one.place is None else one.place.held
        size = next((each.size for each in held if each.class_name == name), 0)
        if size >= _SHARE * grown > 0:
            return one
    return None


def _notes(dumps: Sequence[HeapAnswer]) -> tuple[str, ...]:
    found = []
    if len({(one.android, one.id_size) for one in dumps}) > 1:
        found.append("the dumps are of different kinds of virtual machines: not of one process")
    same = sum(a.taken_ms == b.taken_ms for a, b in pairwise(dumps))
    if same:
        found.append(f"{plural(same + 1, 'dump')} tell the same time: no rate can be told")
    for one in dumps:
        found += [f"{one.name}: {note}" for note in one.notes]
    if len(dumps) == 2:
        found.append("with a third dump, growth that goes on is told from one that stopped")
    return tuple(found)
