# SPDX-License-Identifier: Apache-2.0
"""Saved alloc_traces (alloc_calls) of one kernel cache: which stacks hold its objects.

    595 __d_alloc+0x3f/0x1a4 waste=704/704 age=2292/2324/2377 pid=20
            __d_alloc+0x3f/0x1a4

The age is the least, mean and most in jiffies; the size of an object is not told.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES
from leakscope.formats._tables import MOST_ROWS, TableLines
from leakscope.model.frames import FrameName
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Row, Snapshot

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"(?:^|\n) *\d{1,12} (?:\S{1,200}\+0x[0-9a-f]+/0x[0-9a-f]+|<not-available>)[^\n]{0,80} age=\d"
)
_HEAD = re.compile(
    r"\s*(\d{1,12}) (\S{1,200}?)(?:\+0x\S+)?(?: \[([\w-]{1,64})\])?(?: waste=\S+)? age=.*"
)
_FRAME = re.compile(
    r"\s+([A-Za-z_$][\w.$]{0,200})\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[([\w-]{1,64})\])?\s*"
)


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is of a cache's alloc_traces."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return the stacks with their objects. Raises `RecordingError`."""
    lines = TableLines(file)
    found: list[tuple[int, FrameName, list[FrameName]]] = []
    for line in lines:
        if (head := _HEAD.fullmatch(line)) is not None and len(found) < MOST_ROWS:
            found.append((int(head[1]), FrameName(function=head[2], module_path=head[3]), []))
        elif not found or len(found[-1][2]) >= MOST_FRAMES:
            continue
        elif (frame := _FRAME.fullmatch(line)) is not None:
            found[-1][2].append(FrameName(function=frame[1], module_path=frame[2]))
    if not found:
        raise RecordingError(f"{file.path} has no whole line of alloc_traces")
    stacks: dict[tuple[FrameName, ...], int] = {}
    for count, first, frames in found:
        key = tuple(frames or [first])
        stacks[key] = stacks.get(key, 0) + count
    rows = [
        Row(" < ".join(f.function or "?" for f in key[:4]), None, count, key)
        for key, count in stacks.items()
    ]
    rows.sort(key=lambda row: (-(row.count or 0), row.name))
    subject = Subject("kernel", "objects", "objects of one cache of the kernel")
    measures = tuple(
        Measure(Subject("objects", row.key, row.name), "objects", "count", row.count or 0)
        for row in rows
    )
    return (
        Snapshot(
            source="alloc_traces of a kernel cache",
            subject=subject,
            rows=tuple(rows),
            measures=measures,
            time_ns=lines.time_ns,
            total_count=sum(row.count or 0 for row in rows),
            things="objects",
            kind="slab",
            notes=("the size of an object is not told there", *lines.notes()),
        ),
    )
