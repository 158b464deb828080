# SPDX-License-Identifier: Apache-2.0
"""Saved /proc/PID/smaps, smaps_rollup and maps: the mappings of a process, and what is resident.

    5632d0b14000-5632d0b15000 r--p 00000000 fe:00 2253086     /tmp/demo/leaky
    Rss:                   4 kB

Addresses ascend within one look; where they fall, the next one begins. The fields differ from
kernel to kernel; `[rollup]` is one mapping that stands for all. maps has the lines alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Row, Snapshot

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_AREA = r"([0-9a-f]{5,16})-([0-9a-f]{5,16}) ([rwxsp-]{4}) [0-9a-f]{8,16} [0-9a-f]{1,4}:[0-9a-f]{1,6} \d{1,20}\s*(.{0,4096}?)\s*"
_KNOWN = re.compile(
    rb"(?:^|\n)[0-9a-f]{5,16}-[0-9a-f]{5,16} [rwxsp-]{4} [0-9a-f]{8,16} [0-9a-f]{1,4}:[0-9a-f]{1,6} \d{1,20}"
)
_HEADER = re.compile(_AREA)
_FIELD = re.compile(r"([A-Z]\w{1,30}):\s{1,30}(\d{1,15}) kB\s*")
_OTHERS = ("VmFlags:", "THPeligible:", "ProtectionKey:", "Name:")
_SHOWN = (
    *("Size", "Pss", "Private_Clean", "Private_Dirty", "Shared_Clean", "Shared_Dirty"),
    *("Anonymous", "Swap", "SwapPss", "AnonHugePages", "Locked", "Pss_Dirty"),
)


@dataclass(slots=True)
class _Look:
    time_ns: int | None
    sums: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    areas: dict[str, list[int]] = field(default_factory=dict)
    """By name: mappings, bytes of address space, resident, anonymous."""
    last: int = -1  # start of the newest mapping
    mappings: int = 0
    span: int = 0
    rollup: bool = False
    current: list[int] | None = None


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has mappings of a process."""
    return _KNOWN.match(head) is not None or len(_KNOWN.findall(head[:8192])) > 2


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each look at the mappings in the file. Raises `RecordingError`."""
    lines = TableLines(file)
    looks: list[_Look] = []
    count, within = 0, False
    for line in lines:
        if (area := _HEADER.fullmatch(line)) is not None:
            count += 1
            if count > MOST_ROWS:
                raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} mappings")
            start, end = int(area[1], 16), int(area[2], 16)
            if not looks or start <= looks[-1].last:
                looks.append(_Look(lines.time_ns))
            _begin(looks[-1], start, end, area[4])
            within = True
        elif not within:
            continue
        elif (found := _FIELD.fullmatch(line)) is not None:
            look, size = looks[-1], int(found[2]) * 1024
            look.sums[found[1]] += size
            if look.current is not None and found[1] in {"Rss", "Anonymous"}:
                look.current[2 if found[1] == "Rss" else 3] += size
        elif not line.startswith(_OTHERS):
            within = False
    if not looks:
        raise RecordingError(f"{file.path} has no whole mapping")
    return tuple(_snapshot(each, lines) for each in looks)


def _begin(look: _Look, start: int, end: int, path: str) -> None:
    look.last = start
    if path == "[rollup]":
        look.rollup = True
        return
    look.mappings += 1
    look.span += max(end - start, 0)
    name = path.removesuffix(" (deleted)") or "anonymous"
    look.current = look.areas.setdefault(name, [0, 0, 0, 0])
    look.current[0] += 1
    look.current[1] += max(end - start, 0)


def _snapshot(look: _Look, lines: TableLines) -> Snapshot:
    subject = Subject("process", "?", "process")
    sums, rows = look.sums, []
    resident = "Rss" in sums
    for name, (count, span, rss, anonymous) in look.areas.items():
        told = (("address space", span), ("anonymous", anonymous)) if resident else ()
        rows.append(Row(name, rss if resident else span, count, told=told))
    rows.sort(key=lambda row: (-(row.bytes or 0), row.name))
    measures = []
    if "Anonymous" in sums:
        measures.append(Measure(subject, "anon", "bytes", sums["Anonymous"]))
    elif "Private_Dirty" in sums:
        measures.append(Measure(subject, "private_dirty", "bytes", sums["Private_Dirty"]))
    elif resident:
        measures.append(Measure(subject, "rss", "bytes", sums["Rss"]))
    if "Swap" in sums:
        measures.append(Measure(subject, "swap", "bytes", sums["Swap"]))
    if not look.rollup:
        measures.append(Measure(subject, "mappings", "count", look.mappings))
    if not resident:
        measures.append(Measure(subject, "virtual", "bytes", look.span))
    facts = [(name, sums[name], "bytes") for name in _SHOWN if name in sums]
    facts += [(name, size, "bytes") for name, size in sums.items() if name not in {*_SHOWN, "Rss"}]
    if look.rollup:
        facts.insert(0, ("Rss", sums.get("Rss", 0), "bytes"))
    else:
        facts.insert(0, ("mappings", look.mappings, "count"))
    kind = "smaps_rollup" if look.rollup else "smaps" if resident else "maps"
    return Snapshot(
        source=f"/proc/PID/{kind}",
        subject=subject,
        rows=tuple(rows),
        measures=tuple(measures),
        time_ns=look.time_ns,
        total=sum(row.bytes or 0 for row in rows) if rows else sums.get("Rss"),
        total_count=look.mappings or None,
        of="resident" if resident else "of address space",
        things="mappings",
        facts=tuple(facts),
        notes=lines.notes() if resident else ("address space is no memory yet", *lines.notes()),
    )
