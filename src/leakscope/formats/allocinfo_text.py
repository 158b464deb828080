# SPDX-License-Identifier: Apache-2.0
"""Saved /proc/allocinfo: what each line of the kernel's source holds (Linux 6.10 and later).

    allocinfo - version: 1.0
    #     <size>  <calls> <tag info>
           10240       10 samples/kmemleak/kmemleak-test.c:68 [kmemleak_test] func:take

A size can be negative, and in what was passed through `numfmt` has a unit. One place can come
twice; people sort the file, so that its head is anywhere. Version 2.0 adds ` accurate:no`.
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
from leakscope.words import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"allocinfo - version: \d|(?:^|\n) *-?[\d.,]{1,20}[KMGT]?i? +\d{1,18} \S{1,300}:\d{1,9}"
    rb"(?: \[[\w-]{1,64}\])? func:\S"
)
_LINE = re.compile(
    r"\s*(-?)([\d.,]{1,20}[KMGTP]?i?)\s+(\d{1,18})\s+(\S{1,400}):(\d{1,9})"
    r"(?: \[([\w-]{1,64})\])? func:(\S{1,400})(.{0,80})"
)
_KERNEL = Subject("kernel", "allocations", "allocations of the kernel")
_Key = tuple[str, int, str | None, str]


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is of allocinfo."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each table in the file. Raises `RecordingError`."""
    lines = TableLines(file)
    tables: list[tuple[int | None, dict[_Key, list[int]]]] = []
    count = inaccurate = rounded = 0
    for line in lines:
        if "allocinfo - version" in line:
            if not tables or count:  # a sorted file has its head somewhere
                tables.append((lines.time_ns, {}))
            continue
        found = _LINE.fullmatch(line)
        size = None if found is None else size_of(found[2].replace(",", ""))
        if found is None or size is None:
            continue
        count += 1
        if count > MOST_ROWS:
            raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} lines of allocinfo")
        rounded += found[2][-1] in "KMGTPi"
        inaccurate += "accurate:no" in found[8]
        if not tables:
            tables.append((lines.time_ns, {}))
        key = (found[4], int(found[5]), found[6], found[7])
        held = tables[-1][1].setdefault(key, [0, 0])
        held[0] += -size if found[1] else size
        held[1] += int(found[3])
    full = [each for each in tables if each[1]]
    if not full:
        raise RecordingError(f"{file.path} has the head of an allocinfo, and no whole line")
    if len(full) == 2 and not set(full[0][1]) & set(full[1][1]):
        # The head stood in the middle of a sorted file.
        full = [(full[0][0], full[0][1] | full[1][1])]
    notes = [*lines.notes()]
    if rounded:
        notes.append("sizes are rounded: the file went through numfmt")
    if inaccurate:
        notes.append(f"not exact, the kernel says: {plural(inaccurate, 'line')}")
    return tuple(_snapshot(*each, notes) for each in full)


def _snapshot(time_ns: int | None, held: dict[_Key, list[int]], notes: Sequence[str]) -> Snapshot:
    rows = []
    for (file, line, module, function), (size, calls) in held.items():
        name = f"{function} {file}:{line}" + (f" [{module}]" if module else "")
        place = FrameName(function=function, file=file, line=min(line, 1 << 30), module_path=module)
        rows.append(Row(name, size, calls, (place,)))
    rows.sort(key=lambda row: (-(row.bytes or 0), row.name))
    there = [row for row in rows if row.bytes or row.count]
    return Snapshot(
        source="/proc/allocinfo",
        subject=_KERNEL,
        rows=tuple(there),
        measures=tuple(
            Measure(Subject("allocation", row.name, row.name), "held", "bytes", row.bytes or 0)
            for row in rows
        ),
        time_ns=time_ns,
        total=sum(row.bytes or 0 for row in rows),
        total_count=sum(row.count or 0 for row in rows),
        of="held",
        things="blocks",
        kind="kmalloc",
        facts=(("lines of source that allocate", len(rows), "count"),),
        notes=("there is one place to an allocation, often a wrapper, and no stack", *notes),
    )
