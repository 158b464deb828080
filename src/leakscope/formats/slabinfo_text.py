# SPDX-License-Identifier: Apache-2.0
"""Saved /proc/slabinfo, and what `slabtop -o` prints: the kernel's caches of objects.

    slabinfo - version: 2.1
    dentry  232113 232113 192 21 1 : tunables 0 0 0 : slabdata 11053 11053 0

Objects in use, objects, bytes and objects of a slab, pages of one, and after `slabdata` slabs in
use and slabs. A page is taken to be 4 KiB: the file does not tell. Several in one file each
begin with the version; slabtop shows them with their sizes in K.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines, size_of
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Row, Snapshot
from leakscope.proc.slabinfo import parse_slabinfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"slabinfo - version: [12]\.\d|\d{1,18} +: tunables +\d{1,18} +\d{1,18} +\d{1,18} : slabdata"
    rb"|OBJS +ACTIVE +USE +OBJ SIZE +SLABS +OBJ/SLAB +CACHE SIZE +NAME"
    rb"|(?:^|\n)Cache +Num +Total +Size +Pages"
)
_VMSTAT, _VMSTAT_HEAD = "vmstat -m", ["Cache", "Num", "Total", "Size", "Pages"]
_VMSTAT_ROW = re.compile(r"(\S.{0,200}?)\s+(\d{1,12})\s+(\d{1,12})\s+(\d{1,12})\s+\d{1,12}\s*")
_TOP = re.compile(
    r"\s*(\d{1,18})\s+(\d{1,18})\s+\d{1,3}%\s+([\d.,]{1,20}K)\s+(\d{1,18})\s+\d{1,9}\s+(\d{1,18}K)\s+(\S.{0,200}?)\s*"
)
_PAGE = 4096
_MACHINE = Subject("kernel", "slab", "the kernel's caches of objects")
_RECLAIMABLE = ("dentry", "buffer_head", "radix_tree_node")


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is of slabinfo or slabtop."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each table in the file. Raises `RecordingError`."""
    lines = TableLines(file)
    tables: list[tuple[int | None, str, dict[str, tuple[int, int]]]] = []
    count = 0
    for line in lines:
        if line.startswith("slabinfo - version") or "OBJ/SLAB" in line:
            if tables and not tables[-1][2]:
                tables.pop()  # a head without a table
            tables.append((lines.time_ns, "slabtop" if "OBJ/SLAB" in line else "slabinfo", {}))
            continue
        if line.startswith("Cache ") and line.split() == _VMSTAT_HEAD:
            # It comes again on every screen.
            if not tables or tables[-1][1] != _VMSTAT:
                tables.append((lines.time_ns, _VMSTAT, {}))
            continue
        source = tables[-1][1] if tables else "slabinfo"
        found = _vmstat_row(line) if source == _VMSTAT else _row(line)
        if found is None or count >= MOST_ROWS:
            continue
        count += 1
        name, held, size = found
        if not tables or (name in tables[-1][2] and "slabtop" not in tables[-1][1]):
            tables.append((lines.time_ns, source, {}))
        before = tables[-1][2].get(name, (0, 0))
        tables[-1][2][name] = (before[0] + held, before[1] + size)
    if not count:
        raise RecordingError(
            f"{file.path} has the head of a slabinfo, and no whole line of a cache"
        )
    return tuple(_snapshot(*each, lines.notes()) for each in tables if each[2])


def _vmstat_row(line: str) -> tuple[str, int, int] | None:
    """Return the same of a line of vmstat -m: objects of the cache by the bytes of one."""
    row = _VMSTAT_ROW.fullmatch(line)
    return None if row is None else (row[1], int(row[2]), int(row[3]) * int(row[4]))


def _row(line: str) -> tuple[str, int, int] | None:
    """Return the name of a cache, its objects in use and its bytes."""
    if ": slabdata" in line:
        slabs = parse_slabinfo(line.strip(), _PAGE)
        return (slabs[0].name, slabs[0].active, slabs[0].bytes) if slabs else None
    top = _TOP.fullmatch(line)
    size = None if top is None else size_of(top[5])
    return None if top is None or size is None else (top[6], int(top[2]), size)


def _snapshot(
    time_ns: int | None, source: str, caches: dict[str, tuple[int, int]], notes: Sequence[str]
) -> Snapshot:
    rows = sorted(
        (Row(name, size, held) for name, (held, size) in caches.items()),
        key=lambda row: (-(row.bytes or 0), row.name),
    )
    own = ["of caches with like objects the kernel keeps one, under one of their names"]
    if source == "slabinfo":
        own.append("a page is taken to be 4 KiB")
    return Snapshot(
        source=f"/proc/{source}" if source == "slabinfo" else f"output of {source}",
        subject=_MACHINE,
        rows=tuple(rows),
        measures=tuple(
            Measure(Subject("slab", row.name, row.name), _metric(row.name), "bytes", row.bytes or 0)
            for row in rows
        ),
        time_ns=time_ns,
        total=sum(row.bytes or 0 for row in rows),
        total_count=sum(row.count or 0 for row in rows),
        of="in slabs",
        things="objects",
        kind="slab",
        notes=(*own, *notes),
    )


def _metric(name: str) -> str:
    """Of a saved file only the name tells whether the kernel gives a cache back."""
    return "reclaimable" if name in _RECLAIMABLE or "inode" in name else "unreclaimable"
