# SPDX-License-Identifier: Apache-2.0
"""Looks at memory that somebody saved, put in order and judged: what grew, and whether it leaks.

One look at a subject is an account and has no verdict. Several are series, which get the verdict
that a watch would give them; where they tell no times, the shape of the course is all there is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from leakscope.judge.causes import find_causes
from leakscope.judge.trends import judge_series
from leakscope.model.series import Series, TrendVerdict
from leakscope.model.snapshots import Course, GrownRow, Snapshot, Snapshots
from leakscope.observe.machine import account, unexplained
from leakscope.words import amount_text, plural, signed_amount

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from leakscope.model.series import Subject, Trend
    from leakscope.model.snapshots import Row

__all__ = ["judge_snapshots"]

_SPACING_S = 60.0  # between looks that tell no times
_MOST_SERIES = 20_000
_MOST_GROWN = 1000
_MEMINFO = "/proc/meminfo"
_Gauge = tuple[str, str, str]


def judge_snapshots(snapshots: Iterable[Snapshot], *, every_s: float | None = None) -> Snapshots:
    """Put together the looks at each subject, in the order given, and judge their course.

    `every_s` is the distance of looks that tell no times, where it is known.
    """
    groups = _groups(snapshots)
    spacing = [None if _timed(group) else (every_s or _SPACING_S) for group in groups]
    series = [
        _series(group, apart) if len(group) > 1 else []
        for group, apart in zip(groups, spacing, strict=True)
    ]
    judged = iter(judge_series([one for each in series for one in each]))
    courses = []
    for group, own, apart in zip(groups, series, spacing, strict=True):
        trends = [next(judged) for _ in own]
        if apart is not None and every_s is None:
            trends = [_by_shape(trend) for trend in trends]
        courses.append(
            Course(
                label=group[0].source,
                snapshots=tuple(group),
                grown=tuple(_grown(group)) if len(group) > 1 else (),
                trends=tuple(trends),
                spacing_s=apart if len(group) > 1 and every_s is None else None,
                account=_account(group[-1]),
            )
        )
    trends = [trend for course in courses for trend in course.trends]
    leaks = [cause.trend for cause in find_causes(trends)]
    # Rows of tables (classes, stacks) belong to nothing that could explain them.
    rows = [t for t in trends if t.verdict is TrendVerdict.LEAK and not _is_a_watchs(t)]
    leaks += sorted(rows, key=lambda t: (t.series.unit != "bytes", -_change(t.series)))
    return Snapshots(tuple(courses), tuple(t for t in leaks if not _is_sum_of(t, leaks)))


def _is_a_watchs(trend: Trend) -> bool:
    """Whether it is a gauge that a watch knows, and puts to its cause."""
    return trend.series.subject.kind in {"process", "cgroup", "system", "slab", "vmalloc"}


def _is_sum_of(trend: Trend, leaks: Sequence[Trend]) -> bool:
    """Whether the growth of the machine's memory in use is that of parts which are known."""
    series = trend.series
    if (series.subject.kind, series.metric) != ("system", "used"):
        return False
    parts = [t.series for t in leaks if t is not trend and t.series.unit == "bytes"]
    return sum(map(_change, parts)) >= 0.5 * _change(series)


def _change(series: Series) -> float:
    return float(series.values[-1] - series.values[0])


def _groups(snapshots: Iterable[Snapshot]) -> list[list[Snapshot]]:
    """Put the looks at one subject together; one that is not told whose it is joins those before."""
    groups: dict[tuple[str, str, str], dict[str, list[Snapshot]]] = defaultdict(dict)
    for one in snapshots:
        # What is resident is no later look at address space, though both are pmap's.
        own = groups[one.source, one.subject.kind, one.of]
        key = one.subject.key
        unknown = {"?", "jvm"}
        if key in unknown and own:
            key = next(reversed(own))
        elif key not in own and len(own) == 1 and set(own) <= unknown:
            own[key] = own.pop(next(iter(own)))
        own.setdefault(key, []).append(one)
    return [_in_order(group) for own in groups.values() for group in own.values()]


def _in_order(group: list[Snapshot]) -> list[Snapshot]:
    """Order looks by their times where all tell them; files can be named in any order."""
    if all(one.time_ns is not None for one in group):
        return sorted(group, key=lambda one: one.time_ns or 0)
    return group


def _timed(group: Sequence[Snapshot]) -> bool:
    times = [one.time_ns for one in group if one.time_ns is not None]
    return len(times) == len(group) and len(set(times)) == len(times)


def _series(group: Sequence[Snapshot], spacing_s: float | None) -> list[Series]:
    """Return the gauges of a subject; what is missing from a look is nothing there, if it is a row."""
    found: dict[_Gauge, dict[int, float]] = {}
    subjects: dict[_Gauge, tuple[Subject, str]] = {}
    for number, one in enumerate(group):
        for measure in one.measures:
            key = (measure.subject.kind, measure.subject.key, measure.metric)
            if key not in found and len(found) >= _MOST_SERIES:
                continue
            found.setdefault(key, {})[number] = float(measure.value)
            subjects[key] = measure.subject, measure.unit
        if one.source == _MEMINFO:
            fields = {name: value for name, value, _ in one.facts}
            key = (one.subject.kind, one.subject.key, "unexplained")
            found.setdefault(key, {})[number] = float(max(0, unexplained(fields)))
            subjects[key] = one.subject, "bytes"
    series = []
    # A sum behind what it is made of.
    for key, values in sorted(found.items(), key=lambda each: each[0][2] == "used"):
        subject, unit = subjects[key]
        if (key[0], key[2]) != ("system", "used"):
            subject = replace(subject, limit=None)
        if group[0].rows and subject.kind != group[0].subject.kind:  # a row of a table
            places: Sequence[int] = range(min(values), len(group))
        else:
            places = sorted(values)
        if len(places) < 2:
            continue
        times = [_time(group[n], n, spacing_s) for n in places]
        course = np.array([values.get(n, 0.0) for n in places])
        series.append(Series(subject, key[2], unit, np.array(times, np.int64), course))
    return series


def _time(one: Snapshot, number: int, spacing_s: float | None) -> int:
    if spacing_s is not None or one.time_ns is None:
        return int(number * (spacing_s or _SPACING_S) * 1e9)
    return one.time_ns


def _by_shape(trend: Trend) -> Trend:
    """Take out of a verdict what needs times: rates, forecasts, how much longer to watch."""
    series = trend.series
    values = series.values
    steps = len(values) - 1
    change = float(values[-1] - values[0])
    verdict = trend.verdict
    if verdict is TrendVerdict.GROWING:  # how fast needs a time
        verdict = TrendVerdict.NOT_ENOUGH_DATA
    first, last = (
        amount_text(float(values[0]), series.unit),
        amount_text(float(values[-1]), series.unit),
    )
    text = f"{first} at first, {last} at last"
    if round(change):
        rose = int(np.count_nonzero(np.diff(values) > 0))
        text += f": {signed_amount(change / steps, series.unit) or 'less than 1'} a look, rose in {rose:,} of {steps:,} steps"
    if verdict is TrendVerdict.LEAK:
        text = f"rises by its shape, and its floors too: {text}"
    elif verdict is TrendVerdict.NOT_ENOUGH_DATA:
        text += f"; {plural(steps + 1, 'look')}, too few for a verdict" if steps < 30 else ""
    return replace(
        trend, verdict=verdict, sentence=text, rate=None, rate_low=None, rate_high=None,
        exhausted_in_s=None, exhausted_low_s=None, exhausted_high_s=None, more_s=None, growth=None,
    )  # fmt: skip


def _grown(group: Sequence[Snapshot]) -> list[GrownRow]:
    """Compare the rows of the first and the last look, and count the steps between."""
    named = [{row.key: row for row in reversed(one.rows)} for one in group]
    first, last = named[0], named[-1]
    steps: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for before, after in pairwise(named):
        for name in before.keys() | after.keys():
            change = _size(after.get(name)) - _size(before.get(name))
            steps[name][0] += change > 0
            steps[name][1] += change < 0
    found = []
    for name in first.keys() | last.keys():
        one, other = first.get(name), last.get(name)
        grown = GrownRow(
            next(row.name for row in (other, one) if row is not None),
            None if one is None else one.bytes,
            None if other is None else other.bytes,
            None if one is None else one.count,
            None if other is None else other.count,
            steps[name][0],
            steps[name][1],
            next((row.frames for row in (other, one) if row is not None), ()),
        )
        if grown.bytes or grown.count:
            found.append(grown)
    found.sort(key=lambda row: (-row.bytes, -row.count, row.name))
    if len(found) <= _MOST_GROWN:
        return found
    return [*found[: _MOST_GROWN // 2], *found[-_MOST_GROWN // 2 :]]


def _size(row: Row | None) -> int:
    if row is None:
        return 0
    return row.bytes if row.bytes is not None else row.count or 0


def _account(one: Snapshot) -> tuple[tuple[str, int, str], ...]:
    """Divide a machine's memory into lines that add up."""
    if one.source != _MEMINFO:
        return ()
    fields = {name: value for name, value, _ in one.facts}
    return tuple((line.name, line.bytes, line.what) for line in account(fields) if line.bytes)
