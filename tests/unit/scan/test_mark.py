# SPDX-License-Identifier: Apache-2.0
"""Mark and sweep over memory made by hand, with memcheck's kinds."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakscope.model.reachability import Reachability
from leakscope.scan.mark import Marker
from leakscope.scan.roots import Root
from leakscope.target.memory import Segment

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


TABLES = 0xC00000  # where vtables are
HEADS = (0, 1, 2, 3, 7, 8, 16, 17, 24, 40, 56, TABLES + 16)


class World:
    """A heap of chance, and memcheck's rules written down a second time, without any haste."""

    def __init__(self, seed: int) -> None:
        chance = np.random.default_rng(seed)
        unit = 8 if seed % 3 == 0 else 16
        most = 900 if seed % 4 == 0 else 60  # with many, some are followed in the middle
        sizes = chance.choice([9, 16, 24, 40, 64, 120], chance.integers(2, most)).tolist()
        if seed % 2:
            sizes[chance.integers(len(sizes))] = 6000  # holds more pointers than are noted
        if seed % 7 == 0:
            sizes[chance.integers(len(sizes))] = 300_000  # and more than is read at a time
        at, starts = HEAP, []
        for size in sizes:
            starts.append(at)
            at += (size + int(chance.integers(0, 40)) + unit - 1) // unit * unit
            if seed % 5 == 0 and chance.random() < 0.1:
                at += 5 << 20  # another region
        self.starts, self.sizes = starts, sizes
        self.roots_at = (at + 0x1000_0000) & ~0xFFF
        self.words: dict[int, int] = {}  # by address: those that are not 0
        for start, size in zip(starts, sizes, strict=True):
            words = size // 8
            dense = words > 40 and chance.random() < 0.7
            count = min(words, 2000) if dense else int(chance.integers(0, min(words, 4) + 1))
            for _ in range(count):
                self.words[start + 8 * int(chance.integers(words))] = self.pointer(chance)
            if words and chance.random() < 0.4:
                self.words[start] = int(chance.choice([*HEADS, size - 8, size]))
            if words > 3 and chance.random() < 0.2:
                self.words[start], self.words[start + 8] = 3, size - 25
            if words > 3 and chance.random() < 0.2:  # an object with two bases
                self.words[start] = self.words[start + 16] = TABLES + 16
        self.roots = [self.pointer(chance) for _ in range(chance.integers(0, most // 8))]

    def pointer(self, chance: np.random.Generator) -> int:
        which = int(chance.integers(len(self.starts)))
        offset = int(chance.choice([0, 0, 0, 0, 0, 1, 8, 16, 24, self.sizes[which] - 1]))
        return self.starts[which] + offset

    def find(self, address: int) -> int | None:
        at = int(np.searchsorted(self.starts, address, side="right")) - 1
        return at if at >= 0 and address < self.starts[at] + self.sizes[at] else None

    def is_object(self, address: int) -> bool:
        word = self.words.get(address, 0)
        return address % 8 == 0 and word % 8 == 0 and TABLES <= word < TABLES + 0x1000

    def explained(self, which: int, pointer: int) -> bool:
        start, size = self.starts[which], self.sizes[which]
        first, second = self.words.get(start, 0), self.words.get(start + 8, 0)
        offset = pointer - start
        if offset == 0 or (offset == 1 and size == 24):
            return True
        if (
            offset == 8
            and first
            and (first == size - 8 or (first <= size and (size - 8) % first == 0))
        ):
            return True
        if offset == 8 and size == 9 and not first:
            return True  # behind the count of an empty array
        if offset == 24 and first <= second and 25 + second == size:
            return True
        inside = pointer % 8 == 0 and size >= offset + 8
        return inside and self.is_object(pointer) and self.is_object(start)

    def contents(self, which: int) -> list[int]:
        start, words = self.starts[which], self.sizes[which] // 8
        return [
            w for a in range(start, start + 8 * min(words, 1 << 16), 8) if (w := self.words.get(a))
        ]

    def truth(self) -> list[Reachability]:
        contents = [self.contents(which) for which in range(len(self.starts))]
        kind = dict.fromkeys(range(len(self.starts)), 0)
        waiting = [(True, pointer) for pointer in self.roots]
        while waiting:
            definite, pointer = waiting.pop()
            which = self.find(pointer)
            if which is None:
                continue
            fresh = 2 if definite and self.explained(which, pointer) else 1
            if fresh > kind[which]:
                kind[which] = fresh
                waiting += [(fresh == 2, word) for word in contents[which]]
        named: dict[int, Reachability] = {
            which: REACHABLE if found == 2 else POSSIBLE for which, found in kind.items() if found
        }
        for leader in range(len(self.starts)):
            if leader in named:
                continue
            named[leader] = LOST
            follow = [leader]
            while follow:
                for word in contents[follow.pop()]:
                    which = self.find(word)
                    if which is None or which == leader:
                        continue
                    if which not in named:
                        follow.append(which)
                    if named.get(which, LOST) is LOST:
                        named[which] = INDIRECT
        return [named[which] for which in range(len(self.starts))]

    def found(self, *, keep: bool, stepwise: bool, narrow: bool) -> list[Reachability]:
        parts = {
            start: np.zeros(size // 8 + 1, np.uint64)
            for start, size in zip(self.starts, self.sizes, strict=True)
        }
        for address, word in self.words.items():
            start = self.starts[self.find(address) or 0]
            parts[start][(address - start) // 8] = word
        parts[self.roots_at] = np.array([*self.roots, 0], np.uint64)
        segments, end = [], 0
        for start, part in sorted(parts.items()):
            size = part.nbytes
            if start in self.starts:
                size = self.sizes[self.starts.index(start)]
            assert start >= end
            end = start + size
            segments.append(Segment(start, end, part.ctypes.data))
        with Marker(
            np.array(self.starts, np.uint64),
            np.array(self.sizes, np.uint32 if narrow else np.uint64),
            segments=segments,
            vtables=[(0x100, 0x200), (TABLES, TABLES + 0x1000)],
        ) as marker:
            places = marker.keep_places() if keep else None
            if stepwise:
                for at in range(len(self.roots)):
                    marker.mark([Root(self.roots_at + 8 * at, self.roots_at + 8 * at + 8, "root")])
                    marker.follow()
            else:
                marker.mark([Root(self.roots_at, self.roots_at + parts[self.roots_at].nbytes, "")])
            found = [Reachability(kind) for kind in marker.sweep()]
        if places is not None:
            for which, place in enumerate(places.tolist()):
                reached = found[which] in {REACHABLE, POSSIBLE}
                assert reached == bool(place)
                if place >= self.roots_at:
                    assert self.find(self.roots[(place - self.roots_at) // 8]) == which
                elif reached:
                    assert self.find(self.words[place]) == which
        return found


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    keep=st.booleans(),
    stepwise=st.booleans(),
    narrow=st.booleans(),
)
def test_kinds_are_those_of_the_rules(seed, keep, stepwise, narrow):
    world = World(seed)
    assert world.found(keep=keep, stepwise=stepwise, narrow=narrow) == world.truth()


FORMS = {
    "high tag": lambda address: address | 0x42 << 56,
    "sign": lambda address: address | 1 << 63,
    "shifted by 3": lambda address: address >> 3,
    "page number": lambda address: address >> 12,
    "doubled": lambda address: address << 1 | 1 << 63,
    "twice": lambda address: address << 1,
    "halves": lambda address: address << 32 | address >> 32,
    "boxed": lambda address: address << 16,
    "byte order": lambda address: int.from_bytes(address.to_bytes(8, "little"), "big"),
}
FAR = 0x5555_0000_0000


def disguised(word, *, at=0, content=()):
    """The kinds of three blocks when a root has `word` `at` bytes into it; block 0 has `content`."""
    memory, roots = np.zeros(3 * 4096, np.uint8), np.zeros(64, np.uint8)
    roots[at : at + 8] = np.frombuffer((word % (1 << 64)).to_bytes(8, "little"), np.uint8)
    memory[: 8 * len(content)] = np.array(content, np.uint64).view(np.uint8)
    segments = [
        Segment(ROOTS, ROOTS + len(roots), roots.ctypes.data),
        Segment(FAR, FAR + len(memory), memory.ctypes.data),
    ]
    starts = FAR + 4096 * np.arange(3, dtype=np.uint64)
    with Marker(starts, np.full(3, SIZE, np.uint64), segments=segments) as marker:
        root = Root(ROOTS, ROOTS + len(roots), "roots")
        marker.mark([root])
        count = marker.find_disguised([root])
        return [Reachability(kind) for kind in marker.sweep()], count


@pytest.mark.parametrize("form", FORMS)
def test_an_address_in_another_form_makes_possibly_lost(form):
    assert disguised(FORMS[form](FAR)) == ([POSSIBLE, LOST, LOST], 1)


@pytest.mark.parametrize("at", range(1, 8))
def test_so_does_one_that_is_not_aligned(at):
    assert disguised(FAR, at=at) == ([POSSIBLE, LOST, LOST], 1)


def test_what_it_leads_to_is_possibly_lost_too():
    assert disguised(FORMS["high tag"](FAR), content=[FAR + 4096]) == (
        [POSSIBLE, POSSIBLE, LOST],
        1,
    )
    chain = [FORMS["shifted by 3"](FAR + 8192)]
    assert disguised(FORMS["high tag"](FAR), content=chain) == ([POSSIBLE, LOST, POSSIBLE], 2)


def test_what_only_a_lost_block_has_is_not_looked_at():
    assert disguised(0, content=[FORMS["high tag"](FAR + 4096)]) == ([LOST, LOST, LOST], 0)


def by_distances(words, *, at_root, sizes=(64,) * 8):
    """The kinds of blocks 4,096 bytes apart: `words` of each, and `at_root` in a root."""
    memory = np.zeros(len(sizes) * 4096, np.uint8)
    for block, content in words.items():
        raw = np.array([word % (1 << 64) for word in content], np.uint64).view(np.uint8)
        memory[block * 4096 : block * 4096 + len(raw)] = raw
    roots = np.array([word % (1 << 64) for word in at_root], np.uint64)
    segments = [
        Segment(ROOTS, ROOTS + roots.nbytes, roots.ctypes.data),
        Segment(FAR, FAR + len(memory), memory.ctypes.data),
    ]
    starts = FAR + 4096 * np.arange(len(sizes), dtype=np.uint64)
    with Marker(starts, np.array(sizes, np.uint64), segments=segments) as marker:
        root = Root(ROOTS, ROOTS + roots.nbytes, "roots")
        marker.mark([root])
        marker.find_disguised([root])
        return [Reachability(kind) for kind in marker.sweep()]


@pytest.mark.parametrize("step", [1, -1, 3])
def test_links_that_count_from_where_they_are(step):
    order = [step * i % 8 for i in range(8)]
    links = {a: [(b - a) * 4096] for a, b in itertools.pairwise(order)}
    assert by_distances(links, at_root=[FAR + order[0] * 4096 - ROOTS]) == [POSSIBLE] * 8


def test_one_number_that_happens_to_lead_to_a_block_does_not_excuse_it():
    assert by_distances({}, at_root=[FAR - ROOTS]) == [LOST] * 8
    # Nor do two: most of the blocks of that size are not found so.
    found = by_distances({0: [4096], 1: [4096], 2: [4096]}, at_root=[FAR - ROOTS])
    assert found == [POSSIBLE] * 4 + [LOST] * 4
    found = by_distances({0: [4096]}, at_root=[FAR - ROOTS])
    assert found == [LOST] * 8


def test_a_list_whose_links_are_the_exclusive_or_of_both_neighbours():
    at = [FAR + 4096 * i for i in range(8)]
    links = {i: [(at[i - 1] if i else 0) ^ (at[i + 1] if i < 7 else 0)] for i in range(8)}
    found = by_distances(links, at_root=[at[0], at[7]])
    assert LOST not in found
    assert found.count(POSSIBLE) == 4
