# SPDX-License-Identifier: Apache-2.0
"""What memory_profiler's `mprof run` records: `MEM MIB SECONDS`, the resident memory of a program.

    CMDLINE python a.py
    MEM 12.343750 1700000000.1234
    FUNC f 12.3 1700000000.1 15.0 1700000002.3

Children have lines `CHLD N MIB SECONDS`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Snapshot

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(rb"(?:^|\n)MEM \d{1,12}\.\d{1,9} \d{9,11}\.\d{1,9}\r?\n")
_LINE = re.compile(r"(MEM|CHLD (\d{1,9})) (\d{1,12}\.\d{1,9}) (\d{9,11})\.(\d{1,9})\s*")


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` was written by mprof."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return a snapshot of each moment. Raises `RecordingError`."""
    lines = TableLines(file)
    found: list[tuple[str, float, int]] = []
    name = "python"
    for line in lines:
        if line.startswith("CMDLINE "):
            name = line[8:].strip()[:200] or name
        elif (one := _LINE.fullmatch(line)) is not None and len(found) < MOST_ROWS:
            at = int(one[4]) * 1_000_000_000 + int(one[5][:9].ljust(9, "0"))
            found.append((one[2] or "", float(one[3]) * (1 << 20), at))
    if not found:
        raise RecordingError(f"{file.path} has no whole line of memory_profiler")
    snapshots = []
    for child, size, at in found:
        who = f"child {child} of {name}" if child else name
        subject = Subject("process", f"child {child}" if child else "main", who)
        snapshots.append(
            Snapshot(
                source="memory_profiler's record",
                subject=subject,
                measures=(Measure(subject, "rss", "bytes", int(size)),),
                time_ns=at,
                total=int(size),
                of="resident",
                notes=("resident memory, files and shared memory included", *lines.notes()),
            )
        )
    return tuple(snapshots)
