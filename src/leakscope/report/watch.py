# SPDX-License-Identifier: Apache-2.0
"""What a watch says at its end: verdict first, then each cause with its evidence, next command last."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from leakscope.judge.growing import fast_growers, growth_in_brief, growth_words, moved_by
from leakscope.model.series import TrendVerdict
from leakscope.report.gauges import gauge_name, home_text, spark, subject_name
from leakscope.report.ink import ALARM, CALM, WARNING
from leakscope.report.steps import step_lines
from leakscope.report.text import cells, clip_right, printable
from leakscope.words import (
    amount_text,
    bytes_text,
    count_text,
    duration_text,
    plural,
    rate_text,
    signed_amount,
    signed_rate,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from leakscope.model.census import HeapGrowth
    from leakscope.model.growth import Growth
    from leakscope.model.heap import HeapAccount
    from leakscope.model.series import Cause, Series, Standing, Trend
    from leakscope.model.watched import Watched
    from leakscope.report.ink import Ink

__all__ = [
    "cause_name",
    "following_text",
    "headline",
    "heap_lines",
    "held_lines",
    "next_text",
    "render_line",
    "render_standing",
    "render_watch",
    "to_json",
]

SCHEMA = "leakscope-watch/1"
_CAUSES = 8
_OTHERS = 8
_SCREEN = 24  # lines
_FAST = 65_536.0  # bytes a second: what find tells more of within half a minute
_DAY_S = 86400.0
_WALKED = 0.99
_IDLE = 16 << 20
_RATE = 1024.0  # bytes a second that are worth a word …
_RESERVED = 262_144.0  # … and of address space beyond the memory in it
_GROWERS, _RESERVERS = 5, 2
_SEEN = 2  # stretches, before growth is told of among many
_MOVING = (
    TrendVerdict.FILLING,
    TrendVerdict.STEP,
    TrendVerdict.WARM_UP,
    TrendVerdict.CACHE,
    TrendVerdict.SAWTOOTH,
    TrendVerdict.SEASONAL,
)


def headline(watched: Watched) -> str:
    """Return the verdict in one line."""
    after = f"after {duration_text(round(watched.watched_s * 1e9))}"
    causes, trends = watched.causes, watched.trends
    fast = fast_growers(trends)
    growing = "; ".join(_pace(trend) for trend in fast[:2])
    growing += f"; and {len(fast) - 2} more" if len(fast) > 2 else ""
    if watched.leak_count:
        every = [cause_name(cause) for cause in causes]
        every += [losing_text(heap, watched) for heap in watched.losing]
        names = every[:2]
        more = len(every) - len(names)
        text = "; ".join(names) + (f"; and {more} more" if more else "")
        text += f"; growing fast: {growing}" if fast else ""
        return f"{plural(watched.leak_count, 'leak')} {after}: {text}"
    if fast:
        return f"growing fast {after}: {growing}; no proof of a leak yet"
    short = sum(t.verdict is TrendVerdict.NOT_ENOUGH_DATA for t in trends)
    if not trends:
        return f"nothing was seen {after}"
    if short == len(trends):
        grew = _growing_slowly(watched)
        so_far = f"; so far {_pace(grew[0])}" if grew else ""
        return f"not enough data for a verdict {after}{so_far}"
    text = f"no leak among {plural(len(trends) - short, 'gauge')} {after}"
    return text + (f"; {count_text(short)} need more time" if short else "")


def losing_text(heap: HeapGrowth, watched: Watched) -> str:
    """Return which process loses how much, as two walks of its heap saw."""
    subjects = (trend.series.subject for trend in watched.trends)
    subject = next((each for each in subjects if each.pid == heap.pid), None)
    who = f"process {heap.pid}" if subject is None else subject_name(subject)
    return f"{who} loses {rate_text(heap.lost_rate)} of its heap"


def _pace(trend: Trend) -> str:
    """Return "name (pid 7), private memory 84.1 MiB +4.0 MiB/s"."""
    series, growth = trend.series, trend.growth
    rate = signed_rate(growth.rate, series.unit) if growth is not None else ""
    now = amount_text(float(series.values[-1]), series.unit)
    return f"{subject_name(series.subject)}, {gauge_name(series.metric)} {now} {rate}"


def render_line(
    seconds: float,
    gauges: Sequence[tuple[str, str, float]],
    growths: Mapping[str, Growth] | None = None,
) -> str:
    """Return one line on where the gauges (metric, unit, value) of one subject stand.

    `growths` are known from the second look on. Each gauge that moves has its rate; those that
    only follow private memory, as address space mostly does, have none.
    """
    parts = []
    anon = (growths or {}).get("anon")
    for metric, unit, value in gauges:
        growth = (growths or {}).get(metric)
        text = f"{gauge_name(metric)} {amount_text(value, unit)}"
        follows = metric in _FOLLOW and not _reserves(metric, growth, anon)
        if growth is not None and growth.rate and not follows:
            text += f" ({growth_in_brief(growth)})"
        if value:
            parts.append(text)
    return f"{seconds:8.{0 if seconds >= 10 else 1}f} s  " + ", ".join(parts)


_FOLLOW = {"page_tables", "mappings", "pss", "uss", "virtual"}


def _reserves(metric: str, growth: Growth | None, anon: Growth | None) -> bool:
    """Whether address space grows by clearly more than the memory in it."""
    if metric != "virtual" or growth is None:
        return False
    return growth.rate > 1.5 * max(0.0, anon.rate if anon is not None else 0.0) + _RESERVED


def render_standing(seconds: float, processes: int, standings: Sequence[Standing]) -> str:
    """Return one line on all that is watched: what is in use, and what grew most."""
    parts = [plural(processes, "process", "processes")]
    used = next((s for s in standings if s.metric in {"used", "working_set"}), None)
    if used is not None:
        parts.insert(0, f"{amount_text(used.last, used.unit)} in use")
    own = [s for s in standings if s.unit == "bytes" and s.subject.kind not in {"system", "cgroup"}]
    own = [s for s in own if s.metric != "virtual"]
    most = max(own, key=lambda s: s.last - s.first, default=None)
    if most is not None and most.last > most.first:
        grown = signed_amount(most.last - most.first, most.unit)
        who = printable(subject_name(most.subject))
        parts.append(f"most grown {who}, {gauge_name(most.metric)} {grown}")
    fast = max(own, key=lambda s: s.rate, default=None)
    if fast is not None and fast is most and fast.rate >= _RATE:
        parts[-1] += f", {signed_rate(fast.rate, fast.unit)} now"
    elif fast is not None and fast.rate >= _RATE:
        who = printable(subject_name(fast.subject))
        what = gauge_name(fast.metric)
        parts.append(f"fastest now {who}, {what} {signed_rate(fast.rate, fast.unit)}")
    return f"{seconds:8.{0 if seconds >= 10 else 1}f} s  " + ", ".join(parts)


def render_watch(watched: Watched, ink: Ink) -> str:
    """Return the report, ending in a newline."""
    fast = fast_growers(watched.trends)
    calm = _judged(watched.trends) and not fast
    colour = ALARM if watched.leak_count else CALM if calm else WARNING
    lines = ink.paint_all(colour, ink.wrap(f"leakscope: {headline(watched)}"))
    place = len(lines)
    for cause in watched.causes[:_CAUSES]:
        lines += ["", *_cause(cause, watched, ink)]
    if len(watched.causes) > _CAUSES:
        lines += ["", f"And {len(watched.causes) - _CAUSES} more leaks: see --json or --html."]
    for trend in fast[:_CAUSES]:
        lines += ["", *_fast(trend, watched, ink)]
    for subject, count in watched.killed:
        what = plural(count, "process", "processes")
        text = f"! The kernel killed {what}, out of memory, in {subject_name(subject)}."
        lines += ["", *ink.paint_all(ALARM, ink.wrap(text, hanging="  "))]
    lines += _growers(watched, ink)
    lines += _others(watched, ink)
    shown = {trend.series.subject.key for trend in fast[:_CAUSES]}
    shown |= {cause.trend.series.subject.key for cause in watched.causes[:_CAUSES]}
    for key, facts in watched.held.items():
        if key not in shown:
            lines += ["", *facts]
    lines += ["", *ink.wrap(watched.cost)]
    if watched.causes and watched.watched_s < _DAY_S:
        lines += ink.wrap("Note: watched for less than a day, which cannot exclude a daily rhythm.")
    lines += [line for note in watched.missing for line in ink.wrap(f"Note: could not see {note}.")]
    step = step_lines(next_text(watched), ink)
    lines += step
    rows = sum(max(1, -(-cells(line) // ink.width)) for line in lines)
    if rows > _SCREEN:  # who reads from the top sees it as well
        lines[place:place] = step
    return "\n".join(lines) + "\n"


_OPEN = (TrendVerdict.NOT_ENOUGH_DATA, TrendVerdict.GROWING)


def _judged(trends: Sequence[Trend]) -> bool:
    return any(t.verdict not in _OPEN for t in trends)


def _fast(trend: Trend, watched: Watched, ink: Ink) -> list[str]:
    series = trend.series
    now = amount_text(float(series.values[-1]), series.unit)
    who = f"{subject_name(series.subject)}, {gauge_name(series.metric)}: {now}"
    lines = ink.wrap(who, indent="FAST  ", hanging="      ")
    lines[0] = lines[0].replace("FAST", ink.paint(WARNING, "FAST"), 1)
    lines += _home(series, ink)
    bars = spark(series, unicode=ink.unicode)
    lines += ink.wrap(f"{bars} {printable(trend.sentence)}.", indent="      ")
    if moved := moved_by(trend, watched.trends):
        names = "; ".join(_pace(each) for each in moved[:4])
        lines += ink.wrap(f"The kernel keeps for it: {printable(names)}.", indent="      ")
    if trend.next_step:
        lines += step_lines(trend.next_step, ink, "      ")
    return lines + [f"      {line}" for line in watched.held.get(series.subject.key, ())]


def _growing_slowly(watched: Watched) -> list[Trend]:
    """Return what grows and has no verdict yet, the fastest first; sums only if nothing else."""
    ends = [int(t.series.times_ns[-1]) for t in watched.trends if len(t.series.times_ns)]
    newest = max(ends, default=0)  # what has ended does not grow any more
    found = [
        t
        for t in watched.trends
        if t.verdict is TrendVerdict.NOT_ENOUGH_DATA
        and t.growth is not None
        and t.growth.rate_low > 0
        and t.growth.steadiness >= 0.5
        and t.growth.steps >= _SEEN
        and int(t.series.times_ns[-1]) >= newest
        and t.series.metric not in {"page_tables", "mappings"}
    ]
    leaves = [t for t in found if t.series.subject.kind not in {"cgroup", "system"}]
    return sorted(
        leaves or found,
        key=lambda t: (t.series.unit != "bytes", -(t.growth.rate if t.growth else 0)),
    )


def _growers(watched: Watched, ink: Ink) -> list[str]:
    """The fastest growers, whatever becomes of them; and address space, which is no memory."""
    slow = _growing_slowly(watched)
    rows = [
        (t.growth.rate, t.series, growth_words(t.growth))
        for t in slow[:_GROWERS]
        if t.growth is not None
    ]
    anon = {t.series.subject.key: t.growth for t in watched.trends if t.series.metric == "anon"}
    reserved = [
        (series, growth)
        for series, growth in watched.reserved
        if _reserves("virtual", growth, anon.get(series.subject.key))
        and growth.steadiness >= 0.5
        and growth.steps >= _SEEN
    ]
    reserved.sort(key=lambda each: -each[1].rate)
    rows += [
        (growth.rate, series, "reserved address space, not resident")
        for series, growth in reserved[:_RESERVERS]
    ]
    lines = ["", "Growing, too early to say more:"] if rows else []
    for rate, series, words in rows:
        who = f"{subject_name(series.subject)}, {gauge_name(series.metric)}"
        now = amount_text(float(series.values[-1]), series.unit)
        row = f"{signed_rate(rate, series.unit):>14}  {now:>9}  {who}"
        lines.append(clip_right(row, ink.width, ink.ellipsis))
        home = home_text(series.subject)
        more = f"; {home}" if home else ""
        lines += ink.wrap(f"{printable(words)}{more}.", indent=" " * 16)
    return lines


def _home(series: Series, ink: Ink) -> list[str]:
    where = home_text(series.subject)
    return ink.wrap(where, indent="      ") if where else []


def cause_name(cause: Cause) -> str:
    """Return which gauge of whom leaks."""
    series = cause.trend.series
    alike = f" and {plural(len(cause.alike), 'process', 'processes')} alike" if cause.alike else ""
    return f"{subject_name(series.subject)}{alike}, {gauge_name(series.metric)}"


def _cause(cause: Cause, watched: Watched, ink: Ink) -> list[str]:
    trend, series = cause.trend, cause.trend.series
    now = amount_text(float(series.values[-1]), series.unit)
    bars = spark(series, unicode=ink.unicode)
    lines = ink.wrap(f"{cause_name(cause)}: {now}", indent="LEAK  ", hanging="      ")
    lines[0] = lines[0].replace("LEAK", ink.paint(ALARM, "LEAK"), 1)
    lines += _home(series, ink)
    lines += ink.wrap(f"{bars} {trend.sentence}.", indent="      ")
    if cause.alike:
        names = ", ".join(str(t.series.subject.pid) for t in cause.alike[:8])
        lines += ink.wrap(f"Alike: pids {names}.", indent="      ")
    if cause.follows:
        lines += ink.wrap(f"This moves: {following_text(cause.follows)}.", indent="      ")
    lines += [f"      {line}" for line in watched.held.get(series.subject.key, ())]
    if trend.next_step:
        lines += step_lines(trend.next_step, ink, "      ")
    return lines


def following_text(trends: Sequence[Trend]) -> str:
    """Return the names of gauges that a leak moves."""
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
    fast = fast_growers(watched.trends)
    told |= {id(t) for trend in fast for t in (trend, *moved_by(trend, watched.trends))}
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
        now = amount_text(float(series.values[-1]), series.unit)
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
        some = "All other gauges" if lines or told else "All gauges"
        lines += ["", *ink.wrap(f"{some}: {text}.")]
    return lines


def _span(series: Series) -> float:
    return float(series.values.max() - series.values.min()) if len(series.values) else 0.0


def next_text(watched: Watched) -> str:
    """Return what to do next."""
    steps = [c.trend.next_step for c in watched.causes if c.trend.next_step]
    if steps:
        return printable(steps[0])
    if watched.losing:
        return f"which sizes are lost, and which line: leakscope find {watched.losing[0].pid}"
    fast = next((t.next_step for t in fast_growers(watched.trends) if t.next_step), None)
    if fast:
        return printable(fast)
    grows = next((t for t in _growing_slowly(watched) if t.series.subject.pid is not None), None)
    if not watched.causes and grows is not None and _is_fast(grows):
        return f"leakscope find {grows.series.subject.pid}"
    waiting = [t.more_s or 0.0 for t in watched.trends if t.more_s]
    if waiting and (not _judged(watched.trends) or not watched.causes):
        longer = duration_text(round(max(waiting) * 1e9))
        subjects = {t.series.subject for t in watched.trends}
        pids = sorted({s.pid for s in subjects if s.pid is not None})
        if len(pids) in range(1, 5) and all(s.pid is not None for s in subjects):
            minutes = math.ceil(max(waiting) / 60)
            names = " ".join(map(str, pids))
            return f"for a verdict on every gauge: leakscope watch {names} --for {minutes}m"
        if any(s.kind == "system" for s in subjects):
            minutes = math.ceil(max(waiting) / 60)
            return f"for a verdict on every gauge: {watched.command} --for {minutes}m"
        return f"watch {longer} more for a verdict on every gauge"
    if watched.causes:
        return "the causes above say where to look"
    if watched.killed:
        return "see what was killed: journalctl -k -g 'out of memory'"
    if not watched.trends:
        return "nothing was seen, so nothing is known: see the names and times that were asked for"
    return "nothing to do: what was watched does not leak"


def _is_fast(trend: Trend) -> bool:
    return trend.series.unit == "bytes" and trend.growth is not None and trend.growth.rate >= _FAST


_ONE = {"descriptors": "descriptor", "point to": "points to", "threads": "thread"}


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
            number = sum(n for _, n in kinds)
            total = count_text(number)
            label = _ONE.get(what, what) if number == 1 else what
            few = ", ".join(f"{count_text(n)} {printable(kind)}" for kind, n in kinds[:5])
            more = len(kinds) - 5
            out.append(f"  {total:>9}  {label}: {few}" + (f" and {more} more" if more > 0 else ""))
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
        "leak_count": watched.leak_count,
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
        "growing_fast": [_place(trend) for trend in fast_growers(watched.trends)],
        "missing": list(watched.missing),
        "heaps": [_heap(pid, watched) for pid in sorted({*watched.heaps, *watched.unwalked})],
    }
    # A line a gauge: thousands of them stay readable, and greppable.
    rows = ",\n".join(json.dumps(_row(trend), allow_nan=False) for trend in watched.trends)
    head = json.dumps(document, indent=1, allow_nan=False)
    return f'{head[:-2]},\n "gauges": [\n{rows}\n]\n}}\n'


def _heap(pid: int, watched: Watched) -> dict[str, object]:
    heap = watched.heaps.get(pid)
    if heap is None:
        return {"pid": pid, "not_walked": printable(watched.unwalked[pid])}
    return {
        "pid": pid,
        "not_walked": None,
        "seconds": heap.seconds,
        "proves_leak": heap.proves_leak,
        "rate": heap.rate,
        "lost_rate": heap.lost_rate,
        "then": {"blocks": heap.then.blocks, "bytes": heap.then.bytes}
        | {"lost_blocks": heap.then.lost_blocks, "lost_bytes": heap.then.lost_bytes},
        "now": {"blocks": heap.now.blocks, "bytes": heap.now.bytes}
        | {"lost_blocks": heap.now.lost_blocks, "lost_bytes": heap.now.lost_bytes},
    }


def _place(trend: Trend) -> dict[str, str]:
    subject = trend.series.subject
    return {"kind": subject.kind, "key": printable(subject.key), "metric": trend.series.metric}


def _row(trend: Trend) -> dict[str, object]:
    series = trend.series
    return {
        **_place(trend),
        "name": printable(series.subject.name),
        "pid": series.subject.pid,
        "home": None if series.subject.home is None else printable(series.subject.home),
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
        "growth": None if trend.growth is None else _growth(trend.growth),
        "evidence": {name: _finite(value) for name, value in trend.evidence},
    }


def _growth(growth: Growth) -> dict[str, object]:
    return {
        "rate_per_s": _finite(growth.rate),
        "rate_low_per_s": _finite(growth.rate_low),
        "rate_high_per_s": _finite(growth.rate_high),
        "steadiness": growth.steadiness,
        "share_per_minute": _finite(growth.per_minute),
        "since_s": growth.since_s,
        "from_first_look": growth.from_first_look,
        "held_s": growth.held_s,
        "grown": growth.grown,
        "limit_of": growth.limit_of,
        "until_limit_s": _finite(growth.until_limit_s),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
