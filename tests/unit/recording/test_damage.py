# SPDX-License-Identifier: Apache-2.0
"""Damage in a live recording that leaves the rest usable: mended, counted and told."""

import os
import struct
import subprocess
import time

import numpy as np
import pytest

from leakscope.errors import RecordingError
from leakscope.recording import layout, live, load
from unit.recording.recordings import environment

FIELDS = {name: offset for name, (_, offset, *_) in layout.HEADER_DTYPE.fields.items()}


class LiveFile:
    """A live recording to write into."""

    def __init__(self, path):
        self.path = path
        self._file = path.open("r+b", buffering=0)
        self.header = self.at(0, layout.HEADER_DTYPE)

    def at(self, offset, dtype):
        return np.frombuffer(os.pread(self._file.fileno(), dtype.itemsize, offset), dtype)[0]

    def put(self, offset, form, value):
        os.pwrite(self._file.fileno(), struct.pack("<" + form, value), offset)

    def put_header(self, name, form, value, inner=0):
        self.put(FIELDS[name] + inner, form, value)

    def member(self, area, index, dtype, name):
        start = int(self.header[area]["offset"]) + index * dtype.itemsize
        return start + dtype.fields[name][1]

    def blocks(self):
        """Offsets of the slots in use, and of an empty one."""
        used, empty = [], None
        for shard in self.header["shards"]:
            for slot in range(int(shard["capacity"])):
                place = int(shard["offset"]) + slot * 16
                if self.at(place, layout.BLOCK_DTYPE)["where"]:
                    used.append(place)
                else:
                    empty = place
        return used, empty


@pytest.fixture
def file(trace):
    (path,) = trace("mmap_leak")
    found = LiveFile(path)
    assert live.read(path).coverage.notes == ()
    yield found
    found._file.close()


def note(file) -> str:
    (found,) = live.read(file.path).coverage.notes
    return found


def test_a_block_of_an_unknown_site_belongs_to_site_0(file):
    (place, *_), _ = file.blocks()
    before = live.read(file.path)
    file.put(place, "Q", int(file.at(place, layout.BLOCK_DTYPE)["where"]) | 0x7FFFF << 45)
    after = live.read(file.path)
    assert after.coverage.notes == (
        "1 live blocks were at impossible addresses or of no known site",
    )
    assert len(after.blocks) == len(before.blocks)
    assert after.sites["live_count"][0] == 1
    assert after.sites["live_bytes"].sum() == before.sites["live_bytes"].sum()


def test_a_block_that_is_just_being_moved_counts_once(file):
    (place, *_), empty = file.blocks()
    before = live.read(file.path)
    block = file.at(place, layout.BLOCK_DTYPE)
    file.put(empty + 8, "Q", int(block["what"]))
    file.put(empty, "Q", int(block["where"]))
    after = live.read(file.path)
    assert np.array_equal(after.blocks, before.blocks)
    assert after.coverage.notes == ()


def test_a_frame_without_caller_becomes_an_outermost_one(file):
    file.put(file.member("nodes", 2, layout.NODE_DTYPE, "parent"), "I", 2)
    assert note(file).startswith("1 stack frames pointed to")
    assert live.read(file.path).nodes["parent"][2] == 0


def test_a_frame_in_an_unknown_module_is_in_none(file):
    file.put(file.member("nodes", 2, layout.NODE_DTYPE, "module"), "H", 4000)
    assert note(file).startswith("1 stack frames pointed to")


@pytest.mark.parametrize(("member", "form", "value"), [("node", "I", 1 << 20), ("kind", "B", 99)])
def test_a_site_of_an_unknown_stack_is_kept_without(file, member, form, value):
    file.put(file.member("sites", 1, layout.SITE_DTYPE, member), form, value)
    before = file.header["site_count"]
    assert note(file) == "1 allocation sites pointed to a stack that is not there"
    assert len(live.read(file.path).sites) == before


@pytest.mark.parametrize(
    ("member", "form", "value"), [("site", "I", 1 << 18), ("start", "Q", 1 << 60)]
)
def test_impossible_mappings_are_told(file, member, form, value):
    file.put(file.member("ranges", 3, layout.RANGE_DTYPE, member), form, value)
    assert note(file) == "1 mappings were at impossible addresses or of no known site"


def test_a_module_without_a_name_stays_a_module(file):
    file.put(file.member("modules", 1, layout.MODULE_DTYPE, "path_offset"), "I", 1 << 30)
    assert note(file) == "1 modules have no readable path or build-id"
    module = live.read(file.path).modules[1]
    assert (module.path, module.build_id) == ("", None)


def used_shard(file):
    (used, *_) = np.flatnonzero(file.header["shards"]["capacity"])
    return FIELDS["shards"] + int(used) * layout.SHARD_DTYPE.itemsize


def test_a_shard_that_is_nowhere_is_told(file):
    file.put(used_shard(file), "Q", 4096)
    assert note(file) == "1 of the 1024 parts of the block table could not be found"


def test_two_shards_at_one_place_are_read_once(file):
    before = live.read(file.path)
    (used, *_) = np.flatnonzero(file.header["shards"]["capacity"])
    (free, *_) = np.flatnonzero(file.header["shards"]["capacity"] == 0)
    size = layout.SHARD_DTYPE.itemsize
    for name, form in (("capacity", "I"), ("offset", "Q")):
        inner = int(free) * size + layout.SHARD_DTYPE.fields[name][1]
        file.put_header("shards", form, int(file.header["shards"][used][name]), inner)
    assert note(file) == "1 of the 1024 parts of the block table could not be found"
    assert np.array_equal(live.read(file.path).blocks, before.blocks)


def test_a_shard_that_claims_gigabytes_of_nothing_costs_nothing(file):
    before = live.read(file.path)
    (free, *_) = np.flatnonzero(file.header["shards"]["capacity"] == 0)
    shard = FIELDS["shards"] + int(free) * layout.SHARD_DTYPE.itemsize
    file.put(shard + layout.SHARD_DTYPE.fields["capacity"][1], "I", 1 << 29)
    file.put(shard, "Q", int(file.header["bump"]))
    start = time.process_time()
    after = live.read(file.path)
    assert time.process_time() - start < 1
    assert np.array_equal(after.blocks, before.blocks)


def test_a_shard_left_in_the_middle_of_a_change_is_taken_as_it_is(file):
    before = live.read(file.path)
    shard = used_shard(file)
    sequence = layout.SHARD_DTYPE.fields["sequence"][1]
    file.put(shard + sequence, "I", int(file.at(shard, layout.SHARD_DTYPE)["sequence"]) | 1)
    assert "1 of the 1024 parts of the block table were being replaced" in note(file)
    assert np.array_equal(live.read(file.path).blocks, before.blocks)


def shown_row(file) -> int:
    """A row of the timeline that a reader shows: of those of one tick it shows one."""
    rows = file.header["rows"]
    ticks, counts = np.unique(rows["tick"], return_counts=True)
    alone = np.isin(rows["tick"], ticks[counts == 1])
    return int(np.flatnonzero((rows["sites"] > 1) & alone)[0])


def test_the_highest_of_the_timeline_is_the_peak(file):
    row = shown_row(file)
    start = int(file.header["rows"]["offset"][row])
    file.put(start + layout.TIMELINE_ENTRY_DTYPE.itemsize, "f", 2.0**30)
    sites = live.read(file.path).sites
    assert sites["peak_bytes"][1] == 1 << 30
    assert sites["live_bytes"][1] < 1 << 30


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e30])
def test_an_impossible_size_in_the_timeline_is_told(file, value):
    row = shown_row(file)
    start = int(file.header["rows"]["offset"][row])
    file.put(start + layout.TIMELINE_ENTRY_DTYPE.itemsize, "f", value)
    assert note(file) == "1 row of the timeline held impossible sizes or claims"


def test_a_row_that_claims_more_sites_than_fit_is_left_out(file):
    rows = len(live.read(file.path).timeline.times_ns)
    sites = layout.TIMELINE_ROW_DTYPE.fields["sites"][1]
    row = shown_row(file) * layout.TIMELINE_ROW_DTYPE.itemsize
    file.put_header("rows", "I", 1 << 24, row + sites)
    assert note(file) == "1 row of the timeline held impossible sizes or claims"
    assert len(live.read(file.path).timeline.times_ns) == rows - 1


def test_trouble_that_the_agent_had_is_told(file):
    file.put_header("trouble", "I", 1 | 4)
    assert live.read(file.path).coverage.troubles == ("own_malloc", "no_grow")


@pytest.mark.parametrize(
    ("member", "form", "value", "sentence"),
    [
        ("version", "I", 5, "newer leakscope: its format is version 5"),
        ("magic", "Q", 1, "is not a recording"),
        ("magic", "Q", 0, "holds nothing yet"),
        ("header_bytes", "I", 100, "another build of the agent"),
        ("mode", "I", 9, "its mode is 9"),
        ("tick_shift", "I", 60, "clock makes no sense"),
        ("counter_last", "Q", 1 << 50, "clock makes no sense"),  # ticks of less than a nanosecond
        ("node_count", "I", 1 << 31, "claims 2147483648 nodes"),
        ("string_bytes", "Q", 1 << 40, "strings lie outside"),
        ("stripes", "Q", 1 << 40, "stripes lies outside"),
        ("file_bytes", "Q", 1 << 50, "is truncated"),
        ("sites", "Q", 1 << 50, "area of sites lies outside"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(file, member, form, value, sentence):
    file.put_header(member, form, value)
    with pytest.raises(RecordingError, match=sentence) as caught:
        load(file.path)
    assert str(file.path) in str(caught.value)
    assert caught.value.hint


def test_a_program_killed_before_the_agent_started_left_nothing(agent, programs, tmp_path):
    """As after SIGKILL between making the file and the first allocation."""
    subprocess.run(
        [programs("leak_once")],
        env=environment(agent, tmp_path),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (path,) = tmp_path.glob("*.live")
    with path.open("r+b") as file:
        file.write(bytes(8))
    with pytest.raises(RecordingError, match="ended, or was stopped, before the agent was ready"):
        load(path)
