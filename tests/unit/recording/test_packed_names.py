# SPDX-License-Identifier: Apache-2.0
"""Frames with names, kinds that sources add, and columns that are absent, in a packed file."""

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest

from leakscope.errors import RecordingError
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.columns import LIFETIMES, Column
from leakscope.model.frames import Address, FrameName, Module
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import KIND_NAMES, Recording
from leakscope.recording import load, packed
from unit.recording.recordings import assert_equal, built
from unit.recording.test_packed import rewritten

DATA = Path(__file__).parent / "data"


def foreign() -> Recording:
    """Held bytes of two sites; a stack of both kinds of frames, and of one that has both."""
    make = RecordingBuilder(duration_ns=None)
    module = make.module(Module("/opt/vm", "cd" * 20, 0x1000, 0x9000, 0))
    java = FrameName("push", "Queue.java", 7, class_name="com.x.Queue", interpreter="java")
    stack = [
        BuiltFrame(Address(module, 0x40, exact=True)),
        BuiltFrame(name=java),
        BuiltFrame(Address(None, 0x7F00), FrameName("caf\udce9", inlined=True, line=0)),
    ]
    first = make.site(make.stack(stack, truncated=True), "class", live_bytes=900, live_count=3)
    make.site(make.stack(stack[1:]), "malloc", live_bytes=1, live_count=1)
    make.reach(first, Reachability.DEFINITELY_LOST, 2, 600)
    make.reach(first, Reachability.REACHABLE, 1, 300)
    return make.build()


def test_names_kinds_and_what_is_absent_come_back(tmp_path):
    recording = foreign()
    packed.write(recording, tmp_path / "f")
    assert_equal(recording, load(tmp_path / "f"))
    found = load(tmp_path / "f")
    assert found.kinds == (*KIND_NAMES, "class")
    assert found.kinds[int(found.sites["kind"][1])] == "class"
    assert not found.knows(Column.FREES)
    assert found.total(Column.FREES) is None
    assert found.total(Column.LIVE_BYTES) == 901
    assert not found.absent.isdisjoint(LIFETIMES)
    assert found.site_reach["definite_bytes"][1] == 600
    assert found.names[0].class_name is None or found.names[1].class_name is None


@pytest.mark.parametrize("column", sorted(Column))
def test_each_column_can_be_absent_alone(column, tmp_path):
    recording = dataclasses.replace(built(), reachability=None, absent=frozenset({column}))
    packed.write(recording, tmp_path / "f")
    found = load(tmp_path / "f")
    assert found.absent == {column}
    if column.site_field is not None:
        assert not found.sites[column.site_field].any()
    assert np.array_equal(found.sites["kind"], recording.sites["kind"])


def version_of(path: Path) -> int:
    return struct.unpack_from("<I", path.read_bytes(), 8)[0]


def test_only_what_an_older_leakscope_would_misread_asks_for_a_newer_one(tmp_path):
    packed.write(built(), tmp_path / "plain")
    packed.write(foreign(), tmp_path / "named")
    assert version_of(tmp_path / "plain") == 1
    assert version_of(tmp_path / "named") == packed.VERSION == 2


def test_recordings_of_version_0_1_are_read():
    """Written by leakscope 0.1 and never changed since."""
    assert version_of(DATA / "built-0.1.recording") == 1
    assert_equal(built(blocks=200), load(DATA / "built-0.1.recording"))
    real = load(DATA / "leak_once-0.1.recording")
    assert real.kinds == KIND_NAMES
    assert real.absent == frozenset()
    assert not real.nodes["name"].any()
    assert int(real.sites["live_bytes"].sum()) == 4000


def change_kinds(facts):
    facts["kinds"] = [1]


def change_absent(facts):
    facts["absent"] = ["sites.colour"]


def change_texts(facts):
    facts["strings"] = ["one"]


def change_node_names(facts):
    for name in [name for name in facts["columns"] if name.startswith("names.")]:
        del facts["columns"][name]


def change_fewer_kinds(facts):
    facts["kinds"] = []


@pytest.mark.parametrize(
    "change", [change_kinds, change_absent, change_texts, change_node_names, change_fewer_kinds]
)
def test_damage_is_one_sentence(change, tmp_path):
    packed.write(foreign(), tmp_path / "f")
    (tmp_path / "f").write_bytes(rewritten((tmp_path / "f").read_bytes(), change))
    with pytest.raises(RecordingError, match="damaged"):
        load(tmp_path / "f")
