# SPDX-License-Identifier: Apache-2.0
"""Saved /proc/meminfo: the memory of a machine by kind, one copy after the other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines
from leakscope.formats._text import without_prefix
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Snapshot
from leakscope.proc.meminfo import GAUGES

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(rb"MemTotal:\s{1,20}\d{1,15} kB")
_FIELD = re.compile(r"([A-Z][\w()]{1,40}):\s{1,30}(\d{1,15})( kB)?\s*")


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has a meminfo in it."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each copy of meminfo in the file. Raises `RecordingError`."""
    lines = TableLines(file, last=True)
    copies: list[tuple[int | None, dict[str, int]]] = []
    within = False
    for raw in lines:
        found = _FIELD.fullmatch(without_prefix(raw))
        if found is None:
            within = within and not raw.strip()
            continue
        if found[1] == "MemTotal":
            within = True
            if len(copies) >= MOST_ROWS:
                raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} copies of meminfo")
            copies.append((lines.time_ns, {}))
        elif not within:
            continue
        copies[-1][1].setdefault(found[1], int(found[2]) * (1024 if found[3] else 1))
    full = [each for each in copies if "MemTotal" in each[1]]
    if not full:
        raise RecordingError(f"{file.path} has a line of meminfo in it, and no whole one")
    return tuple(_snapshot(*each, lines.notes()) for each in full)


def _snapshot(time_ns: int | None, fields: dict[str, int], notes: tuple[str, ...]) -> Snapshot:
    machine = Subject("system", "machine", "the machine", limit=float(fields["MemTotal"]) or None)
    measures = [
        Measure(machine, metric, "bytes", fields[name])
        for name, metric in GAUGES.items()
        if name in fields
    ]
    free = fields.get("MemFree", 0)
    cached = max(fields.get("Cached", 0) - fields.get("Shmem", 0) + fields.get("Buffers", 0), 0)
    available = fields.get("MemAvailable", free + cached)
    measures.append(Measure(machine, "used", "bytes", fields["MemTotal"] - available))
    measures.append(Measure(machine, "page_cache", "bytes", cached))
    swap = fields.get("SwapTotal", 0) - fields.get("SwapFree", 0)
    measures.append(Measure(machine, "swap", "bytes", swap))
    pages = tuple(name for name in fields if name.startswith("HugePages_"))
    return Snapshot(
        source="/proc/meminfo",
        subject=machine,
        measures=tuple(measures),
        time_ns=time_ns,
        total=fields["MemTotal"],
        of="of memory",
        facts=tuple(
            (name, value, "count" if name in pages else "bytes") for name, value in fields.items()
        ),
        notes=notes,
    )
