# SPDX-License-Identifier: Apache-2.0
"""Blocks of a reading before the image and of one after it: the same ones, and only they."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leakscope.model.recordings import BLOCK_DTYPE
from leakscope.scan.graph import positions_in
from leakscope.scan.join import places_in


def reading(blocks, tick_ns=1000.0):
    """Blocks as (address, size, site, birth in ticks)."""
    table = np.zeros(len(blocks), BLOCK_DTYPE)
    for at, (address, size, site, tick) in enumerate(blocks):
        table[at] = (address, size, site, int(tick * tick_ns))
    return SimpleNamespace(blocks=table, tick_ns=tick_ns)


BEFORE = [(0x1000, 64, 1, 5), (0x2000, 64, 1, 6), (0x3000, 64, 2, 7), (0x4000, 32, 2, 4_000_000)]


def test_blocks_move_to_their_new_positions_and_the_walks_own_stay_unknown():
    after = [BEFORE[3], BEFORE[0], (0x9000, 8, 1, 9)]
    known = np.array([0, -1, 1, 2, 3])
    assert positions_in(reading(after), reading(BEFORE), known).tolist() == [1, -1, -1, -1, 0]


def test_a_block_that_was_allocated_again_is_another_one():
    for changed in ((0x1000, 65, 1, 5), (0x1000, 64, 3, 5), (0x1000, 64, 1, 6)):
        assert positions_in(reading([changed]), reading(BEFORE), np.array([0])).tolist() == [-1]


def test_a_tick_that_is_better_known_makes_no_difference():
    after = reading(BEFORE, tick_ns=1000.000_1)
    assert positions_in(after, reading(BEFORE), np.arange(4)).tolist() == [0, 1, 2, 3]


def test_everything_freed():
    assert positions_in(reading([]), reading(BEFORE), np.arange(4)).tolist() == [-1] * 4


ADDRESSES = st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 30), max_size=40)


@given(ADDRESSES, ADDRESSES)
def test_places_are_those_of_a_dictionary(wanted, among):
    wanted, among = sorted(wanted), sorted(set(among))
    found = places_in(np.array(wanted, np.uint64), np.array(among, np.uint64))
    places = {address: at for at, address in enumerate(among)}
    assert found.tolist() == [places.get(address, -1) for address in wanted]
