# SPDX-License-Identifier: Apache-2.0
"""What pmap prints of a process, in its forms: plain, -x, -d, -X and -XX, of old and new procps.

    7994:   ./leaky s
    Address           Kbytes     RSS   Dirty Mode  Mapping
    00005632d0b14000       4       4       0 r---- leaky
    total kB            2480    1168     104

-X has the columns that the kernel's smaps has, VmFlags with blanks in it. Some distributions
print each mapping twice, the second time with zeros. Figures are KiB.
"""

from __future__ import annotations

import re
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

_KNOWN = re.compile(
    rb"(?:^|\n)\d{1,10}: {1,8}\S[^\n]{0,4096}\r?\n(?: *Address +(?:Kbytes|Perm)|[0-9a-f]{8,16} +\d{1,15}K? )"
    rb"|(?:^|\n) *Address +(?:Kbytes +(?:PSS|RSS|Anon|Mode)|Perm +Offset +Device)"
)
_START = re.compile(r"(\d{1,10}): {1,8}(\S.{0,4096}?)\s*")
_PLAIN = re.compile(r"([0-9a-f]{8,16})\s+(\d{1,15})K\s+([rwxspR-]{4,5})\s+(.{1,4096}?)\s*")
_DEVICE = re.compile(
    r"([0-9a-f]{8,16})\s+(\d{1,15})\s+([rwxspR-]{4,5})\s+[0-9a-f]{8,16}\s+[0-9a-f]{1,4}:[0-9a-f]{1,6}\s+(.{1,4096}?)\s*"
)
_WIDE = re.compile(
    r"([0-9a-f]{8,16})((?:\s+(?:\d{1,15}|-)){2,6})\s+([rwxspR-]{4,5})\s+(.{1,4096}?)\s*"
)
_EXTENDED = re.compile(
    r"\s*([0-9a-f]{4,16}) ([rwxsp-]{4}) +([0-9a-f]{8,16}) +\S{3,9} +\d{1,20} +(\d.*)"
)
_QUIET = ("Address", "Kbytes", "RSS", "Dirty", "Mode", "Mapping")
_TOTAL = re.compile(r"\s*(?:total|mapped:?)\s+(?:kB\s+)?(\d{1,15})K?\b(.*)")
_FLAGS = "VmFlags"
_KIB = 1024


@dataclass(slots=True)
class _Map:
    pid: int | None
    name: str
    time_ns: int | None
    columns: tuple[str, ...] = ()
    rows: dict[str, list[int]] = field(default_factory=dict)
    """By mapping: number, size, resident, dirty or anonymous."""
    sums: dict[str, int] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    told: int | None = None  # size in the last line
    twice: int = 0


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is output of pmap."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each output of pmap in the file. Raises `RecordingError`."""
    lines = TableLines(file, last=True)
    maps: list[_Map] = []
    count = 0
    for line in lines:
        if (start := _START.fullmatch(line)) is not None:
            maps.append(_Map(int(start[1]), _program(start[2]), lines.time_ns))
            continue
        words = line.split()
        if words[:1] == ["Address"]:
            if not maps or maps[-1].rows:
                maps.append(_Map(None, "process", lines.time_ns))
            maps[-1].columns = tuple(words)
        elif maps and (row := _row(maps[-1], line)):
            count += row
            if count > MOST_ROWS:
                raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} mappings")
        elif maps and (total := _TOTAL.fullmatch(line)) is not None:
            maps[-1].told = int(total[1]) * _KIB
        elif maps and words and line.rstrip().endswith(" KB") and words[0].isdecimal():
            maps[-1].told = int(words[0]) * _KIB
    full = [each for each in maps if each.addresses]
    if not full:
        raise RecordingError(f"{file.path} is of pmap, and has no whole mapping")
    return tuple(_snapshot(each, lines) for each in full)


def _program(command: str) -> str:
    """Return the name of the program in a command line."""
    return command.split(" ", maxsplit=1)[0].rsplit("/", 1)[-1].rstrip(":") or command


def _row(one: _Map, line: str) -> bool:
    """Take a line; returns whether it was a mapping."""
    if (found := _EXTENDED.fullmatch(line)) is not None and "Perm" in one.columns:
        names = one.columns[one.columns.index("Size") :] if "Size" in one.columns else ()
        values, rest = {}, found[4].split()
        for name in names:
            if name in {_FLAGS, "Mapping"} or not rest or not rest[0].isdecimal():
                break
            values[name] = int(rest.pop(0)) * _KIB
        if _FLAGS in names:
            while rest and len(rest[0]) == 2 and rest[0].isalpha() and rest[0].islower():
                rest.pop(0)
        _add(one, found[1], " ".join(rest), values)
        return True
    found = _WIDE.fullmatch(line)
    if found is not None and not one.columns and len(found[2].split()) == len(_QUIET) - 3:
        one.columns = _QUIET  # -q leaves the head out
    if found is not None and "Mode" in one.columns[2:]:
        names = one.columns[1 : one.columns.index("Mode")]
        values = {
            name: int(word) * _KIB
            for name, word in zip(names, found[2].split(), strict=False)
            if word.isdecimal()
        }
        _add(one, found[1], found[4], values)
        return True
    found = _DEVICE.fullmatch(line) or _PLAIN.fullmatch(line)
    if found is None:
        return False
    size = int(found[2]) * _KIB
    shared = found[3][3:4] == "s" or found[3][1:2] != "w"
    _add(one, found[1], found[4], {"Kbytes": size, "writeable/private": 0 if shared else size})
    return True


def _add(one: _Map, address: str, mapping: str, values: dict[str, int]) -> None:
    if address in one.addresses:
        one.twice += 1
        if not any(values.values()):
            return
    one.addresses.add(address)
    for name, size in values.items():
        one.sums[name] = one.sums.get(name, 0) + size
    name = "anonymous" if mapping.strip("[] ") in {"anon", ""} else mapping
    row = one.rows.setdefault(name, [0, 0, 0, 0])
    row[0] += 1
    row[1] += values.get("Kbytes", values.get("Size", 0))
    row[2] += values.get("RSS", values.get("Rss", values.get("PSS", 0)))
    row[3] += values.get("Anonymous", values.get("Dirty", 0))


def _snapshot(one: _Map, lines: TableLines) -> Snapshot:
    subject = Subject("process", "?" if one.pid is None else str(one.pid), one.name, pid=one.pid)
    sums = one.sums
    size = sums.get("Kbytes", sums.get("Size", 0))
    resident = next((sums[name] for name in ("RSS", "Rss", "PSS") if name in sums), None)
    rows = [
        Row(
            name,
            span if resident is None else rss,
            count,
            told=() if resident is None else (("address space", span), ("dirty", dirty)),
        )
        for name, (count, span, rss, dirty) in one.rows.items()
    ]
    rows.sort(key=lambda row: (-(row.bytes or 0), row.name))
    measures = [Measure(subject, "mappings", "count", len(one.addresses))]
    for name, metric in (
        ("Anonymous", "anon"), ("Dirty", "private_dirty"), ("RSS", "rss"),
        ("writeable/private", "writable"),
    ):  # fmt: skip
        if name in sums:
            measures.append(Measure(subject, metric, "bytes", sums[name]))
            break
    facts = [("mappings", len(one.addresses), "count"), ("size", size, "bytes")]
    facts += [
        (name, value, "bytes") for name, value in sums.items() if name not in {"Kbytes", "Size"}
    ]
    notes = [*lines.notes()]
    if one.told is None:
        notes.append("the line with the total is missing: the output may be cut")
    elif one.told != size:
        notes.append(f"its total is {one.told:,} bytes, and the mappings add up to {size:,}")
    if one.twice:
        notes.append(f"listed twice by pmap, and counted once: {one.twice:,} mappings")
    if resident is None:
        notes.append("address space is no memory yet: pmap -x tells what is resident")
    return Snapshot(
        # It names what -x only calls anonymous: rows of the two are not the same.
        source="output of pmap -X" if "Perm" in one.columns else "output of pmap",
        subject=subject,
        rows=tuple(rows),
        measures=tuple(measures),
        time_ns=one.time_ns,
        total=sum(row.bytes or 0 for row in rows),
        total_count=len(one.addresses),
        of="of address space" if resident is None else "resident",
        things="mappings",
        facts=tuple(facts),
        notes=tuple(notes),
    )
