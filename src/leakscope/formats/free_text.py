# SPDX-License-Identifier: Apache-2.0
"""What `free` prints, once or again and again (-s), in KiB, other units or for people (-h), wide (-w).

                   total        used        free      shared  buff/cache   available
    Mem:        24684092     1893656    18913612       38684     4232504    22790436
    Swap:              0           0           0

Old ones have `buffers` and `cached`, and a line `-/+ buffers/cache:`. Words are of the language of
whoever ran it; the order is not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines, size_of
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Snapshot

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_N = rb"\d{1,18}(?:[.,]\d{1,3})?(?:[KMGTP]?i?B?)"
_KNOWN = re.compile(
    rb"(?:^|\n) *total +used +free +shared|(?:^|\n)[^\s:]{2,20}: +"
    + _N
    + rb"(?: +"
    + _N
    + rb"){5,6} *\r?\n"
    rb"(?:-/\+ [^\n]{1,80}\r?\n)?[^\s:]{2,20}: +"
    + _N
    + rb" +"
    + _N
    + rb" +"
    + _N
    + rb" *(?:\r?\n|$)"
)
_NUMBER = r"\d{1,18}(?:[.,]\d{1,3})?(?:[KMGTP]?i?B?)"
_ROW = re.compile(rf"\s*(\S{{2,20}}?):((?:\s+{_NUMBER}){{3,8}})\s*")
_SIX = ("total", "used", "free", "shared", "buff/cache", "available")
_SEVEN = ("total", "used", "free", "shared", "buffers", "cache", "available")
_OLD = ("total", "used", "free", "shared", "buffers", "cached")
_MOST_MORE = 5  # rows below the memory's: low and high memory, swap, total, what may be committed


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is output of free."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each output of free in the file. Raises `RecordingError`."""
    lines = TableLines(file, last=True)
    found: list[tuple[int | None, dict[str, int], list[list[int]]]] = []
    rounded = False
    old = False
    for line in lines:
        old = "cached" in line.split() if "total" in line or "shared" in line else old
        row = _ROW.fullmatch(line)
        if row is None or row[1].startswith("-/+"):
            continue
        words = row[2].split()
        sizes = [size_of(word, 1024) for word in words]
        rounded = rounded or any(word[-1] in "KMGTPi" or "." in word for word in words)
        if any(size is None for size in sizes):
            continue
        good = [size for size in sizes if size is not None]
        if len(good) >= 6:
            names = _SEVEN if len(good) == 7 else _OLD if old else _SIX
            found.append((lines.time_ns, dict(zip(names, good, strict=False)), []))
        elif len(good) == 3 and found and len(found[-1][2]) < _MOST_MORE:
            found[-1][2].append(good)
        if len(found) > MOST_ROWS:
            raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} outputs of free")
    if not found:
        raise RecordingError(
            f"{file.path} has the head of free's output, and no whole line of memory"
        )
    notes = [*lines.notes()]
    if rounded:
        notes.append("figures are rounded, as free prints them for people")
    else:
        notes.append("figures are taken to be KiB, as free prints them without an option")
    return tuple(
        _snapshot(time_ns, memory, _swap(memory["total"], more), tuple(notes))
        for time_ns, memory, more in found
    )


def _swap(total: int, rows: list[list[int]]) -> dict[str, int]:
    """Return the row of swap among those below the memory's.

    With -l two stand before it that share the memory: what can be reached directly, and the rest.
    """
    split = len(rows) > 2 and rows[0][0] > 0 and rows[0][0] + rows[1][0] == total
    return dict(zip(_SIX, rows[2 if split else 0], strict=False)) if rows else {}


def _snapshot(
    time_ns: int | None, memory: dict[str, int], swap: dict[str, int], notes: tuple[str, ...]
) -> Snapshot:
    machine = Subject("system", "machine", "the machine", limit=float(memory["total"]) or None)
    cached = memory.get("buff/cache", 0) + memory.get("buffers", 0)
    cached += memory.get("cache", 0) + memory.get("cached", 0)
    available = memory.get("available", memory["free"] + cached)
    measures = [
        Measure(machine, "used", "bytes", max(memory["total"] - available, 0)),
        Measure(machine, "page_cache", "bytes", cached),
        Measure(machine, "shmem", "bytes", memory["shared"]),
    ]
    if swap:
        measures.append(Measure(machine, "swap", "bytes", swap["used"]))
    facts = [(name, size, "bytes") for name, size in memory.items()]
    facts += [(f"swap {name}", size, "bytes") for name, size in swap.items()]
    return Snapshot(
        source="output of free",
        subject=machine,
        measures=tuple(measures),
        time_ns=time_ns,
        total=memory["total"],
        of="of memory",
        facts=tuple(facts),
        notes=notes,
    )
