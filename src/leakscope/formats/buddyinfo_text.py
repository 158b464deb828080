# SPDX-License-Identifier: Apache-2.0
"""Saved /proc/buddyinfo: free blocks of 1, 2, 4, … pages in each zone of memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Row, Snapshot

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(rb"(?:^|\n)Node \d{1,4}, zone +\w{1,16}(?: +\d{1,15}){8,16} *\r?\n")
_ZONE = re.compile(r"Node (\d{1,4}), zone +(\w{1,16})((?: +\d{1,15}){8,16}) *")
_PAGE = 4096


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is of buddyinfo."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each table in the file. Raises `RecordingError`."""
    lines = TableLines(file)
    tables: list[tuple[int | None, dict[str, list[int]]]] = []
    for line in lines:
        found = _ZONE.fullmatch(line)
        if found is None:
            continue
        name = f"node {found[1]}, zone {found[2]}"
        if not tables or name in tables[-1][1]:
            if len(tables) >= MOST_ROWS:
                raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} tables")
            tables.append((lines.time_ns, {}))
        tables[-1][1][name] = [int(word) for word in found[3].split()]
    if not tables:
        raise RecordingError(f"{file.path} has no whole line of buddyinfo")
    return tuple(_snapshot(*each, lines.notes()) for each in tables)


def _snapshot(time_ns: int | None, zones: dict[str, list[int]], notes: tuple[str, ...]) -> Snapshot:
    machine = Subject("system", "machine", "the machine")
    rows = tuple(
        Row(name, sum(count << order for order, count in enumerate(blocks)) * _PAGE, sum(blocks))
        for name, blocks in zones.items()
    )
    free = sum(row.bytes or 0 for row in rows)
    most = max(map(len, zones.values()))
    orders = [sum(z[n] for z in zones.values() if n < len(z)) for n in range(most)]
    return Snapshot(
        source="/proc/buddyinfo",
        subject=machine,
        rows=rows,
        measures=(Measure(machine, "free", "bytes", free),),
        time_ns=time_ns,
        total=free,
        total_count=sum(row.count or 0 for row in rows),
        of="free",
        facts=tuple(
            (f"free blocks of {1 << n} pages", count, "count") for n, count in enumerate(orders)
        ),
        notes=("a page is taken to be 4 KiB", *notes),
    )
