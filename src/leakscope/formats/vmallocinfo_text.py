# SPDX-License-Identifier: Apache-2.0
"""Saved /proc/vmallocinfo: areas of the kernel's address space, by the function that took them.

    0xffffc90000005000-0xffffc90000007000    8192 take+0x1e7/0x412 [module] pages=1 vmalloc N0=1

The addresses may be hashed. Where there are `pages`, the area has memory of its own, and a guard
page that is none; `ioremap` and `vmap` show devices and memory that others hold.
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
    from collections.abc import Sequence

    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"(?:^|\n)0x[0-9a-fA-F]{8,16}-0x[0-9a-fA-F]{8,16} +\d{1,18} [^\n]{1,400}?"
    rb"(?:vmalloc|vmap|ioremap|user|vpages|dma-coherent|vm_map_ram)"
)
_AREA = re.compile(
    r"\s*(?:0x)?([0-9a-fA-F]{8,16}|\(ptrval\))-(?:0x)?(?:[0-9a-fA-F]{8,16}|\(ptrval\))\s+(\d{1,15})(?:\s+(.*))?"
)
_CALLER = re.compile(
    r"([A-Za-z_$][\w.$]{0,200})(?:\+0x[0-9a-f]+/0x[0-9a-f]+)?(?: \[([\w-]{1,64})\])?"
)
_PAGES = re.compile(r"\bpages=(\d{1,12})\b")
_PAGE = 4096
_KERNEL = Subject("kernel", "vmalloc", "large areas of the kernel")


@dataclass(slots=True)
class _Table:
    time_ns: int | None
    callers: dict[tuple[str, str | None], list[int]] = field(default_factory=dict)
    starts: set[str] = field(default_factory=set)
    areas: int = 0
    spans: int = 0
    mapped: int = 0  # bytes of areas without pages of their own


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is of vmallocinfo."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each table in the file. Raises `RecordingError`."""
    lines = TableLines(file)
    tables: list[_Table] = []
    count, apart = 0, True
    for line in lines:
        area = _AREA.fullmatch(line)
        if area is None:
            apart = apart or bool(line.strip())
            continue
        count += 1
        if count > MOST_ROWS:
            raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} areas")
        # The same start comes again only in the next table; hashed ones are as good.
        if apart or (area[1] in tables[-1].starts and area[1] != "(ptrval)"):
            tables.append(_Table(lines.time_ns))
            apart = False
        _add(tables[-1], area)
    if not count:
        raise RecordingError(f"{file.path} has no whole line of vmallocinfo")
    return tuple(_snapshot(each, lines.notes()) for each in tables)


def _add(table: _Table, area: re.Match[str]) -> None:
    span, rest = int(area[2]), area[3] or ""
    table.starts.add(area[1])
    table.areas += 1
    table.spans += span
    pages = _PAGES.search(rest)
    if pages is None or "vmalloc" not in rest.split():
        table.mapped += span
        return
    caller = _CALLER.match(rest)
    key = (caller[1], caller[2]) if caller is not None else ("no caller", None)
    held = table.callers.setdefault(key, [0, 0, 0])
    held[0] += 1
    held[2] += span
    held[1] += int(pages[1]) * _PAGE


def _snapshot(table: _Table, notes: Sequence[str]) -> Snapshot:
    rows = [
        Row(
            name if module is None else f"{name} [{module}]",
            size,
            count,
            (FrameName(function=name, module_path=module),),
            (("address space", span),),
        )
        for (name, module), (count, size, span) in table.callers.items()
    ]
    rows.sort(key=lambda row: (-(row.bytes or 0), row.name))
    return Snapshot(
        source="/proc/vmallocinfo",
        subject=_KERNEL,
        rows=tuple(rows),
        measures=tuple(
            Measure(Subject("vmalloc", row.name, row.name), "buffers", "bytes", row.bytes or 0)
            for row in rows
        ),
        time_ns=table.time_ns,
        total=sum(row.bytes or 0 for row in rows),
        total_count=sum(row.count or 0 for row in rows),
        of="in pages of their own",
        things="areas",
        kind="vmalloc",
        facts=(
            ("areas in all", table.areas, "count"),
            ("address space of all areas, guard pages included", table.spans, "bytes"),
            ("of devices and of memory that others hold (ioremap, vmap)", table.mapped, "bytes"),
        ),
        notes=("a page is taken to be 4 KiB", *notes),
    )
