# SPDX-License-Identifier: Apache-2.0
"""What a watch says at its end: verdict first, then each cause with its evidence, next command last."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.model.series import TrendVerdict
from leakscope.report._gauges import amount, gauge_name, signed, spark, subject_name
from leakscope.report._ink import ALARM, CALM, STEP, WARNING
from leakscope.report._text import (
    bytes_text,
    clip_right,
    count_text,
    duration_text,
    plural,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from leakscope.model.heap import HeapAccount
    from leakscope.model.series import Cause, Series, Standing, Subject, Trend
    from leakscope.report._ink import Ink

__all__ = [
    "Watched",
    "headline",
    "heap_lines",
    "held_lines",
    "render_line",
    "render_standing",
    "render_watch",
    "to_json",
]

SCHEMA = "leakscope-watch/1"
_CAUSES = 8
_OTHERS = 8
_DAY_S = 86400.0
_WALKED = 0.99
_IDLE = 16 << 20
_MOVING = (
    TrendVerdict.FILLING,
    TrendVerdict.STEP,
    TrendVerdict.WARM_UP,
    TrendVerdict.CACHE,
    TrendVerdict.SAWTOOTH,
    TrendVerdict.SEASONAL,
)


@dataclass(frozen=True, slots=True)
class Watched:
    """Everything a report on a watch shows. `held` says what a subject holds, by its key."""

    trends: Sequence[Trend]
    causes: Sequence[Cause]
    watched_s: float
    cost: str
    look_s: float = 0.0
    missing: Sequence[str] = ()
    killed: Sequence[tuple[Subject, int]] = ()  # where the kernel ran out of memory, how often
    held: Mapping[str, Sequence[str]] = field(default_factory=dict)


def headline(watched: Watched) -> str:
    """Return the verdict in one line."""
    after = f"after {duration_text(round(watched.watched_s * 1e9))}"
    causes, trends = watched.causes, watched.trends
    if causes:
        names = [_title(cause) for cause in causes[:2]]
        more = len(causes) - len(names)
        text = "; ".join(names) + (f"; and {more} more" if more else "")
        return f"{plural(len(causes), 'leak')} {after}: {text}"
    short = sum(t.verdict is TrendVerdict.NOT_ENOUGH_DATA for t in trends)
    if not trends:
        return f"nothing was seen {after}"
    if short == len(trends):
        return f"not enough data for a verdict {after}"
    text = f"no leak among {plural(len(trends) - short, 'gauge')} {after}"
    return text + (f"; {count_text(short)} need more time" if short else "")


def render_line(seconds: float, gauges: Sequence[tuple[str, str, float]]) -> str:
    """Return one line on where the gauges (metric, unit, value) of one subject stand."""
    parts = [
        f"{gauge_name(metric)} {amount(value, unit)}" for metric, unit, value in gauges if value
    ]
    return f"{seconds:8.{0 if seconds >= 10 else 1}f} s  " + ", ".join(parts)


def render_standing(seconds: float, processes: int, standings: Sequence[Standing]) -> str:
    """Return one line on all that is watched: what is in use, and what grew most."""
    parts = [plural(processes, "process", "processes")]
    used = next((s for s in standings if s.metric in {"used", "working_set"}), None)
    if used is not None:
        parts.insert(0, f"{amount(used.last, used.unit)} in use")
    own = [s for s in standings if s.unit == "bytes" and s.subject.kind not in {"system", "cgroup"}]
    most = max(own, key=lambda s: s.last - s.first, default=None)
    if most is not None and most.last > most.first:
        grown = signed(most.last - most.first, most.unit)
        who = printable(subject_name(most.subject))
        parts.append(f"most grown {who}, {gauge_name(most.metric)} {grown}")
    return f"{seconds:8.{0 if seconds >= 10 else 1}f} s  " + ", ".join(parts)


def render_watch(watched: Watched, ink: Ink) -> str:
    """Return the report, ending in a newline."""
    colour = ALARM if watched.causes else CALM if _judged(watched.trends) else WARNING
    lines = ink.paint_all(colour, ink.wrap(f"leakscope: {headline(watched)}"))
    for cause in watched.causes[:_CAUSES]:
        lines += ["", *_cause(cause, watched, ink)]
    if len(watched.causes) > _CAUSES:
        lines += ["", f"And {len(watched.causes) - _CAUSES} more leaks: see --json or --html."]
    for subject, count in watched.killed:
        what = plural(count, "process", "processes")
        text = f"! The kernel killed {what} for want of memory in {subject_name(subject)}."
        lines += ["", *ink.paint_all(ALARM, ink.wrap(text, hanging="  "))]
    lines += _others(watched, ink)
    shown = {cause.trend.series.subject.key for cause in watched.causes[:_CAUSES]}
    for key, facts in watched.held.items():
        if key not in shown:
            lines += ["", *facts]
    lines += ["", *ink.wrap(watched.cost)]
    if watched.causes and watched.watched_s < _DAY_S:
        lines += ink.wrap("Note: watched for less than a day, which cannot exclude a daily rhythm.")
    lines += [line for note in watched.missing for line in ink.wrap(f"Note: could not see {note}.")]
    lines += ink.paint_all(STEP, ink.wrap(f"Next: {_next(watched)}", hanging="      "))
    return "\n".join(lines) + "\n"


def _judged(trends: Sequence[Trend]) -> bool:
    return any(t.verdict is not TrendVerdict.NOT_ENOUGH_DATA for t in trends)


def _title(cause: Cause) -> str:
    series = cause.trend.series
    alike = f" and {plural(len(cause.alike), 'process', 'processes')} alike" if cause.alike else ""
    return f"{subject_name(series.subject)}{alike}, {gauge_name(series.metric)}"


def _cause(cause: Cause, watched: Watched, ink: Ink) -> list[str]:
    trend, series = cause.trend, cause.trend.series
    now = amount(float(series.values[-1]), series.unit)
    bars = spark(series, unicode=ink.unicode)
    lines = ink.wrap(f"{_title(cause)}: {now}", indent="LEAK  ", hanging="      ")
    lines[0] = lines[0].replace("LEAK", ink.paint(ALARM, "LEAK"), 1)
    lines += ink.wrap(f"{bars} {trend.sentence}.", indent="      ")
    if cause.alike:
        names = ", ".join(str(t.series.subject.pid) for t in cause.alike[:8])
        lines += ink.wrap(f"Alike: pids {names}.", indent="      ")
    if cause.follows:
        lines += ink.wrap(f"This moves: {_following(cause.follows)}.", indent="      ")
    lines += [f"      {line}" for line in watched.held.get(series.subject.key, ())]
    if trend.next_step:
        step = ink.wrap(f"Next: {trend.next_step}", indent="      ", hanging="            ")
        lines += ink.paint_all(STEP, step)
    return lines


def _following(trends: Sequence[Trend]) -> str:
    names: dict[str, int] = {}
    for trend in trends:
        subject, name = trend.series.subject, gauge_name(trend.series.metric)
        text = name if subject.kind == "process" else f"{name} of {subject_name(subject)}"
        names[text] = names.get(text, 0) + 1
    shown = [f"{name} (x{count})" if count > 1 else name for name, count in names.items()]
    rest = len(shown) - 5
    return ", ".join(shown[:5]) + (f" and {plural(rest, 'other gauge')}" if rest > 0 else "")


def _others(watched: Watched, ink: Ink) -> list[str]:
    """What moves and does not leak, then the numbers of the rest."""
    told = {id(t) for cause in watched.causes for t in (cause.trend, *cause.follows, *cause.alike)}
    rest = [t for t in watched.trends if id(t) not in told]
    moving = [t for t in rest if t.verdict in _MOVING and t.verdict is not TrendVerdict.STEP]
    moving += [t for t in rest if t.verdict is TrendVerdict.STEP and (t.rate or 0) >= 0]
    # Sums move with what they are made of.
    leaves = [t for t in moving if t.series.subject.kind not in {"cgroup", "system"}]
    moving = leaves or moving
    moving.sort(key=lambda t: (t.series.unit != "bytes", -_span(t.series)))
    lines: list[str] = []
    if moving:
        lines += ["", "Moving, but no leak:"]
    for trend in moving[:_OTHERS]:
        series = trend.series
        now = amount(float(series.values[-1]), series.unit)
        bars = spark(series, 12, unicode=ink.unicode)
        who = f"{subject_name(series.subject)}, {gauge_name(series.metric)}"
        row = f"{now:>10}  {bars:<12}  {who}"
        lines.append(clip_right(row, ink.width, ink.ellipsis))
        lines += ink.wrap(trend.sentence, indent=" " * 12)
    test = next((t.next_step for t in moving if t.verdict is TrendVerdict.CACHE), None)
    if test:
        lines += ink.wrap(f"About the caches, {test}.")
    counts: dict[str, int] = {}
    for trend in rest:
        counts[str(trend.verdict)] = counts.get(str(trend.verdict), 0) + 1
    if counts:
        text = ", ".join(f"{count_text(n)} {name}" for name, n in sorted(counts.items()))
        lines += ["", *ink.wrap(f"All other gauges: {text}.")]
    return lines


def _span(series: Series) -> float:
    return float(series.values.max() - series.values.min()) if len(series.values) else 0.0


def _next(watched: Watched) -> str:
    steps = [c.trend.next_step for c in watched.causes if c.trend.next_step]
    if steps:
        return printable(steps[0])
    waiting = [t.more_s or 0.0 for t in watched.trends if t.more_s]
    if waiting and (not _judged(watched.trends) or not watched.causes):
        longer = duration_text(round(max(waiting) * 1e9))
        return f"watch {longer} more for a verdict on every gauge"
    if watched.causes:
        return "the causes above say where to look"
    if watched.killed:
        return "see what was killed: journalctl -k -g 'out of memory'"
    if not watched.trends:
        return "nothing was seen, so nothing is known: see the names and times that were asked for"
    return "nothing to do: what was watched does not leak"


def held_lines(
    name: str,
    lines: Sequence[tuple[str, int, bool]],
    shares: Sequence[tuple[str, int | None]],
    counts: Sequence[tuple[str, Sequence[tuple[str, int]] | None]],
) -> list[str]:
    """Return what one process holds: its memory by kind, then descriptors and threads by name."""
    out = [f"What {printable(name)} holds now:"]
    out += [f"  {bytes_text(size):>9}  {what}" for what, size, _ in lines if size]
    known = [f"{what} {bytes_text(size)}" for what, size in shares if size is not None]
    out.append("  " + ", ".join(known))
    for what, kinds in counts:
        if kinds:
            total = count_text(sum(n for _, n in kinds))
            few = ", ".join(f"{count_text(n)} {printable(kind)}" for kind, n in kinds[:5])
            more = len(kinds) - 5
            out.append(f"  {total:>9}  {what}: {few}" + (f" and {more} more" if more > 0 else ""))
    return out


def heap_lines(heap: HeapAccount) -> list[str]:
    """Return what the heap of a process is made of, and what that means."""
    parts = heap.account
    out = [
        f"  heap of {printable(heap.allocator)}, {bytes_text(parts.heap_mapped)} mapped:",
        f"  {bytes_text(parts.live):>9}  in use, {plural(heap.blocks, 'block')}",
        f"  {bytes_text(parts.free_in_allocator):>9}  free inside the allocator",
        f"  {bytes_text(parts.top):>9}  at the end of the heap, not handed out",
        f"  {bytes_text(parts.overhead):>9}  headers and tables",
    ]
    if heap.share < _WALKED:
        out.append(f"  only {heap.share:.0%} of it could be walked".replace("%", " %"))
    idle = parts.free_in_allocator + parts.top
    if idle > max(parts.live, _IDLE):
        out.append("  More is free than in use: fragmentation or retention, not lost blocks;")
        out.append("  malloc_trim(0) in the program gives back what it can.")
    out.append(f"  (it stood still for {heap.pause_ms:.1f} ms)")
    return out


def to_json(watched: Watched) -> str:
    """Return the verdicts as one JSON document; form: leakscope-watch-1.json."""
    document: dict[str, object] = {
        "schema": SCHEMA,
        "verdict": headline(watched),
        "leak_count": len(watched.causes),
        "watched_s": watched.watched_s,
        "cpu_s_per_look": watched.look_s,
        "leaks": [
            {
                "gauge": _place(cause.trend),
                "follows": [_place(t) for t in cause.follows],
                "alike": [_place(t) for t in cause.alike],
                "next_step": printable(cause.trend.next_step or "") or None,
            }
            for cause in watched.causes
        ],
        "oom_kills": [
            {"kind": subject.kind, "key": printable(subject.key), "count": count}
            for subject, count in watched.killed
        ],
        "missing": list(watched.missing),
    }
    # A line a gauge: thousands of them stay readable, and greppable.
    rows = ",\n".join(json.dumps(_row(trend), allow_nan=False) for trend in watched.trends)
    head = json.dumps(document, indent=1, allow_nan=False)
    return f'{head[:-2]},\n "gauges": [\n{rows}\n]\n}}\n'


def _place(trend: Trend) -> dict[str, str]:
    subject = trend.series.subject
    return {"kind": subject.kind, "key": printable(subject.key), "metric": trend.series.metric}


def _row(trend: Trend) -> dict[str, object]:
    series = trend.series
    return {
        **_place(trend),
        "name": printable(series.subject.name),
        "pid": series.subject.pid,
        "unit": series.unit,
        "samples": len(series.values),
        "last": float(series.values[-1]) if len(series.values) else None,
        "limit": series.subject.limit,
        "verdict": str(trend.verdict),
        "confidence": trend.confidence,
        "rate_per_hour": _finite(trend.rate),
        "rate_low_per_hour": _finite(trend.rate_low),
        "rate_high_per_hour": _finite(trend.rate_high),
        "exhausted_in_s": _finite(trend.exhausted_in_s),
        "exhausted_low_s": _finite(trend.exhausted_low_s),
        "exhausted_high_s": _finite(trend.exhausted_high_s),
        "more_s": _finite(trend.more_s),
        "sentence": printable(trend.sentence),
        "next_step": None if trend.next_step is None else printable(trend.next_step),
        "evidence": {name: _finite(value) for name, value in trend.evidence},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
