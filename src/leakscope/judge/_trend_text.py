# SPDX-License-Identifier: Apache-2.0
"""From what was measured of a series to the verdict in words, numbers and a next step."""

from __future__ import annotations

import math
from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING

from leakscope.judge.growing import POSSIBLE, growth_words
from leakscope.model.series import Series, Trend, TrendVerdict
from leakscope.words import amount_text, confidence_words, interval_text, rate_text, seconds_text

if TYPE_CHECKING:
    from leakscope.judge._look import Look
    from leakscope.model.growth import Growth

__all__ = ["trend_of"]

_FAR_OFF_S = 10 * 365 * 86_400.0


def trend_of(look: Look) -> Trend:
    """Put a look into words."""
    if look.verdict is TrendVerdict.GROWING and look.growth is not None:
        return _growing(look, look.growth)
    return replace(_judged(look), growth=look.growth)


def _growing(look: Look, growth: Growth) -> Trend:
    """What grows fast, in the unit per hour as all rates are."""
    wait = f"; for a verdict watch {seconds_text(look.more_s)} more" if look.more_s else ""
    sentence = f"{growth_words(growth)} ({confidence_words(POSSIBLE)}, {POSSIBLE:.2f}: growth alone"
    until = growth.until_limit_s
    limit = growth.limit
    known = limit is not None and until is not None
    return Trend(
        look.series,
        look.verdict,
        POSSIBLE,
        3600.0 * growth.rate,
        3600.0 * growth.rate_low,
        3600.0 * growth.rate_high,
        f"{sentence}, a job that loads its input looks the same){wait}",
        _further(look.series),
        exhausted_in_s=until,
        exhausted_low_s=(limit - growth.last) / growth.rate_high if known and limit else None,
        exhausted_high_s=(limit - growth.last) / growth.rate_low if known and limit else None,
        more_s=look.more_s,
        evidence=(
            ("steadiness", growth.steadiness),
            ("since_s", growth.since_s),
            ("held_s", growth.held_s),
            ("share_per_minute", growth.per_minute),
        ),
        growth=growth,
    )


def _judged(look: Look) -> Trend:
    series, line = look.series, look.line
    if line is None:
        wait = f"; watch {seconds_text(look.more_s)} more" if look.more_s else ""
        if look.growth is not None:
            wait = f"; so far {growth_words(look.growth)}{wait}"
        return Trend(
            series,
            look.verdict,
            0.0,
            None,
            None,
            None,
            f"not enough data: {look.why}{wait}",
            None,
            more_s=look.more_s,
        )
    half = 1.96 * line.error if math.isfinite(line.error) else abs(line.slope)
    low, high = line.slope - half, line.slope + half
    trend = Trend(
        series,
        look.verdict,
        0.0,
        line.slope,
        low,
        high,
        "",
        None,
        more_s=look.more_s,
        evidence=(
            ("mann_kendall_z", line.z),
            ("p", look.p),
            ("floor_z", look.floor_z),
            ("variance_inflation", line.inflation),
            ("window_h", look.window_h),
            *look.extra,
        ),
    )
    if look.verdict is TrendVerdict.LEAK:
        return _leak(look, trend, line.slope, low, high)
    if look.verdict is TrendVerdict.NOT_ENOUGH_DATA:
        sentence = f"not enough data: {look.why}"
        if look.more_s:
            sentence += f"; watch {seconds_text(look.more_s)} more"
        return replace(trend, confidence=0.3, sentence=sentence)
    confidence = look.sure
    if look.verdict is TrendVerdict.CACHE:
        trend = replace(
            trend,
            next_step="to be sure that it comes back: echo 2 | sudo tee /proc/sys/vm/drop_caches"
            " (slows the machine for a while), then see whether it shrank",
        )
    return replace(
        trend,
        confidence=confidence,
        sentence=f"{look.verdict}: {look.why}",
    )


def _leak(look: Look, trend: Trend, rate: float, low: float, high: float) -> Trend:
    series, unit = look.series, look.series.unit
    confidence = min(look.sure, 1.0 - look.p)
    bounds = (rate_text(per_hour / 3600.0, unit, "h") for per_hour in (low, high))
    grown = f"grew {rate_text(rate / 3600.0, unit, 'h')} ({interval_text(*bounds)}) for "
    sentence = grown + f"{seconds_text(look.window_h * 3600)}, {look.why}"
    ends: tuple[float | None, float | None, float | None] = (None, None, None)
    limit = series.subject.limit
    if limit is not None and math.isfinite(limit) and limit > look.last and rate > 0:
        left = (limit - look.last) * 3600.0
        ends = (left / rate, left / high, left / low if low > 0 else None)
        upper = seconds_text(ends[2]) if ends[2] is not None else "for ever"
        until, lower = seconds_text(left / rate), seconds_text(left / high)
        span = "" if lower == until == upper else f" ({lower} to {upper})"
        years = left / high > _FAR_OFF_S
        sentence += f"; {_bound(series)} lasts " + ("for years" if years else f"{until}{span}")
    elif limit is not None and look.last >= limit:
        sentence += f"; {_bound(series)} is used up"
        ends = (0.0, 0.0, 0.0)
    if look.window_h < 24:  # a daily rhythm is not excluded
        confidence = min(confidence, 0.95)
    sentence += f" ({confidence_words(confidence)}, {confidence:.2f})"
    return replace(
        trend,
        confidence=confidence,
        sentence=sentence,
        next_step=_next_step(series),
        exhausted_in_s=ends[0],
        exhausted_low_s=ends[1],
        exhausted_high_s=ends[2],
    )


def _bound(series: Series) -> str:
    """Name what the gauge runs into."""
    subject = series.subject
    if subject.kind in {"process", "cgroup"} and series.unit == "bytes":
        return "the memory it can get"
    if subject.kind == "system":
        return "the memory of this machine"
    return f"its limit of {amount_text(subject.limit or 0.0, series.unit)}"


def _further(series: Series) -> str | None:
    """Return the command that seeks the second signal which growth alone lacks."""
    subject = series.subject
    if subject.kind == "process" and subject.pid is not None and series.metric == "anon":
        return f"leakscope find {subject.pid}"
    return _next_step(series)


def _next_step(series: Series) -> str | None:
    """Return the command that looks further into a leak of this gauge."""
    pid, kind, name = series.subject.pid, series.subject.kind, series.subject.name
    if kind == "process" and pid is not None:
        return {
            "anon": f"leakscope scan {pid}",
            "fds": f"ls -l /proc/{pid}/fd",
            "threads": f"head -n1 /proc/{pid}/task/*/comm",
            "mappings": f"cat /proc/{pid}/maps",
            "zombies": f"ps --ppid {pid} (it does not wait for its children)",
            "children": f"ps --ppid {pid}",
            "shmem": f"grep -B1 -A3 -E 'SYSV|memfd|/dev/shm' /proc/{pid}/smaps",
        }.get(series.metric)
    if kind == "tmpfs":
        return f"du -xah -- {quote(name)} | sort -h | tail"
    if kind == "sysv":
        return "ipcs -m -p"
    if kind == "cgroup":
        return f"leakscope watch --cgroup {quote(name)}"
    if kind == "slab":
        cache = quote(series.subject.key)
        return f"see which code fills it: sudo leakscope kernel trace --cache {cache}"
    if kind == "vmalloc":
        return f"sudo grep -F -- {quote(name)} /proc/vmallocinfo"
    if kind in {"allocinfo", "page_stack"}:
        return "sudo leakscope kernel scan (whether anything still points to it)"
    if series.metric in {"unexplained", "slab_unreclaimable", "percpu", "dying_cgroups"}:
        return "sudo leakscope kernel (which code has it, as far as this kernel tells)"
    return None
