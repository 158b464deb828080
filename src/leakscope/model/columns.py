# SPDX-License-Identifier: Apache-2.0
"""What a source of recordings may know, or not know, of an allocation site.

A recording names the columns that its source cannot fill (`Recording.absent`). The numbers
there are zero and mean nothing: whoever reads one asks `Recording.knows` first.
"""

from __future__ import annotations

import enum

__all__ = ["LIFETIMES", "Column"]


class Column(enum.StrEnum):
    """A column, or a table, of a recording. The values are kept in files."""

    ALLOCS = "sites.allocs"
    ALLOC_BYTES = "sites.alloc_bytes"
    FREES = "sites.frees"
    FREED_BYTES = "sites.freed_bytes"
    LIVE_COUNT = "sites.live_count"
    LIVE_BYTES = "sites.live_bytes"
    PEAK_BYTES = "sites.peak_bytes"
    FIRST_BIRTH = "sites.first_birth_ns"
    LAST_BIRTH = "sites.last_birth_ns"
    BLOCKS = "blocks"
    RANGES = "ranges"
    DEATHS = "deaths"
    TIMELINE = "timeline"
    DURATION = "duration"

    @property
    def site_field(self) -> str | None:
        """The member of `SITE_DTYPE`, None for what is no column of the sites."""
        table, _, name = self.partition(".")
        return name if table == "sites" else None

    @property
    def meaning(self) -> str:
        """What this is, for people."""
        return _MEANINGS[self]


_MEANINGS = {
    Column.ALLOCS: "allocations",
    Column.ALLOC_BYTES: "allocated bytes",
    Column.FREES: "frees",
    Column.FREED_BYTES: "freed bytes",
    Column.LIVE_COUNT: "the number of blocks held",
    Column.LIVE_BYTES: "the bytes held",
    Column.PEAK_BYTES: "the peak",
    Column.FIRST_BIRTH: "times of allocations",
    Column.LAST_BIRTH: "times of allocations",
    Column.BLOCKS: "single blocks",
    Column.RANGES: "single mappings",
    Column.DEATHS: "ages of freed blocks",
    Column.TIMELINE: "the course over time",
    Column.DURATION: "the length of the run",
}

LIFETIMES = frozenset(
    {
        Column.BLOCKS,
        Column.DEATHS,
        Column.FIRST_BIRTH,
        Column.LAST_BIRTH,
        Column.DURATION,
    }
)
"""What a judgement by lifetimes needs; without one of them it cannot be asked for."""
