# SPDX-License-Identifier: Apache-2.0
"""A recording from a mark on: what was there before is gone from every table, what came is not."""

import numpy as np
import pytest

from leakscope.errors import UsageError
from leakscope.judge.since import find_mark, since
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import BLOCK_DTYPE, RANGE_DTYPE, Coverage, Mark, Timeline

TICK = 1 << 20
SECOND = 1000 * TICK  # whole ticks


def made(coverage=None):
    build = RecordingBuilder(coverage=coverage, tick_ns=TICK, duration_ns=100 * SECOND)
    build.sites(3, allocs=[0, 30, 10], frees=[0, 10, 0], live_count=[0, 20, 10])
    build.fills(*build_columns())
    blocks = np.zeros(30, BLOCK_DTYPE)
    blocks["address"] = np.arange(1, 31) * 64
    blocks["size"] = 100
    blocks["site"] = [1] * 20 + [2] * 10
    blocks["birth_ns"] = [i * 5 * SECOND for i in range(20)] + [SECOND] * 10
    build.blocks(blocks)
    ranges = np.zeros(2, RANGE_DTYPE)
    ranges["start"], ranges["length"], ranges["site"] = [1 << 30, 1 << 31], 4096, 2
    ranges["birth_ns"] = [2 * SECOND, 60 * SECOND]
    build.ranges(ranges)
    build.died(1, [SECOND] * 10)
    rows = np.array([10, 40, 80])
    build.timeline(
        Timeline(
            times_ns=rows * SECOND,
            live_bytes=rows * 1000,
            live_counts=rows,
            site_bytes=np.array([[0, 300, 5096], [0, 900, 5096], [0, 1700, 9192]], np.float32),
            site_counts=np.array([[0, 3, 11], [0, 9, 11], [0, 17, 12]], np.uint32),
        )
    )
    return build.build()


def build_columns():
    from leakscope.model.columns import Column

    return (Column.FIRST_BIRTH, Column.LAST_BIRTH)


def test_what_was_there_at_the_mark_is_gone_from_every_table():
    cut = since(made(), Mark("load", 50 * SECOND))

    assert cut.duration_ns == 50 * SECOND
    assert cut.sites["live_count"].tolist() == [0, 10, 1]
    assert cut.sites["live_bytes"].tolist() == [0, 1000, 4096]
    assert len(cut.blocks) == 10
    assert cut.blocks["birth_ns"].min() == 0
    assert cut.ranges["birth_ns"].tolist() == [10 * SECOND]
    assert cut.timeline.times_ns.tolist() == [30 * SECOND]
    assert cut.timeline.site_counts.tolist() == [[0, 7, 1]]
    assert cut.timeline.site_bytes.tolist() == [[0, 700, 4096]]
    assert int(cut.deaths.sum()) == 10  # how long blocks live stays known
    assert "'load', 52.4 s into the run" in cut.coverage.notes[-1]


def test_a_block_of_the_mark_s_own_tick_counts():
    # The clock of births is a tick behind: what was allocated after the mark is never left out.
    assert since(made(), Mark("x", 50 * SECOND + TICK - 1)).sites["live_count"][1] == 10


def test_sampled_blocks_stand_for_as_many_as_before():
    period = 1000
    cut = since(made(Coverage(mode="sampled", sample_bytes=period)), Mark("x", 50 * SECOND))

    assert cut.sites["live_count"][1] == round(10 / -np.expm1(-100 / period))
    assert cut.sites["live_bytes"][2] == 4096  # mappings are recorded whole


def test_a_mark_that_is_not_there_is_said_with_those_that_are():
    recording = made()
    with pytest.raises(UsageError, match="has no marks"):
        find_mark(recording, "load")


def test_the_recording_before_the_mark_is_left_as_it_was():
    recording = made()
    before = recording.blocks.copy(), recording.sites.copy()
    since(recording, Mark("load", 50 * SECOND))

    assert np.array_equal(recording.blocks, before[0])
    assert np.array_equal(recording.sites, before[1])


def test_wrong_frees_before_the_mark_are_not_told_of():
    from dataclasses import replace

    from leakscope.model.free_errors import RecordedFreeError

    wrong = [
        RecordedFreeError(kind=2, via=1, proof=1, count=1, returned=0, address=1, size=None,
                          offset=0, site=0, node=0, first_node=0, time_ns=at * SECOND, tid=1)
        for at in (10, 60)
    ]  # fmt: skip
    cut = since(replace(made(), free_errors=tuple(wrong)), Mark("load", 50 * SECOND))

    assert [each.time_ns for each in cut.free_errors] == [10 * SECOND]
