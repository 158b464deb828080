# SPDX-License-Identifier: Apache-2.0
"""The header of a live recording, checked: whoever has a `Header` may follow its offsets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from leakscope.errors import RecordingError
from leakscope.recording import layout
from leakscope.recording._source import damaged
from leakscope.words import bytes_text

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.recording._source import Source

__all__ = ["Header", "newer"]

_AREAS = ("modules", "strings", "nodes", "sites", "ranges", "chunks", "stripes")
_TABLES = (
    ("modules", "module_count", layout.MODULE_DTYPE, layout.MAX_MODULES),
    ("nodes", "node_count", layout.NODE_DTYPE, layout.MAX_NODES),
    ("sites", "site_count", layout.SITE_DTYPE, layout.MAX_SITES),
    ("ranges", "range_slots", layout.RANGE_DTYPE, layout.MAX_RANGES),
    ("chunks", "chunk_count", layout.CHUNK_DTYPE, layout.MAX_CHUNKS),
)

# What the tables are said to hold, for each byte that the file really has: some file systems
# compress. Room in memory follows claims, so a file that is nearly all holes may not make any.
_DENSEST = 16
_ALWAYS = 1 << 20

# A counter this close to the clock over the whole recording counts nanoseconds: the agent
# reads the coarse clock, which is up to one scheduler tick behind the other.
_SCHEDULER_TICK_NS = 10_000_000


def newer(path: str, version: int, ours: int) -> RecordingError:
    """Return the error for a file of a later format."""
    return RecordingError(
        f"{path} was made by a newer leakscope: its format is version {version}, and this"
        f" leakscope reads versions up to {ours}",
        hint="Upgrade leakscope here, or make the report where the recording was made.",
    )


class Header:
    """What the header said at one moment. Raises `RecordingError` when it makes no sense."""

    def __init__(self, source: Source) -> None:
        path = source.path
        start = source.read(0, 16)
        magic = int.from_bytes(start[:8], "little")
        version = int.from_bytes(start[8:12], "little")
        if magic == 0 and 0 < version <= layout.VERSION:
            raise RecordingError(
                f"{path} holds nothing yet: its program ended, or was stopped, before the agent"
                f" was ready",
                hint="Run the program again; leakscope doctor PROGRAM tells what may be in the way.",
            )
        if magic != layout.MAGIC:
            raise RecordingError(
                f"{path} is not a recording", hint="Name a file that ends in .leakscope."
            )
        if version > layout.VERSION:
            raise newer(path, version, layout.VERSION)
        array = source.array(layout.HEADER_DTYPE, 0, 1)
        if len(array) == 0:
            raise _truncated(source, layout.HEADER_DTYPE.itemsize)
        self.fields: Any = array[0]
        if version != layout.VERSION or self["header_bytes"] != layout.HEADER_DTYPE.itemsize:
            raise RecordingError(
                f"{path} was written by another build of the agent: its header is of version"
                f" {version} and {self['header_bytes']} bytes long, not {layout.VERSION} and"
                f" {layout.HEADER_DTYPE.itemsize}",
                hint="Read it with the leakscope that the agent came with.",
            )
        if self["file_bytes"] > source.size:
            raise _truncated(source, self["file_bytes"])
        self._check(source)

    def again(self, source: Source) -> Header:
        """Return what it says now: itself, when nothing has changed.

        To check it takes longer than to read it, and a process that stands still changes nothing.
        """
        now = source.array(layout.HEADER_DTYPE, 0, 1)
        return self if now.tobytes() == self.fields.tobytes() else Header(source)

    def __getitem__(self, name: str) -> int:
        return int(self.fields[name])

    def text(self, name: str) -> str | None:
        """Return a text member up to its first zero byte, None when it is empty."""
        found = bytes(self.fields[name]).split(b"\0", 1)[0]
        return os.fsdecode(found) or None

    def offset(self, area: str) -> int:
        """Return where an area starts."""
        return int(self.fields[area]["offset"])

    @property
    def rows(self) -> npt.NDArray[np.void]:
        """The timeline's rows, unordered."""
        rows: npt.NDArray[np.void] = self.fields["rows"]
        return rows

    @property
    def heap_start(self) -> int:
        """Where the heap may start: behind all areas."""
        return max(self.offset(a) + int(self.fields[a]["reserved"]) for a in _AREAS)

    @property
    def counter_rate(self) -> float:
        """Counter steps in a nanosecond."""
        steps = self["counter_last"] - self["counter_start"]
        elapsed = self["mono_last_ns"] - self["mono_start_ns"]
        if steps <= 0 or elapsed <= 0 or abs(steps - elapsed) <= _SCHEDULER_TICK_NS:
            return 1.0
        return steps / elapsed

    @property
    def tick_ns(self) -> float:
        """Length of a tick in nanoseconds."""
        return (1 << self["tick_shift"]) / self.counter_rate

    def _check(self, source: Source) -> None:
        path, end = source.path, self["file_bytes"]
        if self["mode"] not in layout.MODE_NAMES:
            raise damaged(path, f"its mode is {self['mode']}")
        if self["mode"] == layout.MODE_SAMPLED and not 0 < self["sample_bytes"] < 1 << 62:
            raise damaged(path, f"its sampling distance is {self['sample_bytes']} bytes")
        # One tick: at least a nanosecond is plausible, at most a few seconds fit the format.
        if self["tick_shift"] > 40 or not 1.0 <= self.tick_ns <= 1e9:
            raise damaged(path, "its clock makes no sense")
        for name in _AREAS:
            area = self.fields[name]
            start, reserved, used = (int(area[key]) for key in ("offset", "reserved", "used"))
            if start < self["header_bytes"] or start + reserved > end or used > reserved:
                raise damaged(path, f"its area of {name} lies outside the file")
        for name, count, dtype, most in _TABLES:
            room = min(most, int(self.fields[name]["used"]) // dtype.itemsize)
            if self[count] > room:
                raise damaged(path, f"it claims {self[count]} {name}, with room for {room}")
        if int(self.fields["stripes"]["reserved"]) < layout.STRIPES * layout.STRIPE_HEAD_BYTES:
            raise damaged(path, "its area of stripes is too short")
        if self["string_bytes"] > int(self.fields["strings"]["used"]):
            raise damaged(path, "its strings lie outside the file")
        rows = self.fields["rows"]["sites"].astype(np.uint64).clip(max=self["site_count"])
        claimed = (
            sum(self[count] * dtype.itemsize for _, count, dtype, _ in _TABLES)
            + self["string_bytes"]
            + int(rows.sum()) * layout.TIMELINE_ENTRY_DTYPE.itemsize
        )
        if claimed > _DENSEST * source.stored + _ALWAYS:
            raise damaged(
                path,
                f"its tables claim {bytes_text(claimed)} and {bytes_text(source.stored)} are there",
            )


def _truncated(source: Source, whole: int) -> RecordingError:
    return RecordingError(
        f"{source.path} is truncated: {source.size} of {whole} bytes are there",
        hint="Copy it again, or free room on the disk and make the recording again.",
    )
