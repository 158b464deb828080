# SPDX-License-Identifier: Apache-2.0
"""What `free` prints, once or again and again (-s), in KiB, other units or for people (-h), wide (-w).

                   total        used        free      shared  buff/cache   available
    Mem:        24684092     1893656    18913612       38684     4232504    22790436
    Swap:              0           0           0

Old ones have `buffers` and `cached`, and a line `-/+ buffers/cache:`. Words are of the language of
whoever ran it; the order is not. The unit that an option asked for is not told: `_units` finds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines, size_of
from leakscope.formats._units import unit_of
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
_MOST_FIGURES = 1000  # that are looked at for their unit
_MOST_MORE = 5  # rows below the memory's: low and high memory, swap, total, what may be committed


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is output of free."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each output of free in the file. Raises `RecordingError`."""
    lines = TableLines(file, last=True)
    found: list[_Look] = []
    rounded = False
    old = False
    for line in lines:
        old = "cached" in line.split() if "total" in line or "shared" in line else old
        row = _ROW.fullmatch(line)
        if row is None or row[1].startswith("-/+"):
            continue
        words = row[2].split()
        plain = all(word.isdecimal() for word in words)
        sizes = [size_of(word) for word in words]
        rounded = rounded or any(word[-1] in "KMGTPi" or "." in word for word in words)
        if any(size is None for size in sizes):
            continue
        good = [size for size in sizes if size is not None]
        if len(good) >= 6:
            names = _SEVEN if len(good) == 7 else _OLD if old else _SIX
            found.append(_Look(lines.time_ns, dict(zip(names, good, strict=False)), plain))
        elif len(good) == 3 and found and len(found[-1].more) < _MOST_MORE:
            found[-1].more.append(good)
        if len(found) > MOST_ROWS:
            raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} outputs of free")
    if not found:
        raise RecordingError(
            f"{file.path} has the head of free's output, and no whole line of memory"
        )
    notes = lines.notes()
    if rounded:
        notes = (*notes, "figures are rounded, as free prints them for people")
    units = _units(found)
    return tuple(_snapshot(look.scaled(*units[look.total], notes)) for look in found)


@dataclass(slots=True)
class _Look:
    """One output: the row of memory, and the rows below it."""

    time_ns: int | None
    memory: dict[str, int]
    plain: bool  # figures without a unit
    more: list[list[int]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> tuple[bool, int]:
        """What the outputs of one machine, made with the same options, have in common."""
        return self.plain, self.memory["total"]

    def scaled(self, unit: int, note: str, notes: tuple[str, ...]) -> _Look:
        """Return it in bytes."""
        memory = {name: size * unit for name, size in self.memory.items()}
        more = [[size * unit for size in row] for row in self.more]
        return _Look(
            self.time_ns, memory, self.plain, more, (*notes, note) if self.plain else notes
        )


def _units(looks: list[_Look]) -> dict[tuple[bool, int], tuple[int, str]]:
    """Return the unit of the outputs of each machine."""
    figures: dict[tuple[bool, int], set[int]] = {}
    for look in looks:
        known = figures.setdefault(look.total, set())
        if len(known) < _MOST_FIGURES:
            known.update(look.memory.values())
    return {key: unit_of(known, key[1]) if key[0] else (1, "") for key, known in figures.items()}


def _swap(total: int, rows: list[list[int]]) -> dict[str, int]:
    """Return the row of swap among those below the memory's.

    With -l two stand before it that share the memory: what can be reached directly, and the rest.
    """
    split = len(rows) > 2 and rows[0][0] > 0 and rows[0][0] + rows[1][0] == total
    return dict(zip(_SIX, rows[2 if split else 0], strict=False)) if rows else {}


def _snapshot(look: _Look) -> Snapshot:
    memory, swap = look.memory, _swap(look.memory["total"], look.more)
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
        time_ns=look.time_ns,
        total=memory["total"],
        of="of memory",
        facts=tuple(facts),
        notes=look.notes,
    )
