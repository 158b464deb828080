# SPDX-License-Identifier: Apache-2.0
"""When growth is called fast: enough to look at it now, and never enough to call it a leak.

A job that loads its input looks the same as a leak for as long as it loads. *Growing fast* is
therefore `POSSIBLE` at most; a leak needs a second signal, or the time that slow growth needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.judge.kernel_causes import serves
from leakscope.model.growing import growth_of
from leakscope.model.series import TrendVerdict
from leakscope.words import amount_text, seconds_text, share_text, signed_rate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakscope.model.growth import Growth
    from leakscope.model.series import Series, Trend

__all__ = [
    "POSSIBLE",
    "fast_growers",
    "grows_fast",
    "growth_in_brief",
    "growth_now",
    "growth_words",
    "moved_by",
]

POSSIBLE = 0.6  # the confidence that growth alone can have

_LOOKS = 5
_SHORTEST_S = 15.0
_STEPS, _STEADY = 4, 0.75
_CLEAR = 0.35  # of the rate is left at its lower end when it is three standard errors from zero
_STRAIGHT = 0.5  # what slows down more is a cache that fills, or a warm-up
_PER_MINUTE = 0.05
_BYTES_PER_S = float(1 << 20)
_SOON_S = 3600.0  # until its limit
_LEAST_BYTES, _LEAST_COUNT = float(1 << 20), 8.0
_OVER_PEAK = 1.1  # a sawtooth rises as well: only what exceeds its teeth is growth
_FALLS = 3  # its floors tell, later
_NEWEST = 24  # values that tell the present of a long course
_TOLD = 0.01  # a minute
_FAR_S, _YEARS_S = 10 * 86_400.0, 10 * 365 * 86_400.0
_SUMS = {"system", "cgroup"}
_FOLLOW = {"page_tables", "mappings", "pss", "uss", "virtual"}  # what memory brings with it


def grows_fast(growth: Growth) -> bool:
    """Whether it grows steadily and so fast that nobody should wait for a verdict."""
    least = _LEAST_BYTES if growth.unit == "bytes" else _LEAST_COUNT
    seen = growth.looks >= _LOOKS and growth.since_s >= _SHORTEST_S and growth.grown >= least
    steady = (
        growth.rate_low > _CLEAR * growth.rate > 0.0
        and growth.steps >= _STEPS
        and growth.steadiness >= _STEADY
        and growth.slowing >= _STRAIGHT
        and growth.falls < _FALLS
        and growth.last >= _OVER_PEAK * growth.peak
    )
    if not seen or not steady:
        return False
    until = growth.until_limit_s
    return (
        growth.per_minute >= _PER_MINUTE
        or (growth.unit == "bytes" and growth.rate >= _BYTES_PER_S)
        or (until is not None and until <= _SOON_S)
    )


def growth_now(series: Series) -> Growth | None:
    """Measure the present: the newest values where they grow fast, else the whole course."""
    whole = growth_of(series)
    if whole is None or whole.looks <= _NEWEST or grows_fast(whole):
        return whole
    recent = growth_of(series, _NEWEST)
    return recent if recent is not None and grows_fast(recent) else whole


def growth_words(growth: Growth) -> str:
    """Say how fast, how steadily, since when, and when the limit is reached."""
    over = f"over {growth.looks:,} looks in {seconds_text(growth.watched_s)}"
    if growth.rate == 0.0:
        if growth.grown > 0.0 and growth.rose:
            return f"grew {amount_text(growth.grown, growth.unit)} and rests now, {over}"
        return f"rests {over}"
    text = signed_rate(growth.rate, growth.unit)
    if growth.rate < 0.0:
        return f"{text} {over}"
    if _TOLD <= growth.per_minute <= 1.0:
        text += f" ({share_text(growth.per_minute)} a minute)"
    text += (
        f", rose in {growth.rose} of {growth.steps} stretches, for {seconds_text(growth.since_s)}"
    )
    if growth.held_s:
        text += f" after it had held its level for {seconds_text(growth.held_s)}"
    elif growth.falls:
        text += " since it last fell"
    elif growth.from_first_look:
        text += ", since the first look"
    if growth.slowing < _STRAIGHT:
        text += ", ever slower"
    until = growth.until_limit_s
    if until is None:
        return text
    limit = f"{growth.limit_of or 'its limit'} ({amount_text(growth.limit or 0.0, growth.unit)})"
    return f"{text}; {limit} {_reached(until)}"


def growth_in_brief(growth: Growth) -> str:
    """Say the same on a line that is written at every look."""
    text = signed_rate(growth.rate, growth.unit)
    if growth.rate < 0.0:
        return text
    text += f" for {seconds_text(growth.since_s)}, steady {growth.rose}/{growth.steps}"
    until = growth.until_limit_s
    return text if until is None or until > _FAR_S else f"{text}, limit in {seconds_text(until)}"


def _reached(until_s: float) -> str:
    return "is years away" if until_s > _YEARS_S else f"is reached in {seconds_text(until_s)}"


def fast_growers(trends: Iterable[Trend]) -> list[Trend]:
    """Return what grows fast, the fastest first, without the gauges that only follow another.

    Objects of the kernel that a program's descriptors or threads bring with them follow these.
    """
    fast = [t for t in trends if t.verdict is TrendVerdict.GROWING]
    own = {t.series.subject.key for t in fast if t.series.metric not in _FOLLOW}
    leaves = [t for t in fast if t.series.subject.kind not in _SUMS]
    found = [
        t
        for t in leaves or fast
        if t.series.metric not in _FOLLOW or t.series.subject.key not in own
    ]
    found = [t for t in found if not any(serves(t, other) for other in found)]

    def rank(trend: Trend) -> tuple[bool, float]:
        rate = trend.growth.rate if trend.growth is not None else 0.0
        return trend.series.unit != "bytes", -rate

    return sorted(found, key=rank)


def moved_by(trend: Trend, trends: Iterable[Trend]) -> list[Trend]:
    """Return the gauges of the kernel that grow fast for what `trend`, a program's gauge, counts."""
    fast = [t for t in trends if t.verdict is TrendVerdict.GROWING and serves(t, trend)]
    return sorted(fast, key=lambda t: -(t.growth.rate if t.growth is not None else 0.0))
