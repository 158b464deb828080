# SPDX-License-Identifier: Apache-2.0
"""What `vmstat DELAY` prints, with -w and -t too: one line a moment.

    procs -----------memory---------- ---swap-- …
     r  b   swpd   free   buff  cache   si   so …
     8  0      0 18743388  33964 4250828    0    0 …

The head comes again on every screen; the first line is an average since the machine began, and is
left out. Figures are KiB unless -S says otherwise, which `_units` finds. How much memory there is is
not told: the course is that of what is neither free nor of files. `vmstat -s` is a list instead:

         24684092 K total memory
          1893656 K used memory
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines
from leakscope.formats._times import time_in
from leakscope.formats._units import unit_of
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Snapshot

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"(?:^|\n) *r +b +swpd +free +(?:buff +cache|inact +active) +si +so"
    rb"|(?:^|\n) *\d{1,18} [KkMm] total memory\s"
)
_SUM = re.compile(
    r"\s*(\d{1,18}) ([KkMm]) (total memory|used memory|active memory|inactive memory|free memory"
    r"|buffer memory|swap cache|total swap|used swap|free swap)\s*"
)
_UNITS = {"K": 1 << 10, "k": 1000, "M": 1 << 20, "m": 1_000_000}
_MEMORY = ("swpd", "free", "buff", "cache", "inact", "active")
_MOST_FIGURES = 10_000  # that are looked at for their unit


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is output of vmstat."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return a snapshot of each moment. Raises `RecordingError`."""
    lines = TableLines(file)
    columns: list[str] = []
    found: list[tuple[int | None, dict[str, int]]] = []
    lists: list[tuple[int | None, dict[str, int]]] = []
    for line in lines:
        words = line.split()
        if (told := _SUM.fullmatch(line)) is not None:
            if told[3] == "total memory":
                if len(lists) >= MOST_ROWS:
                    raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} lists of vmstat")
                lists.append((lines.time_ns, {}))
            if lists:
                lists[-1][1].setdefault(told[3], int(told[1]) * _UNITS[told[2]])
        elif words[:3] == ["r", "b", "swpd"]:
            columns = words
        elif (columns and words[:1] == ["procs"]) or words[:1] == ["--procs--"]:
            continue
        elif columns and len(words) >= 6 and all(w.isdecimal() for w in words[:6]):
            values = {
                name: int(word)
                for name, word in zip(columns, words, strict=False)
                if word.isdecimal() and len(word) < 16
            }
            if not {"swpd", "free"} <= values.keys():
                continue
            if len(found) >= MOST_ROWS:
                raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} lines of vmstat")
            found.append((time_in(line) or lines.time_ns, values))
    if lists and not found:
        return tuple(_list(at, values, lines.notes()) for at, values in lists)
    if not found:
        raise RecordingError(f"{file.path} has the head of vmstat's output, and no whole line")
    first = found if len(found) == 1 else found[1:]
    figures = {v[n] for _, v in found[:_MOST_FIGURES] for n in _MEMORY if n in v}
    unit, note = unit_of(figures, max(_all(values) for _, values in found))
    for _, values in found:
        values.update({name: values[name] * unit for name in _MEMORY if name in values})
    notes = (note, *lines.notes())
    if first is not found:
        notes = ("its first line is an average since the machine began, and left out", *notes)
    most = max(_spare(values) for _, values in first)
    return tuple(_snapshot(at, values, most, notes) for at, values in first)


def _list(time_ns: int | None, values: dict[str, int], notes: tuple[str, ...]) -> Snapshot:
    total = values["total memory"]
    machine = Subject("system", "machine", "the machine", limit=float(total) or None)
    measures = [
        Measure(machine, metric, "bytes", values[name])
        for name, metric in (("used memory", "used"), ("swap cache", "page_cache"), ("used swap", "swap"))
        if name in values
    ]  # fmt: skip
    return Snapshot(
        source="output of vmstat -s",
        subject=machine,
        measures=tuple(measures),
        time_ns=time_ns,
        total=total,
        of="of memory",
        facts=tuple((name, size, "bytes") for name, size in values.items()),
        notes=notes,
    )


def _all(values: dict[str, int]) -> int:
    return sum(values.get(name, 0) for name in _MEMORY if name != "swpd")


def _spare(values: dict[str, int]) -> int:
    return sum(values.get(name, 0) for name in ("free", "buff", "cache", "inact"))


def _snapshot(
    time_ns: int | None, values: dict[str, int], most: int, notes: tuple[str, ...]
) -> Snapshot:
    machine = Subject("system", "machine", "the machine")
    return Snapshot(
        source="output of vmstat",
        subject=machine,
        measures=(
            Measure(machine, "taken", "bytes", most - _spare(values)),
            Measure(machine, "swap", "bytes", values["swpd"]),
        ),
        time_ns=time_ns,
        of="of memory",
        facts=tuple((name, values[name], "bytes") for name in _MEMORY if name in values),
        notes=notes,
    )
