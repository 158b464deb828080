# SPDX-License-Identifier: Apache-2.0
"""Mappings as long as what of them is in memory, and everything else in agreement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leakscope.model.builder import RecordingBuilder
from leakscope.model.columns import Column
from leakscope.model.recordings import NODE_DTYPE, RANGE_DTYPE, Kind, Recording, Timeline
from leakscope.recording.mapped import as_in, with_lengths

PAGE = 4096


def recording(*lengths: int) -> Recording:
    """Site 1 has 100 bytes of malloc, site 2 a mapping of each length, one a second."""
    build = RecordingBuilder(tick_ns=1e6, duration_ns=len(lengths) * 10**9)
    held_now = [0, 100, sum(lengths)]
    build.fills(*Column)
    build.nodes(np.zeros(1, NODE_DTYPE))
    build.sites(
        3,
        kind=[0, Kind.MALLOC, Kind.MMAP],
        live_bytes=held_now,
        live_count=[0, 1, len(lengths)],
        peak_bytes=held_now,
    )
    ranges = np.zeros(len(lengths), RANGE_DTYPE)
    ranges["start"] = 1 << 40 | np.arange(len(lengths)) << 30
    ranges["length"], ranges["site"] = lengths, 2
    ranges["birth_ns"] = np.arange(len(lengths)) * 10**9
    rows = len(lengths)
    counts = np.zeros((rows, 3), np.uint32)
    counts[:, 1], counts[:, 2] = 1, 1 + np.arange(rows)
    held = np.zeros((rows, 3), np.float32)
    held[:, 1], held[:, 2] = 100, np.cumsum(lengths)
    build.ranges(ranges)
    build.timeline(
        Timeline(
            np.arange(rows) * 10**9,
            held.sum(axis=1).astype(np.int64),
            counts.sum(axis=1).astype(np.int64),
            held,
            counts,
        )
    )
    return build.build()


def test_what_is_all_there_stays_as_it_is():
    whole = recording(PAGE, 3 * PAGE)
    assert with_lengths(whole, whole.ranges["length"]) is whole


def test_a_reservation_goes_and_the_rest_shrinks():
    found = with_lengths(recording(8 * PAGE, 8 * PAGE), np.array([0, PAGE], np.uint64))
    assert found.ranges["length"].tolist() == [PAGE]
    assert found.sites["live_bytes"].tolist() == [0, 100, PAGE]
    assert found.sites["live_count"].tolist() == [0, 1, 1]
    assert found.sites["peak_bytes"][2] == PAGE
    # Half of a page at the first row, one at the second; malloc is as it was.
    assert found.timeline.site_bytes.tolist() == [[0, 100, PAGE / 2], [0, 100, PAGE]]
    assert found.timeline.live_bytes.tolist() == [100 + PAGE // 2, 100 + PAGE]


def test_a_later_reading_takes_over_what_was_found():
    later = recording(8 * PAGE, 8 * PAGE, 8 * PAGE)
    earlier = recording(8 * PAGE, 8 * PAGE)
    examined = with_lengths(
        replace(earlier, duration_ns=15 * 10**8), np.array([0, PAGE], np.uint64)
    )
    # The first was only reserved, the third came after the scan.
    assert as_in(later, examined).ranges["length"].tolist() == [PAGE, 8 * PAGE]


def test_nothing_mapped():
    none = recording()
    assert as_in(none, none) is none
