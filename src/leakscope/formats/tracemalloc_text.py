# SPDX-License-Identifier: Apache-2.0
"""The lines that Python's tracemalloc prints of statistics: `str(Statistic)`, or of a difference.

    /tmp/tm.py:5: size=209 KiB (+209 KiB), count=420 (+420), average=509 B

Sizes of 10 KiB and more are rounded. A difference is two tables: that of now, and the first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines, size_of
from leakscope.model.frames import FrameName
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Row, Snapshot

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_SIZE = r"([\d.]{1,20} [KMGT]?i?B)"
_KNOWN = re.compile(rb"size=[\d.]{1,20} [KMGT]?i?B(?: \([+-][\d.]{1,20} [KMGT]?i?B\))?, count=\d")
_LINE = re.compile(
    rf"(?:#\d+: )?(.{{1,2000}}?)(?::(\d{{1,9}}))?: size={_SIZE}(?: \(([+-]){_SIZE}\))?,"
    r" count=(\d{1,18})(?: \(([+-]\d{1,18})\))?(?:, average=.*)?"
)


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has statistics of tracemalloc."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return the table, or the two tables of a difference. Raises `RecordingError`."""
    lines = TableLines(file, last=True)
    rows: list[tuple[str, FrameName, tuple[int, int], tuple[int, int]]] = []
    differs = False
    for line in lines:
        found = _LINE.fullmatch(line.strip())
        if found is None or len(rows) >= MOST_ROWS:
            continue
        size, change = (
            size_of(found[3].replace(" ", "")),
            size_of((found[5] or "0").replace(" ", "")),
        )
        if size is None or change is None:
            continue
        number = min(int(found[2]), 1 << 30) if found[2] else None
        name = found[1] + (f":{number}" if number is not None else "")
        change = -change if found[4] == "-" else change
        differs = differs or found[5] is not None
        place = FrameName(file=found[1], line=number, interpreter="python")
        rows.append((name, place, (size, change), (int(found[6]), int(found[7] or 0))))
    if not rows:
        raise RecordingError(f"{file.path} has no whole line of tracemalloc")
    whens = (True, False) if differs else (False,)
    return tuple(_snapshot(rows, lines, before=before) for before in whens)


def _snapshot(
    found: list[tuple[str, FrameName, tuple[int, int], tuple[int, int]]],
    lines: TableLines,
    *,
    before: bool,
) -> Snapshot:
    rows = [
        Row(name, max(size - change * before, 0), max(count - more * before, 0), (place,))
        for name, place, (size, change), (count, more) in found
    ]
    rows.sort(key=lambda row: (-(row.bytes or 0), row.name))
    return Snapshot(
        source="statistics of tracemalloc",
        subject=Subject("python", "python", "python"),
        rows=tuple(rows),
        measures=tuple(
            Measure(Subject("allocation", row.name, row.name), "held", "bytes", row.bytes or 0)
            for row in rows
        ),
        time_ns=lines.time_ns,
        total=sum(row.bytes or 0 for row in rows),
        total_count=sum(row.count or 0 for row in rows),
        of="held, about",
        kind="python",
        notes=(
            "sizes are rounded, as tracemalloc prints them; only what was printed is here",
            *lines.notes(),
        ),
    )
