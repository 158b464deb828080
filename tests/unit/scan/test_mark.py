# SPDX-License-Identifier: Apache-2.0
"""Mark and sweep over memory made by hand, with memcheck's kinds."""

from __future__ import annotations

import ctypes

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from leakscope.model.reachability import Reachability
from leakscope.scan.mark import Marker, Segment
from leakscope.scan.roots import Root

LOST, INDIRECT, POSSIBLE, REACHABLE = (
    Reachability.DEFINITELY_LOST,
    Reachability.INDIRECTLY_LOST,
    Reachability.POSSIBLY_LOST,
    Reachability.REACHABLE,
)
HEAP, ROOTS, SIZE = 0x100000, 0x900000, 64


def kinds(pointers, roots, count, size=SIZE, spacing=80):
    """Blocks 0..count-1; `pointers` maps a block to what its words hold; returns kinds, leaders."""
    memory = np.zeros(count * spacing // 8 + 8, np.uint64)
    for block, words in pointers.items():
        for at, word in enumerate(words):
            memory[block * spacing // 8 + at] = word
    root_words = np.array([*roots, 0], np.uint64)
    segments = [
        Segment(HEAP, HEAP + memory.nbytes, memory.ctypes.data),
        Segment(ROOTS, ROOTS + root_words.nbytes, root_words.ctypes.data),
    ]
    starts = HEAP + spacing * np.arange(count, dtype=np.uint64)
    with Marker(starts, np.full(count, size, np.uint64), segments=segments) as marker:
        marker.mark([Root(ROOTS, ROOTS + root_words.nbytes, "roots")])
        found = marker.sweep()
        return [Reachability(kind) for kind in found], marker.leaders.tolist()


def block(number, offset=0, spacing=80):
    return HEAP + spacing * number + offset


def test_a_chain_from_a_root_is_reachable():
    assert kinds({0: [block(1)], 1: [block(2)]}, [block(0)], 3)[0] == [REACHABLE] * 3


def test_the_head_of_a_lost_chain_leads_the_others():
    found, leaders = kinds({0: [block(1)], 1: [block(2)]}, [], 3)
    assert found == [LOST, INDIRECT, INDIRECT]
    assert leaders[1:] == [0, 0]


def test_a_leader_found_later_takes_over():
    """Block 0 is met first, but block 2 points to it."""
    found, leaders = kinds({0: [block(1)], 2: [block(0)]}, [], 3)
    assert found == [INDIRECT, INDIRECT, LOST]
    assert leaders[:2] == [2, 2]


def test_a_ring_has_one_leader():
    found, _ = kinds({0: [block(1)], 1: [block(2)], 2: [block(0)]}, [], 3)
    assert found == [LOST, INDIRECT, INDIRECT]


def test_an_interior_pointer_makes_possibly_lost_and_so_does_what_follows():
    found, _ = kinds({0: [block(1)]}, [block(0, 16)], 2)
    assert found == [POSSIBLE, POSSIBLE]


def test_a_pointer_to_the_start_beats_one_to_the_inside():
    found, _ = kinds({0: [block(1)]}, [block(0, 16), block(0)], 2)
    assert found == [REACHABLE, REACHABLE]


def test_behind_a_block_is_not_inside_it():
    assert kinds({}, [block(0, SIZE)], 1)[0] == [LOST]
    assert kinds({}, [block(0, SIZE - 1)], 1)[0] == [POSSIBLE]


def test_a_length_before_the_pointer_explains_it():
    assert kinds({0: [SIZE - 8]}, [block(0, 8)], 1)[0] == [REACHABLE]


def test_a_pointer_to_oneself_keeps_nobody():
    assert kinds({0: [block(0)]}, [], 1)[0] == [LOST]


def test_mangled_pointers_are_seen_through():
    guard = 0x1234_5678_9ABC_DEF0
    mangled = (block(0) ^ guard) & (2**64 - 1)
    mangled = ((mangled << 17) | (mangled >> 47)) & (2**64 - 1)
    words = np.array([mangled], np.uint64)
    starts, sizes = np.array([HEAP], np.uint64), np.array([SIZE], np.uint64)
    for known, kind in ((guard, REACHABLE), (0, LOST)):
        with Marker(starts, sizes, guard=known) as marker:
            marker.mark_words(words)
            assert marker.sweep().tolist() == [kind]


def test_an_unreadable_root_is_counted():
    starts, sizes = np.array([HEAP], np.uint64), np.array([SIZE], np.uint64)
    with Marker(starts, sizes) as marker:
        marker.mark([Root(0x5000, 0x9000, "hole")])
        assert marker.unread_bytes == 0x4000
        assert marker.sweep().tolist() == [LOST]


def test_no_blocks():
    with Marker(np.zeros(0, np.uint64), np.zeros(0, np.uint64)) as marker:
        marker.mark_words(np.arange(10, dtype=np.uint64))
        assert marker.sweep().tolist() == []


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(1, 40),
    edges=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=80),
    roots=st.lists(st.integers(0, 39), max_size=4),
)
def test_reachable_is_what_a_graph_search_reaches(count, edges, roots):
    pointers: dict[int, list[int]] = {}
    follow: dict[int, set[int]] = {}
    for source, target in edges:
        if source < count and target < count and len(pointers.get(source, [])) < SIZE // 8:
            pointers.setdefault(source, []).append(block(target))
            follow.setdefault(source, set()).add(target)
    wanted = {root for root in roots if root < count}
    seen, waiting = set(wanted), list(wanted)
    while waiting:
        for target in follow.get(waiting.pop(), ()):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    found, leaders = kinds(pointers, [block(root) for root in wanted], count)
    assert {i for i, kind in enumerate(found) if kind is REACHABLE} == seen
    for i, kind in enumerate(found):
        if kind is INDIRECT:
            assert found[leaders[i]] is LOST
    assert ctypes.sizeof(ctypes.c_void_p) == 8
