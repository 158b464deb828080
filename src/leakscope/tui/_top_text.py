# SPDX-License-Identifier: Apache-2.0
"""What the live screen of a traced process shows, as lines of text: no widget in here.

Names come from the traced program: they get here through `printable`, and no markup is read.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from leakscope.model.columns import Column
from leakscope.model.findings import Verdict
from leakscope.model.series import Series, Subject
from leakscope.report.gauges import spark
from leakscope.report.holders import place_text, render_holders
from leakscope.report.terminal import render
from leakscope.report.text import cells, clip_right, name_within, printable
from leakscope.symbols import source_context
from leakscope.words import (
    bytes_text,
    confidence_words,
    count_text,
    duration_text,
    plural,
    signed_rate,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from leakscope.model.findings import Finding, Findings
    from leakscope.model.frames import Frame
    from leakscope.model.holders import Holding
    from leakscope.workflow.top_looks import TopLook

__all__ = ["Shown", "chart", "detail", "found", "head", "headline", "held", "row", "titles"]

_COLOURS = {
    Verdict.LOST: "bold red",
    Verdict.LEAKING: "bold red",
    Verdict.GROWING: "bold yellow",
    Verdict.FILLING: "yellow",
}
_LEAST_RATE = 1.0  # bytes a second
_COURSE = 12  # columns of a sparkline
_WIDE = 120  # a terminal of so many columns shows more
_LABEL = 12  # columns to the left of the chart
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:#"
_RESIDENT, _ASCII_RESIDENT = "░", "-"
_SOURCE = 3  # lines of source on each side


class Shown:
    """One site in the table: its finding, its course, what it does now, what a scan found."""

    def __init__(self, finding: Finding, look: TopLook, lost: int = 0) -> None:
        self.finding, self.lost = finding, lost
        self.site = finding.site if finding.site is not None else -1
        rates = look.rates
        self.rate = float(rates[self.site]) if 0 <= self.site < len(rates) else finding.rate
        known = 0 <= self.site < len(look.held)
        self.held = float(look.held[self.site]) if known else float(finding.live_bytes)
        self.blocks = finding.live_count
        if known and self.blocks is not None:
            self.blocks = round(float(look.blocks[self.site]))
        self._look = look

    @property
    def place(self) -> str:
        """A short name of its place: made for what is on the screen alone, not for every site."""
        return place_text(self.finding)

    @property
    def is_leak(self) -> bool:
        """Whether it is called a leak, or a scan found lost blocks of it."""
        return self.finding.is_leak or (self.lost > 0 and self.finding.known is None)

    def course(self, width: int, *, unicode: bool) -> str:
        """What the site held over time, as bars."""
        line, now = self._look.recording.timeline, self._look.at_ns
        if not 0 <= self.site < line.site_bytes.shape[1]:
            return ""
        values = np.append(line.site_bytes[:, self.site].astype(float), self.held)
        times = np.append(line.times_ns, now)
        return spark(
            Series(Subject("site", "", ""), "held", "bytes", times, values), width, unicode=unicode
        )

    def matches(self, wanted: str) -> bool:
        """Whether what is sought, in small letters, is in its place, stack, kind or verdict."""
        finding = self.finding
        texts = [self.place, finding.verdict, finding.kind, *(str(each) for each in finding.stack)]
        return any(wanted in text.lower() for text in texts)


def titles(width: int) -> Text:
    """Return the line above the table."""
    return Text(_cells(width, "verdict", "held", "blocks", "rate", "course", "place"), "bold")


def row(shown: Shown, width: int, *, chosen: bool, unicode: bool) -> Text:
    """Return one line of the table."""
    finding = shown.finding
    verdict = "lost" if shown.lost else str(finding.verdict)
    if finding.known is not None:
        verdict = f"({verdict})"
    moves = shown.rate is not None and abs(shown.rate) >= _LEAST_RATE
    line = _cells(
        width,
        verdict,
        bytes_text(shown.held),
        count_text(shown.blocks),
        signed_rate(shown.rate or 0.0) if moves else "",
        shown.course(_COURSE, unicode=unicode),
        shown.place,
        "…" if unicode else "...",
    )
    style = (
        "" if finding.known else _COLOURS.get(Verdict.LOST if shown.lost else finding.verdict, "")
    )
    text = Text(line, no_wrap=True, end="")
    if chosen:
        text.stylize("reverse")
    elif style:
        text.stylize(style, 0, 11)
    return text


def _cells(
    width: int,
    verdict: str,
    held: str,
    blocks: str,
    rate: str,
    course: str,
    place: str,
    ellipsis: str = "",
) -> str:
    first = f" {verdict:<10}{held:>9}"
    if width >= _WIDE:
        first += f"{blocks:>12}"
    first += f"{rate:>13}  {course:<{_COURSE}}  "
    room = max(width - cells(first), 4)
    line = first + (name_within(place, room, ellipsis) if cells(place) > room else place)
    line = clip_right(line, max(width, 1), ellipsis)
    return line + " " * max(width - cells(line), 0)


def head(look: TopLook, label: str, width: int) -> Text:
    """Return whose memory it is and how much, in one line."""
    recording, findings = look.recording, look.findings
    process = recording.process
    name = PurePath(process.exe).name if process.exe else label
    parts = [f"{bytes_text(float(look.held.sum()))} held"]
    if findings.live_count is not None:
        parts[0] += f" in {plural(round(float(look.blocks.sum())), 'block')}"
    if look.rate is not None and abs(look.rate) >= _LEAST_RATE:
        parts.append(signed_rate(look.rate))
    if look.resident is not None:
        parts.append(f"resident {bytes_text(look.resident)}")
    if recording.knows(Column.DURATION):
        parts.append(f"after {duration_text(look.at_ns)}")
    if look.paused:
        parts.insert(0, "PAUSED")
    told = ", ".join(parts)
    end = f" (pid {process.pid})" if process.pid is not None else ""
    room = max(width - cells(told) - len(end) - 3, 8)
    who = clip_right(printable(name), room, "") + end
    return Text(clip_right(f" {who}  {told}", width, ""), "bold", no_wrap=True)


def headline(look: TopLook, width: int, *, unicode: bool) -> Text:
    """Return the verdict so far: that of the whole process."""
    text = f" so far: {printable(look.findings.headline)}"
    if look.ended is not None:
        text = f" ENDED: {look.ended}. {printable(look.findings.headline)}"
    if look.trouble is not None:
        text = f" cannot be read now: {printable(look.trouble)}"
    leak = any(each.is_leak for each in look.findings.findings)
    style = "bold red" if leak else ""
    return Text(clip_right(text, width, "…" if unicode else "..."), style, no_wrap=True)


def chart(look: TopLook, width: int, height: int, *, unicode: bool) -> Text:
    """Return what was held over time as bars, the highest value on top, now on the right.

    Resident memory (without files) lies behind them, where it was read and does not dwarf them.
    """
    line = look.recording.timeline
    times = np.append(line.times_ns, look.at_ns)
    values = np.append(line.live_bytes.astype(float), float(look.held.sum()))
    room = max(width - _LABEL - 1, 4)
    columns = _resampled(times, values, room)
    top = float(columns.max(initial=0.0)) or 1.0
    resident = np.zeros(room)
    if line.rss_bytes is not None:
        seen = line.rss_bytes.astype(float)
        known = seen > 0
        if known.any() and seen.max() <= top * height:
            resident = _resampled(line.times_ns[known], seen[known], room, last=look.at_ns)
            top = max(top, float(resident.max()))
    behind = _RESIDENT if unicode else _ASCII_RESIDENT
    marks = _EIGHTHS if unicode else _ASCII
    steps = len(marks) - 1
    levels = np.rint(columns / top * height * steps).astype(int)
    levels[(columns > 0) & (levels == 0)] = 1
    rows = []
    for level in reversed(range(height)):
        bars = "".join(marks[min(max(int(n) - level * steps, 0), steps)] for n in levels)
        # A cell that is empty, and at least half of it below resident memory.
        reached = resident / top * height >= level + 0.5
        bars = "".join(
            behind if bar == " " and there else bar
            for bar, there in zip(bars, reached, strict=True)
        )
        label = bytes_text(top) if level == height - 1 else ""
        if level == height - 2 and level > 0 and resident.any():
            label = f"{behind} resident"
        if level == 0 and height > 1:
            label = "held"
        rows.append(f"{label:>{_LABEL}} {bars}")
    return Text("\n".join(rows), no_wrap=True)


def _resampled(
    times: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    room: int,
    *,
    last: int | None = None,
) -> npt.NDArray[np.float64]:
    """Return the highest value of each of `room` equal spans of time; the last one before it.

    The spans end at `last`, or with the last of `times`.
    """
    end = max(int(times[-1]) if last is None else last, 1)
    at = np.minimum(np.maximum(times, 0) * room // end, room - 1)
    columns = np.full(room, -1.0)
    np.maximum.at(columns, at, values)
    known = np.flatnonzero(columns >= 0)
    before = np.searchsorted(known, np.arange(room), side="right") - 1
    found = columns[known[np.maximum(before, 0)]]
    found[before < 0] = 0.0
    found[-1] = values[-1]
    return found


def detail(shown: Shown, look: TopLook, width: int, scanned: str = "") -> list[str]:
    """Return all that is known of one site: what it does, its stack and source, what to do next."""
    finding = shown.finding
    allocs = "" if finding.allocs is None else f"{finding.allocs:,} {finding.kind}"
    frees = "" if finding.frees is None else f", {finding.frees:,} freed"
    lines = [f"{shown.place}: {allocs}{frees}"]
    words = confidence_words(finding.confidence)
    known = "" if finding.known is None else f"; known: {finding.known}"
    lines.append(f"{finding.verdict} ({words}): {finding.sentence}{known}")
    if scanned:
        lines.append(scanned)
    if finding.next_step:
        lines.append(f"Next: {finding.next_step}")
    for number, frame in enumerate(finding.stack):
        mark = ">" if frame is finding.source else " "
        lines.append(f"{mark}#{number:<2} {_frame(frame, width - 6)}")
    if not finding.stack:
        lines.append(" (no call stack was recorded)")
    if finding.source is not None:
        for number, text in source_context(finding.source, _SOURCE):
            mark = ">" if number == finding.source.line else " "
            lines.append(f"{mark}{number:>6} {text}")
    lines += [f"- {each.text}" for each in finding.evidence]
    notes = look.findings.notes
    return [printable(line) for line in (*lines, *notes[:3])]


def _frame(frame: Frame, room: int) -> str:
    if frame.artificial:
        return "(outer frames were not recorded)"
    where = f"{frame.file}:{frame.line}" if frame.file and frame.line else frame.file
    place = frame.module_path if where is None else where
    name = printable(frame.function or frame.symbol or "")
    if not name:
        at = f"+{frame.address.offset:#x}" if frame.address is not None else ""
        return f"{place or '?'}{at}"
    end = f" at {place}" if place else ""
    return name_within(name, max(room - cells(end), 16), "...") + end


def found(findings: Findings, width: int, *, unicode: bool) -> list[str]:
    """Return what a scan found, as a report has it."""
    pid = findings.process.pid
    return render(
        findings,
        width=max(width, 40),
        source_context=source_context,
        unicode=unicode,
        recording=None if pid is None else str(pid),
    ).splitlines()


def held(
    finding: Finding, holdings: Sequence[Holding], examined: int, sites: Mapping[int, Finding]
) -> list[str]:
    """Return who holds the blocks of one site."""
    return render_holders(finding, holdings, examined, sites).splitlines()
