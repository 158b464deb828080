# SPDX-License-Identifier: Apache-2.0
"""The answer of a watch: what leaks, and the course of each gauge with its fitted line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from leakscope.judge.growing import fast_growers
from leakscope.model.answers import Answer, GaugeCourse, Result, Signal, Tone
from leakscope.model.series import TrendVerdict
from leakscope.report.answers._parts import step_of
from leakscope.report.gauges import gauge_name, home_text, subject_name
from leakscope.report.text import printable
from leakscope.report.watch import cause_name, following_text, headline, next_text
from leakscope.words import (
    amount_text,
    duration_text,
    interval_text,
    plural,
    rate_text,
    seconds_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.series import Cause, Series, Trend
    from leakscope.model.watched import Watched

__all__ = ["began_of", "course_of", "of_watch", "step_of", "tone_of"]

_MOST_COURSES = 2000
_ALIKE = 20
_MOST_POINTS = 1500  # of one course: more than a screen has columns
_FITTED = frozenset({TrendVerdict.LEAK, TrendVerdict.GROWING, TrendVerdict.FILLING})
_TONES = {
    TrendVerdict.LEAK: Tone.ALARM,
    TrendVerdict.GROWING: Tone.WARNING,
    TrendVerdict.FILLING: Tone.WARNING,
    TrendVerdict.NOT_ENOUGH_DATA: Tone.WARNING,
}


def of_watch(watched: Watched, command: str = "watch") -> Answer:
    """Return the answer of a watch; the courses of what leaks come first, then the biggest."""
    trends = _ordered(watched)
    began = began_of(trends)
    results = [_cause(cause, watched) for cause in watched.causes]
    results += [_trend(trend, watched) for trend in fast_growers(watched.trends)]
    step = next_text(watched)
    notes = [("Note", f"could not see {each}") for each in watched.missing]
    killed = tuple(
        printable(f"The kernel killed {count}, out of memory, in {subject_name(subject)}.")
        for subject, count in watched.killed
    )
    loud = any(t.verdict is not TrendVerdict.NOT_ENOUGH_DATA for t in watched.trends)
    calm = loud and not fast_growers(watched.trends)
    return Answer(
        command=command,
        subject=_subject(watched),
        tone=Tone.ALARM if watched.leak_count else Tone.CALM if calm else Tone.WARNING,
        headline=printable(headline(watched)),
        about=(f"watched for {duration_text(round(watched.watched_s * 1e9))}",),
        warnings=killed,
        steps=(step_of(step),),
        results=tuple(results),
        courses=tuple(
            course_of(trend, began, watched.held.get(trend.series.subject.key, ()))
            for trend in trends[:_MOST_COURSES]
        ),
        left_out=max(len(trends) - _MOST_COURSES, 0),
        coverage=tuple((name, printable(text)) for name, text in [("Cost", watched.cost), *notes]),
    )


def began_of(trends: Sequence[Trend]) -> int:
    """Return when the first of them was seen, in the nanoseconds of their times."""
    return min((int(t.series.times_ns[0]) for t in trends if len(t.series.times_ns)), default=0)


def tone_of(verdict: TrendVerdict) -> Tone:
    """Return how bad a verdict on a gauge is."""
    return _TONES.get(verdict, Tone.CALM)


def _subject(watched: Watched) -> str:
    names = {subject_name(trend.series.subject) for trend in watched.trends}
    return names.pop() if len(names) == 1 else f"{len(names):,} processes and other subjects"


def _ordered(watched: Watched) -> list[Trend]:
    told = {id(cause.trend): n for n, cause in enumerate(watched.causes)}

    def rank(trend: Trend) -> tuple[int, bool, bool, bool, float]:
        series = trend.series
        last = float(series.values[-1]) if len(series.values) else 0.0
        return (
            told.get(id(trend), len(told)),
            trend.verdict is not TrendVerdict.LEAK,
            trend.verdict is not TrendVerdict.GROWING,
            series.unit != "bytes",
            -last,
        )

    return sorted(watched.trends, key=rank)


def _key(trend: Trend) -> str:
    return printable(f"{trend.series.subject.key} {trend.series.metric}")


def _cause(cause: Cause, watched: Watched) -> Result:
    trend, series = cause.trend, cause.trend.series
    lines = []
    if cause.alike:
        pids = ", ".join(str(t.series.subject.pid) for t in cause.alike[:_ALIKE])
        lines.append(f"Alike: {plural(len(cause.alike), 'process', 'processes')}, pids {pids}")
    if cause.follows:
        lines.append(f"This moves: {following_text(cause.follows)}")
    return _result(trend, cause_name(cause), [*lines, *watched.held.get(series.subject.key, ())])


def _trend(trend: Trend, watched: Watched) -> Result:
    series = trend.series
    name = f"{subject_name(series.subject)}, {gauge_name(series.metric)}"
    return _result(trend, name, watched.held.get(series.subject.key, ()))


def _result(trend: Trend, name: str, lines: Sequence[str]) -> Result:
    series = trend.series
    last = float(series.values[-1]) if len(series.values) else 0.0
    is_bytes = series.unit == "bytes"
    rate = trend.rate / 3600 if trend.rate is not None else None
    if rate is None and trend.growth is not None:
        rate = trend.growth.rate
    return Result(
        key=_key(trend),
        verdict=str(trend.verdict),
        tone=_TONES.get(trend.verdict, Tone.CALM),
        title=printable(name),
        where=home_text(series.subject),
        sentence=printable(trend.sentence),
        amount=round(last) if is_bytes and math.isfinite(last) else None,
        amount_text=amount_text(last, series.unit),
        count=None if is_bytes or not math.isfinite(last) else round(last),
        rate=rate if is_bytes else None,
        step=step_of(trend.next_step) if trend.next_step else None,
        evidence=tuple(
            Signal(f"{printable(what).replace('_', ' ')}: {value:.4g}", supports=True)
            for what, value in trend.evidence
        ),
        lines=tuple(printable(line) for line in lines),
    )


def course_of(
    trend: Trend, began: int, facts: Sequence[str] = (), *, name: str | None = None
) -> GaugeCourse:
    """Return the course of one gauge from `began` on, with its verdict, its line and its limit."""
    series = trend.series
    times, values = _thinned(series)
    limit, text = _limit(trend)
    return GaugeCourse(
        name=gauge_name(series.metric) if name is None else printable(name),
        subject=subject_name(series.subject),
        verdict=str(trend.verdict),
        tone=_TONES.get(trend.verdict, Tone.CALM),
        unit=series.unit,
        times_ns=times - began,
        values=values,
        sentence=printable(trend.sentence),
        step=step_of(trend.next_step) if trend.next_step else None,
        cuts=tuple((cut.time_ns - began, printable(cut.reason)) for cut in series.cuts),
        fit=_fit(trend, began),
        limit=limit,
        limit_text=text,
        facts=tuple(printable(line) for line in facts),
    )


def _thinned(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Return times and values that are numbers; of very many, the lowest and highest of each part."""
    times, values = series.times_ns.astype(np.int64), series.values.astype(np.float64)
    good = np.isfinite(values)
    times, values = times[good], values[good]
    if len(values) <= _MOST_POINTS:
        return times, values
    edges = np.linspace(0, len(values), _MOST_POINTS // 2 + 1).astype(np.int64)
    kept = {0, len(values) - 1}
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = values[low:high]
        kept |= {low + int(part.argmin()), low + int(part.argmax())}
    chosen = np.array(sorted(kept))
    return times[chosen], values[chosen]


def _fit(trend: Trend, began: int) -> tuple[tuple[int, float, float, float], ...]:
    """Return the fitted line by its ends: through the median of the newest course, with its rate."""
    growth = trend.growth
    per_s = [
        rate / 3600 for rate in (trend.rate, trend.rate_low, trend.rate_high) if rate is not None
    ]
    if len(per_s) < 3 and growth is not None:
        per_s = [growth.rate, growth.rate_low, growth.rate_high]
    if trend.verdict not in _FITTED or len(per_s) != 3 or not all(map(math.isfinite, per_s)):
        return ()
    times, values = trend.series.newest_course()
    if len(times) < 2:
        return ()
    since = times[-1] - int(growth.since_s * 1e9) if growth is not None else times[0]
    chosen = times >= max(since, times[0])
    times, values = times[chosen], values[chosen]
    if len(times) < 2:
        return ()
    seconds = (times - times[0]) / 1e9
    rate, low, high = per_s
    level = float(np.median(values - rate * seconds))
    middle = float(seconds.mean())
    found = []
    for at in (0.0, float(seconds[-1])):
        value, away = level + rate * at, at - middle
        ends = sorted((value + (low - rate) * away, value + (high - rate) * away))
        found.append((int(times[0]) - began + int(at * 1e9), value, ends[0], ends[1]))
    return tuple(found)


def _limit(trend: Trend) -> tuple[float | None, str]:
    subject, series = trend.series.subject, trend.series
    if subject.limit is None or not math.isfinite(subject.limit):
        return None, ""
    text = f"{amount_text(subject.limit, series.unit)}"
    text += f", {printable(subject.limit_of)}" if subject.limit_of else ", its limit"
    if trend.exhausted_in_s is not None and math.isfinite(trend.exhausted_in_s):
        text += f", reached in {seconds_text(trend.exhausted_in_s)}"
        ends = (trend.exhausted_low_s, trend.exhausted_high_s)
        low, high = (seconds_text(e) if e is not None and math.isfinite(e) else "" for e in ends)
        text += f" ({interval_text(low, high)})" if low and high else ""
    elif trend.growth is not None and trend.growth.until_limit_s is not None:
        text += f", reached in {seconds_text(trend.growth.until_limit_s)} at this rate"
        text += f" of {rate_text(trend.growth.rate, series.unit)}"
    return float(subject.limit), text
