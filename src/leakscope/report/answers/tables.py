# SPDX-License-Identifier: Apache-2.0
"""The answer on saved tables of memory: who holds what, what grew, each gauge as a course."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.model.answers import AccountRow, AccountTable, Answer, Result, Tone
from leakscope.model.series import TrendVerdict
from leakscope.report import snapshots as tables
from leakscope.report.answers._parts import step_of
from leakscope.report.answers.watches import began_of, course_of, tone_of
from leakscope.report.gauges import grown
from leakscope.report.text import printable
from leakscope.words import amount_text, bytes_text, plural, signed_amount

if TYPE_CHECKING:
    from leakscope.model.series import Trend
    from leakscope.model.snapshots import Course, GrownRow, Snapshots

__all__ = ["of_snapshots"]

_ROWS, _GROWN, _COURSES = 40, 1000, 2000
_OPEN = (TrendVerdict.NOT_ENOUGH_DATA, TrendVerdict.GROWING)


def of_snapshots(found: Snapshots) -> Answer:
    """Return the answer on saved looks: leaks and growth first, then what grew in each table."""
    calm = bool(found.trends) and not any(trend.verdict in _OPEN for trend in found.trends)
    causes = {id(trend) for trend in found.causes}
    trends = sorted(
        (trend for trend in found.trends if len(trend.series.values)),
        key=lambda t: (id(t) not in causes, t.verdict in _OPEN[:1], -grown(t.series)),
    )
    fast = [t for t in trends if t.verdict is TrendVerdict.GROWING]
    results = [_trend(trend) for trend in (*found.causes, *fast)]
    rows = [
        _row(row, course, f"{at}-{number}")
        for at, course in enumerate(found.courses)
        for number, row in enumerate(course.grown)
    ]
    began = began_of(trends)
    return Answer(
        command="report",
        subject=printable(", ".join(dict.fromkeys(c.label for c in found.courses))[:200]),
        tone=Tone.ALARM if found.causes else Tone.CALM if calm else Tone.WARNING,
        headline=printable(tables.headline(found)),
        about=tuple(_about(course) for course in found.courses[:20]),
        steps=(step_of(tables.next_text(found)),),
        accounts=tuple(table for course in found.courses[:20] for table in _accounts(course)),
        results=(*results, *rows[:_GROWN]),
        left_out=max(len(rows) - _GROWN, 0) + max(len(trends) - _COURSES, 0),
        courses=tuple(course_of(trend, began) for trend in trends[:_COURSES]),
        coverage=tuple(("Note", printable(note)) for note in found.notes),
    )


def _about(course: Course) -> str:
    looks = plural(len(course.snapshots), "look")
    return printable(f"{tables.title(course.last.subject)}, from {course.last.source}: {looks}")


def _accounts(course: Course) -> list[AccountTable]:
    last = course.last
    title = printable(f"{tables.title(last.subject)}, the last look")
    if course.account:
        rows = [AccountRow(printable(n), size, printable(what)) for n, size, what in course.account]
        return [
            AccountTable(
                title, "bytes", tuple(rows), sum(r.amount for r in rows), printable(last.of)
            )
        ]
    told = sorted((row for row in last.rows if row.bytes), key=lambda row: -(row.bytes or 0))
    if not told:
        return []
    rows = [
        AccountRow(
            printable(row.name),
            row.bytes or 0,
            "" if row.count is None else f"{row.count:,} {printable(last.things)}",
        )
        for row in told[:_ROWS]
    ]
    if len(told) > _ROWS:
        rest = sum(row.bytes or 0 for row in told[_ROWS:])
        rows.append(AccountRow("all others", rest, plural(len(told) - _ROWS, "row")))
    total = sum(row.amount for row in rows)
    return [AccountTable(title, "bytes", tuple(rows), total, printable(last.of))]


def _trend(trend: Trend) -> Result:
    series = trend.series
    last = float(series.values[-1])
    is_bytes = series.unit == "bytes"
    return Result(
        key=printable(f"{series.subject.kind} {series.subject.key} {series.metric}"),
        verdict=str(trend.verdict),
        tone=tone_of(trend.verdict),
        title=printable(tables.who(series)),
        where="",
        sentence=printable(trend.sentence),
        amount=round(last) if is_bytes else None,
        amount_text=amount_text(last, series.unit),
        change=round(grown(series)) if is_bytes else None,
        count=None if is_bytes else round(last),
        rate=trend.rate / 3600 if is_bytes and trend.rate is not None else None,
        step=step_of(trend.next_step) if trend.next_step else None,
    )


def _row(row: GrownRow, course: Course, number: str) -> Result:
    change = signed_amount(row.bytes, "bytes") or "no bytes more"
    count = f", {row.count:+,} {course.last.things}" if row.count else ""
    return Result(
        key=printable(f"row-{number}-{row.name}"),
        verdict="grew" if row.bytes > 0 or (row.bytes == 0 and row.count > 0) else "shrank",
        tone=Tone.CALM,
        title=printable(row.name),
        where=printable(tables.title(course.last.subject)),
        sentence=printable(f"{change}{count}; rose in {row.rises} steps, fell in {row.falls}"),
        amount=row.last_bytes,
        amount_text="" if row.last_bytes is None else bytes_text(row.last_bytes),
        change=row.bytes,
        count=row.last_count,
    )
