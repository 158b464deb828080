# SPDX-License-Identifier: Apache-2.0
"""Which memory of a traced process is the agent's: no scan for pointers may take it for data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.recording._header import Header
from leakscope.recording._source import Source

if TYPE_CHECKING:
    import os

__all__ = ["own_ranges"]


def own_ranges(path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """Return (start, end) of the agent's private mappings, whole pages, from a live recording.

    Raises `RecordingError` like `live.read`.
    """
    with Source(path) as source:
        fields = Header(source).fields
    used = fields["own"][: min(int(fields["own_count"]), len(fields["own"]))]
    page = int(fields["page_bytes"]) or 4096
    return [
        (start // page * page, -(-end // page) * page)
        for start, end in ((int(row["start"]), int(row["end"])) for row in used)
        if start < end
    ]
