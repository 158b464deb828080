# SPDX-License-Identifier: Apache-2.0
"""What is said of saved looks at memory: the verdict first, then who holds what, and what grew."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from leakscope.model.series import TrendVerdict
from leakscope.report.gauges import gauge_name, spark, subject_name
from leakscope.report.ink import ALARM
from leakscope.report.steps import step_lines
from leakscope.report.text import clip_right, printable
from leakscope.words import (
    amount_text,
    bytes_text,
    count_text,
    duration_text,
    plural,
    signed_amount,
)

if TYPE_CHECKING:
    from leakscope.model.series import Series, Subject, Trend
    from leakscope.model.snapshots import Course, GrownRow, Row, Snapshot, Snapshots
    from leakscope.report.ink import Ink

__all__ = ["headline", "next_text", "render_snapshots", "title", "to_json", "who"]

SCHEMA = "leakscope-snapshots/1"
_ROWS = 10
_OPEN = (TrendVerdict.NOT_ENOUGH_DATA, TrendVerdict.GROWING)
_QUIET = (*_OPEN, TrendVerdict.PLATEAU)
_KIND_NAMES = {"class": "class ", "nmt": "category ", "pages": "pages by "}


def headline(found: Snapshots) -> str:
    """Return the verdict in one line."""
    several = [course for course in found.courses if len(course.snapshots) > 1]
    if not several:
        what = " and ".join(dict.fromkeys(course.label for course in found.courses))
        return f"nothing is known of leaks: one look at memory shows no growth ({what})"
    looks = max(len(course.snapshots) for course in several)
    over = f"in {plural(looks, 'look')}"
    if found.causes:
        names = "; ".join(who(trend.series) for trend in found.causes[:2])
        more = f"; and {len(found.causes) - 2} more" if len(found.causes) > 2 else ""
        return f"{plural(len(found.causes), 'leak')} {over}: {names}{more}"
    fast = [t for t in found.trends if t.verdict is TrendVerdict.GROWING]
    if fast:
        return f"growing fast {over}: {who(fast[0].series)}; no proof of a leak"
    judged = [t for t in found.trends if t.verdict not in _OPEN]
    if judged:
        short = len(found.trends) - len(judged)
        text = f"no leak among {plural(len(judged), 'gauge')} {over}"
        return text + (f"; {count_text(short)} need more" if short else "")
    grown = [(row, course) for course in several for row in course.grown[:1] if row.bytes > 0]
    grown.sort(key=lambda each: -each[0].bytes)
    text = f"not enough data for a verdict {over}"
    if grown:
        text += f"; grew most: {printable(grown[0][0].name)} {signed_amount(grown[0][0].bytes, 'bytes')}"
    return text


def render_snapshots(
    found: Snapshots, ink: Ink, *, limit: int = _ROWS, show_all: bool = False
) -> str:
    """Return the report as text."""
    most = max((len(c.last.rows) for c in found.courses), default=0) if show_all else limit
    lines = ink.wrap(f"leakscope: {headline(found)}", hanging="  ")
    for trend in found.causes:
        lines += _leak(trend, ink)
    lines += step_lines(next_text(found), ink)
    for course in found.courses:
        lines += ["", *_course(course, ink, most)]
    for note in found.notes:
        lines += ink.wrap(f"Note: {printable(note)}.", hanging="  ")
    return "\n".join(lines) + "\n"


def who(series: Series) -> str:
    """Return whose gauge it is, and which."""
    subject = series.subject
    name = _KIND_NAMES.get(subject.kind, "") + subject_name(subject)
    return f"{name}, {gauge_name(series.metric)}"


def _leak(trend: Trend, ink: Ink) -> list[str]:
    series = trend.series
    now = amount_text(float(series.values[-1]), series.unit)
    lines = ink.wrap(f"{who(series)}: {now}", indent="LEAK  ", hanging="      ")
    lines[0] = lines[0].replace("LEAK", ink.paint(ALARM, "LEAK"), 1)
    bars = spark(series, unicode=ink.unicode)
    return lines + ink.wrap(f"{bars} {printable(trend.sentence)}.", indent="      ")


def next_text(found: Snapshots) -> str:
    """Return what to do next."""
    subjects = [trend.series.subject for trend in found.causes]
    subjects += [course.last.subject for course in found.courses]
    several = any(len(course.snapshots) > 1 for course in found.courses)
    kinds = {subject.kind for subject in subjects}
    if not found.causes and found.trends and all(t.verdict not in _OPEN for t in found.trends):
        return "nothing to do: what was saved does not leak"
    if found.causes or several:
        if any(course.last.kind == "category" for course in found.courses):
            return "see which stacks take it: jcmd PID VM.native_memory detail.diff"
        if "jvm" in kinds:
            return "see in a heap dump what holds the instances: jcmd PID GC.heap_dump FILE"
        if kinds & {"process", "python"}:
            return "see where it is allocated: leakscope run -- PROGRAM"
        return "see who it is, on that machine: leakscope watch"
    return (
        "save the same again later, and give both files, the older first: leakscope report OLD NEW"
    )


def _course(course: Course, ink: Ink, most: int) -> list[str]:
    last = course.last
    many = len(course.snapshots) > 1
    head = f"{title(last.subject)}, from {last.source}"
    if many:
        head += f": {plural(len(course.snapshots), 'look')}{_span(course)}, the last of them"
    lines = ink.wrap(f"{printable(head)}:", hanging="  ")
    if last.total is not None:
        total = f"{bytes_text(last.total)} ({last.total:,} bytes) {last.of}"
        if last.total_count is not None:
            total += f", {_number(last.total_count, last.things)}"
        lines += ink.wrap(f"Total: {total}", indent="  ", hanging="    ")
    elif last.total_count is not None:
        lines.append(f"  Total: {_number(last.total_count, last.things)}")
    lines += [_line(bytes_text(size), name, what, ink) for name, size, what in course.account]
    for row in last.rows[:most]:
        lines.append(_row(row, last, ink))
    if len(last.rows) > most:
        rest = last.rows[most:]
        size = sum(row.bytes or 0 for row in rest)
        lines.append(
            f"  {bytes_text(size) if size else '':>10}  in {len(rest):,} more; --all shows them"
        )
    if not course.account:
        lines += _facts(last, ink)
    if many:
        lines += _growth(course, ink, most)
        lines += _gauges(course, ink)
    for note in last.notes:
        lines += ink.wrap(f"{printable(note)}.", indent="  ", hanging="  ")
    return lines


def title(subject: Subject) -> str:
    """Return the subject as it begins a sentence."""
    name = subject_name(subject)
    return name[:1].upper() + name[1:] if subject.kind in {"kernel", "system"} else name


def _span(course: Course) -> str:
    first, last = course.snapshots[0].time_ns, course.last.time_ns
    if course.spacing_s is not None:
        return " (their times are not told; --every says how far apart they are)"
    if first is None or last is None:
        return ""
    return f" over {duration_text(last - first)}"


def _row(row: Row, table: Snapshot, ink: Ink) -> str:
    size = "" if row.bytes is None else bytes_text(row.bytes)
    count = "" if row.count is None else _number(row.count, table.things)
    told = ", ".join(f"{name} {bytes_text(value)}" for name, value in row.told if value)
    text = f"  {size:>10}  {count:>18}  {printable(row.name)}" + (f" ({told})" if told else "")
    return clip_right(text.rstrip(), ink.width, ink.ellipsis)


def _number(count: int, things: str) -> str:
    return f"{count:,} {things.removesuffix('s') if count == 1 else things}"


def _line(size: str, name: str, what: str, ink: Ink) -> str:
    return clip_right(f"  {size:>10}  {printable(name)}: {what}", ink.width, ink.ellipsis)


def _facts(one: Snapshot, ink: Ink) -> list[str]:
    facts = [f"{name} {amount_text(value, unit)}" for name, value, unit in one.facts if value]
    return ink.wrap(", ".join(facts) + ".", indent="  ", hanging="  ") if facts else []


def _growth(course: Course, ink: Ink, most: int) -> list[str]:
    up = [row for row in course.grown if row.bytes > 0 or (row.bytes == 0 and row.count > 0)]
    down = [row for row in reversed(course.grown) if row.bytes < 0]
    if not course.last.rows:
        return []
    lines = ["  Grown from the first look to the last:" if up else "  No row grew."]
    lines += [_change(row, ink) for row in up[:most]]
    if len(up) > most:
        lines.append(f"              and {len(up) - most:,} more")
    if down:
        size = sum(row.bytes for row in down)
        lines.append(f"  {plural(len(down), 'row')} shrank by {bytes_text(-size)} together")
    return lines


def _change(row: GrownRow, ink: Ink) -> str:
    count = f"{row.count:+,}" if row.count else ""
    new = " (new)" if row.first_bytes is None and row.first_count is None else ""
    text = f"  {signed_amount(row.bytes, 'bytes'):>10}  {count:>10}  {printable(row.name)}{new}"
    return clip_right(text, ink.width, ink.ellipsis)


def _gauges(course: Course, ink: Ink) -> list[str]:
    """The gauges that are no rows of the table, and those that have a verdict."""
    subject = course.last.subject
    own = [
        t for t in course.trends if t.series.subject.kind == subject.kind or not course.last.rows
    ]
    rows = [t for t in course.trends if t not in own and t.verdict not in _QUIET]
    rows.sort(key=lambda t: -float(t.series.values[-1] - t.series.values[0]))
    own += rows[:_ROWS]
    lines = []
    for trend in own:
        series = trend.series
        if not float(series.values.max()):
            continue
        bars = spark(series, 12, unicode=ink.unicode)
        now = amount_text(float(series.values[-1]), series.unit)
        name = gauge_name(series.metric)
        if trend in rows:
            name = printable(series.subject.name)
        row = f"  {now:>10}  {bars:<12}  {name}: {trend.verdict}"
        lines.append(clip_right(row, ink.width, ink.ellipsis))
        lines += ink.wrap(f"{printable(trend.sentence)}.", indent=" " * 26)
    return lines


# ---- JSON


def to_json(found: Snapshots) -> str:
    """Return everything as one JSON document; form: leakscope-snapshots-1.json."""
    document = {
        "schema": SCHEMA,
        "verdict": headline(found),
        "leak_count": len(found.causes),
        "leaks": [_place(trend) for trend in found.causes],
        "courses": [_course_json(course) for course in found.courses],
        "notes": [printable(note) for note in found.notes],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _place(trend: Trend) -> dict[str, object]:
    subject = trend.series.subject
    return {"kind": subject.kind, "key": printable(subject.key), "metric": trend.series.metric}


def _course_json(course: Course) -> dict[str, object]:
    last = course.last
    return {
        "source": last.source,
        "subject": printable(last.subject.name),
        "kind": last.subject.kind,
        "pid": last.subject.pid,
        "looks": len(course.snapshots),
        "assumed_spacing_s": course.spacing_s,
        "times_ns": [one.time_ns for one in course.snapshots[:10_000]],
        "last": _table_json(last),
        "account": [
            {"name": name, "bytes": size, "what": what} for name, size, what in course.account
        ],
        "first_total_bytes": course.snapshots[0].total,
        "first_total_count": course.snapshots[0].total_count,
        "grown": [_grown_json(row) for row in course.grown],
        "gauges": [_gauge_json(trend) for trend in course.trends],
    }


def _table_json(one: Snapshot) -> dict[str, object]:
    return {
        "total_bytes": one.total,
        "total_count": one.total_count,
        "bytes_are": one.of,
        "counted": one.things,
        "rows": [
            {
                "name": printable(row.name),
                "bytes": row.bytes,
                "count": row.count,
                **{name.replace(" ", "_"): value for name, value in row.told},
                **({"stack": [_frame_json(f) for f in row.frames]} if row.frames else {}),
            }
            for row in one.rows
        ],
        "facts": [
            {"name": printable(name), "value": value, "unit": unit}
            for name, value, unit in one.facts
        ],
        "notes": [printable(note) for note in one.notes],
    }


def _frame_json(frame: object) -> dict[str, object]:
    names = ("function", "file", "line", "module_path")
    told = ((name, getattr(frame, name)) for name in names)
    return {
        name: printable(value) if isinstance(value, str) else value
        for name, value in told
        if value is not None
    }


def _grown_json(row: GrownRow) -> dict[str, object]:
    return {
        "name": printable(row.name),
        "bytes": row.bytes,
        "count": row.count,
        "first_bytes": row.first_bytes,
        "last_bytes": row.last_bytes,
        "first_count": row.first_count,
        "last_count": row.last_count,
        "rises": row.rises,
        "falls": row.falls,
    }


def _gauge_json(trend: Trend) -> dict[str, object]:
    series = trend.series
    return {
        **_place(trend),
        "name": printable(series.subject.name),
        "unit": series.unit,
        "looks": len(series.values),
        "first": float(series.values[0]),
        "last": float(series.values[-1]),
        "verdict": str(trend.verdict),
        "confidence": trend.confidence,
        "rate_per_hour": _finite(trend.rate),
        "rate_low_per_hour": _finite(trend.rate_low),
        "rate_high_per_hour": _finite(trend.rate_high),
        "sentence": printable(trend.sentence),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
