# SPDX-License-Identifier: Apache-2.0
"""What a JVM's native memory tracking prints: summary, detail, and their differences to a baseline.

    Total: reserved=1272555KB +13495KB, committed=92167KB +8915KB
    -        Thread (reserved=16430KB +5135KB, committed=1242KB +555KB)
                    (thread #16 +5)
                    (malloc=28KB +9KB #100 +30)
                    (arena=19KB +6 #32 +10)
    [0x00007f0c3f01b22d] OopMapCache::OopMapCache()+0x1d
                         (malloc=3KB type=Class +3KB #11 +11)

A difference is two tables: that of now, and the baseline. The change of an arena has no unit and
is of bytes. Categories and sites of less than one unit are left out by the JVM. Commas are of
people.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines
from leakscope.model.frames import FrameName
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Row, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakscope.formats._file import ForeignFile

__all__ = ["committed_in", "read", "recognises"]

_KNOWN = re.compile(
    rb"Native Memory Tracking(?::| is not enabled)|Baseline (?:taken|succeeded)|No baseline|Not baselined yet"
    rb"|(?:^|\n)- +[A-Z][\w ]{1,40} \(reserved=\d[\d,]{0,19}[KMG]?B?"
)
_N = r"(\d[\d,]{0,23})([KMG]?)B?"
_D = r"(?: ([+-]\d[\d,]{0,23})([KMG]?)B?)?"
_TOTAL = re.compile(rf"Total:\s+reserved={_N}{_D},\s+committed={_N}{_D}\s*")
_CATEGORY = re.compile(
    rf"-\s{{0,60}}(\S[\w /.-]{{0,60}}?)\s\(reserved={_N}{_D},\s+committed={_N}{_D}\)\s*"
)
_COUNT = re.compile(r"\s+\((thread|classes) #(\d[\d,]{0,19})(?: ([+-]\d[\d,]{0,19}))?\)\s*")
_PART = re.compile(rf"\s+\((malloc|mmap|arena|stack|tracking overhead)[=:] ?{_N}{_D}(.*)")
_COMMITTED = re.compile(rf"committed={_N}{_D}")
_BLOCKS = re.compile(r"#(\d[\d,]{0,19})(?: ([+-]\d[\d,]{0,19}))?")
_FRAME = re.compile(r"\[0x([0-9a-fA-F]{1,16})\]\s?(.{0,2000})")
_SITE = re.compile(
    rf"\s+\((malloc|mmap: reserved|reserved)={_N}(?: type=([\w -]{{1,40}}?))?{_D}(?:[ ,].*)?\)\s*"
)
_PID = re.compile(r"(\d{1,10}):\s*")
_SAID = re.compile(
    r"Native memory tracking is not enabled|Not baselined yet|No baseline|Baseline (?:taken|succeeded)"
)
_POWER = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_MOST = 1 << 50


@dataclass(slots=True)
class _Report:
    pid: int | None
    time_ns: int | None
    total: tuple[int, int] | None = None  # committed, its change
    reserved: tuple[int, int] = (0, 0)
    differs: bool = False
    categories: dict[str, list[int]] = field(default_factory=dict)
    """Committed, change, reserved, change, blocks, change; -1 blocks: not told."""
    sites: dict[tuple[FrameName, ...], list[int]] = field(default_factory=dict)
    """Bytes, change, blocks, change."""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    unit: str = ""


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is of native memory tracking."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return the tables in the file: two for a difference. Raises `RecordingError`."""
    lines = TableLines(file)
    reports: list[_Report] = []
    pid: int | None = None
    said: str | None = None
    frames: list[FrameName] = []
    category = ""
    rows = 0
    for line in lines:
        if (found := _PID.fullmatch(line)) is not None:
            pid = int(found[1])
        elif (found := _TOTAL.match(line)) is not None:
            reports.append(_Report(pid, lines.time_ns, unit=found[6]))
            _take_total(reports[-1], found)
        elif not reports:
            told = _SAID.search(line)
            said = said or (None if told is None else told[0])
        elif rows >= MOST_ROWS:
            continue
        elif (found := _CATEGORY.fullmatch(line)) is not None:
            rows += 1
            category = found[1]
            _take_category(reports[-1], found)
            frames = []
        elif (found := _FRAME.fullmatch(line.strip())) is not None:
            frames.append(_frame(found))
        elif frames:
            site = _SITE.fullmatch(line)
            if site is not None and site[1] == "malloc":
                rows += 1
                _take_site(reports[-1], tuple(frames), site, line)
            frames = []
        elif category:
            _take_part(reports[-1], category, line)
    if not reports:
        why = f": it says {said!r}" if said else ""
        raise RecordingError(
            f"{file.path} is of a JVM's native memory tracking, and has no table{why}",
            hint="Start it with -XX:NativeMemoryTracking=summary, then: jcmd PID VM.native_memory",
        )
    return tuple(one for report in reports for one in _snapshots(report, lines))


def committed_in(lines: Iterable[str]) -> dict[str, int] | None:
    """Return committed bytes by category, "Total" as well; None for lines without a table."""
    found: dict[str, int] = {}
    for line in lines:
        if (row := _CATEGORY.fullmatch(line)) is not None:
            found[row[1]] = _pair(row, 6)[0]
        elif (row := _TOTAL.match(line)) is not None:
            found["Total"] = _pair(row, 5)[0]
    return found if "Total" in found else None


def _size(number: str, unit: str) -> int:
    value = int(number.replace(",", "") or "0") * _POWER[unit]
    return max(-_MOST, min(_MOST, value))


def _pair(found: re.Match[str], at: int) -> tuple[int, int]:
    """Return the size in groups `at` and `at + 1`, and its change in the two after them."""
    change = _size(found[at + 2], found[at + 3]) if found[at + 2] else 0
    return _size(found[at], found[at + 1]), change


def _take_total(report: _Report, found: re.Match[str]) -> None:
    report.reserved, report.total = _pair(found, 1), _pair(found, 5)
    report.differs = found[3] is not None or found[7] is not None


def _take_category(report: _Report, found: re.Match[str]) -> None:
    reserved, committed = _pair(found, 2), _pair(found, 6)
    report.differs = report.differs or found[4] is not None or found[8] is not None
    report.categories[found[1]] = [*committed, *reserved, -1, 0]


def _take_part(report: _Report, category: str, line: str) -> None:
    known = report.categories.get(category)
    if (count := _COUNT.fullmatch(line)) is not None:
        change = int((count[3] or "0").replace(",", ""))
        name = "threads" if count[1] == "thread" else count[1]
        report.counts[name] = (int(count[2].replace(",", "")), change)
    elif known is not None and (part := _PART.match(line)) is not None:
        blocks = _BLOCKS.search(part[6])
        if part[1] in {"malloc", "arena"} and blocks is not None:
            known[4] = max(known[4], 0) + int(blocks[1].replace(",", ""))
            known[5] += int((blocks[2] or "0").replace(",", ""))


def _take_site(
    report: _Report, frames: tuple[FrameName, ...], found: re.Match[str], line: str
) -> None:
    size = _size(found[2], found[3])
    change = _size(found[5], found[6]) if found[5] else 0
    report.differs = report.differs or bool(found[5])
    blocks = _BLOCKS.search(line)
    held = report.sites.setdefault(frames, [0, 0, 0, 0])
    held[0] += size
    held[1] += change
    if blocks is not None:
        held[2] += int(blocks[1].replace(",", ""))
        held[3] += int((blocks[2] or "0").replace(",", ""))


def _frame(found: re.Match[str]) -> FrameName:
    name = re.sub(r"\+0x[0-9a-f]{1,16}(?=\s|$)", "", found[2]).strip()
    return FrameName(function=name or f"0x{found[1]}")


def _snapshots(report: _Report, lines: TableLines) -> list[Snapshot]:
    """Return what a report holds; where it is a difference, the baseline first."""
    whens = (True, False) if report.differs else (False,)
    found = [_categories(report, lines, before=before) for before in whens]
    if report.sites:
        found += [_sites(report, lines, before=before) for before in whens]
    return found


def _categories(report: _Report, lines: TableLines, *, before: bool) -> Snapshot:
    rows = []
    for name, (committed, change, reserved, more, blocks, others) in report.categories.items():
        minus = before
        rows.append(
            Row(
                name,
                committed - change * minus,
                None if blocks < 0 else blocks - others * minus,
                told=(("reserved", reserved - more * minus),),
            )
        )
    total, change = report.total or (0, 0)
    total -= change * before
    rest = total - sum(row.bytes or 0 for row in rows)
    if abs(rest) >= 1 << 10:
        rows.append(Row("(less than a unit, left out by the JVM)", rest))
    rows.sort(key=lambda row: (-(row.bytes or 0), row.name))
    subject = _subject(report)
    reserved, more = report.reserved
    facts = [("reserved", reserved - more * before, "bytes")]
    facts += [(name, n - more * before, "count") for name, (n, more) in report.counts.items()]
    measures = [
        Measure(Subject("nmt", row.name, row.name), "committed", "bytes", row.bytes or 0)
        for row in rows
    ]
    measures += [
        Measure(subject, name, "count", n - more * before)
        for name, (n, more) in report.counts.items()
    ]
    notes = ["native memory that libraries take by themselves is not in it"]
    if report.unit in {"M", "G"}:
        notes.append(f"figures are rounded to units of {report.unit}; scale=KB is finer")
    if before:
        notes.append("the baseline of a difference")
    return Snapshot(
        source="native memory tracking of a JVM",
        subject=subject,
        rows=tuple(rows),
        measures=tuple(measures),
        time_ns=None if report.differs else report.time_ns,
        total=total,
        of="committed",
        things="blocks",
        kind="category",
        facts=tuple(facts),
        notes=(*notes, *lines.notes()),
    )


def _sites(report: _Report, lines: TableLines, *, before: bool) -> Snapshot:
    rows = [
        Row(
            " < ".join(f.function or "?" for f in frames[:3]),
            size - change * before,
            blocks - others * before,
            frames,
        )
        for frames, (size, change, blocks, others) in report.sites.items()
    ]
    rows.sort(key=lambda row: (-(row.bytes or 0), row.name))
    return Snapshot(
        source="malloc by stack, in a JVM's native memory tracking",
        subject=_subject(report),
        rows=tuple(rows),
        measures=tuple(
            Measure(Subject("nmt_site", row.key, row.name), "held", "bytes", row.bytes or 0)
            for row in rows
        ),
        time_ns=None if report.differs else report.time_ns,
        total=sum(row.bytes or 0 for row in rows),
        total_count=sum(row.count or 0 for row in rows),
        of="by malloc",
        kind="malloc",
        notes=(
            "these are part of the categories; in a difference only what changed is listed",
            *lines.notes(),
        ),
    )


def _subject(report: _Report) -> Subject:
    return Subject("jvm", str(report.pid or "jvm"), "java", pid=report.pid)
