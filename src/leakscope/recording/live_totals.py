# SPDX-License-Identifier: Apache-2.0
"""What the sites of a live recording hold by their counters alone: a fraction of a whole reading.

For those who look every second. Blocks are not read, so what is counted twice or seen only in part
is not mended: the difference of two such readings says what came and went in between.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from leakscope.recording import layout
from leakscope.recording._header import Header
from leakscope.recording._source import Source
from leakscope.recording._tables import read_sums

if TYPE_CHECKING:
    import os

__all__ = ["Totals", "read_totals"]


class Totals(NamedTuple):
    """Allocated minus freed by site number, bytes and blocks, and when since the start."""

    held: npt.NDArray[np.float64]
    blocks: npt.NDArray[np.float64]
    at_ns: int


def read_totals(path: str | os.PathLike[str]) -> Totals | None:
    """Return what is held now; None of a sampled recording, whose blocks have to be weighed.

    Raises `RecordingError` as `live.read` does.
    """
    with Source(path) as source:
        header = Header(source)
        if header["mode"] == layout.MODE_SAMPLED:
            return None
        names = ("allocs", "alloc_bytes", "frees", "freed_bytes")
        sums = read_sums(source, header, header["site_count"], names)
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - header["mono_start_ns"]
    return Totals(
        sums["alloc_bytes"].astype(np.float64) - sums["freed_bytes"],
        sums["allocs"].astype(np.float64) - sums["frees"],
        now,
    )
