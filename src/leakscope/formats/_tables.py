# SPDX-License-Identifier: Apache-2.0
"""What the readers of saved tables share: lines with their times, sizes, tables as recordings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import NO_CHECK
from leakscope.formats._stamps import MARK
from leakscope.formats._text import LogLines
from leakscope.formats._times import stamp_time, time_line
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import FrameName
from leakscope.model.recordings import Coverage, Process, Recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakscope.formats._file import ForeignFile
    from leakscope.model.snapshots import Snapshot

__all__ = ["MOST_BYTES", "MOST_ROWS", "TableLines", "as_recording", "size_of"]

MOST_BYTES = 64 << 30
"""Of a file whose reader keeps less than it reads."""
MOST_ROWS = 1 << 20
"""Rows of one file, in all its tables."""
_SIZE = re.compile(r"(\d{1,20})(?:[.,](\d{1,6}))?\s?([KMGTPEkmgtpe]?)i?[Bb]?")
_POWERS = "KMGTPE"
_MARK = MARK.decode("ascii")


class TableLines:
    """The lines of a file; `time_ns` is the last time that stood on a line of its own.

    Where a service or `ts` put a time before every line, it is that of the line.

    A last line without an end may be cut inside a number: it is not given, unless `last` asks
    for it, and `cut` says so.
    """

    def __init__(self, file: ForeignFile, *, last: bool = False) -> None:
        self._file = file
        self._lines = LogLines(file, MOST_BYTES, stamped=True)
        self._last = last
        self.time_ns: int | None = None
        self.cut = False

    def __iter__(self) -> Iterator[str]:
        for raw in self._lines:
            if self._lines.cut:
                self.cut = not self._last
                if self.cut:
                    return
            line = raw
            if raw.startswith(_MARK):
                stamp, _, line = raw[1:].partition(_MARK)
                self._take(stamp_time(stamp, self.time_ns))
            self._take(time_line(line, self.time_ns))
            yield line

    def _take(self, time_ns: int | None) -> None:
        self.time_ns = self.time_ns if time_ns is None else time_ns

    def notes(self) -> tuple[str, ...]:
        """Return what is to be said of how the file ends."""
        if self._file.cut is not None:
            return (f"the file is not whole: {self._file.cut}",)
        return ("the last line has no end, and was not read",) if self.cut else ()


def size_of(text: str, unit: int = 1) -> int | None:
    """Return the bytes in such as "1.9Gi", "4K", "0B", "1,5M" or, in units of `unit`, "2480"."""
    found = _SIZE.fullmatch(text.strip()[:40])
    if found is None:
        return None
    value = float(f"{found[1]}.{found[2] or 0}")
    if found[3]:
        value *= 1024.0 ** (_POWERS.index(found[3].upper()) + 1)
    elif not text.rstrip().endswith("B"):
        value *= unit
    return int(value) if value < 1 << 62 else None


def as_recording(table: Snapshot, path: str) -> Recording:
    """Return a table of what is held as a recording without a check for leaks.

    Raises `RecordingError` for figures that do not say who holds what.
    """
    if table.kind is None or not table.rows:
        raise RecordingError(
            f"{path} is {table.source}: it does not tell who allocated what",
            hint=f"See it with: leakscope report {path}",
        )
    subject = table.subject
    build = RecordingBuilder(
        Process(pid=subject.pid, exe=subject.name if subject.kind == "process" else None),
        Coverage(
            mode=table.source,
            troubles=(NO_CHECK,),
            notes=("it is what was held then; nobody looked whether it was in use", *table.notes),
        ),
    )
    for row in table.rows:
        frames = row.frames or (FrameName(function=row.name),)
        counters = {"live_bytes": max(row.bytes or 0, 0)}
        if row.count is not None:
            counters["live_count"] = max(row.count, 0)
        build.site(build.stack([BuiltFrame(None, each) for each in frames]), table.kind, **counters)
    return build.build()
