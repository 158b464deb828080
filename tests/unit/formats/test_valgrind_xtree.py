# SPDX-License-Identifier: Apache-2.0
"""valgrind's execution trees as it wrote them here: leaks, what is held, cut and damaged."""

import pytest
from hypothesis import HealthCheck, given, settings

from foreign import damaged, edits, findings_of, held, notes, one, reached, written
from leakscope.cli import main
from leakscope.errors import RecordingError
from leakscope.formats import foreign_format, read_foreign

HEAD = """\
# callgrind format
version: 1
creator: xtree-1
pid: 3894
cmd: ./leaky --often

positions: line
"""
LEAKS = (
    HEAD
    + """\
event: RB : Reachable Bytes
events: RB  PB  IB  DB  DIB  RBk  PBk  IBk  DBk  iRB\x20
fl=(1) /src/leaky.c
fn=(1) main
17
cfi=(1)
cfn=(2) lose_list
calls=0 11
17 0 0 64 240 224 0 0 4 1 0
fl=(1)
fn=(2)
11
cfi=(2) UnknownFile???
cfn=(4) malloc
calls=0 0
11 0 0 64 240 224 0 0 4 1 0
fl=(2)
fn=(4)
0 0 0 64 240 224 0 0 4 1 0

fl=(1)
fn=(1)
18
cfi=(2)
cfn=(5) operator new(unsigned long)
calls=0 0
18 320 50 160 0 0 1 2 5 0 0
fl=(2)
fn=(5)
0 320 50 160 0 0 1 2 5 0 0

totals: 320 50 224 240 224 1 2 9 1 0
"""
)
HELD = (
    HEAD
    + """\
events: curB  curBk  totB  totBk  totFdB  totFdBk\x20
fl=(1) /src/leaky.c
fn=(1) main
17 320 1 400 3 80 2

totals: 320 1 400 3 80 2
"""
)


def test_leaks_of_each_kind_with_their_stacks(tmp_path):
    path = written(tmp_path, LEAKS)
    assert foreign_format(path) == "an execution tree of valgrind"
    recording = one(path)
    assert reached(recording) == ((16, 1), (224, 9), (50, 2), (320, 1))
    assert (recording.process.pid, recording.process.exe) == (3894, "./leaky")
    leak = next(f for f in findings_of(recording).findings if f.lost_bytes == 80)
    assert leak.kind == "malloc"
    assert [(f.function, f.file, f.line) for f in leak.stack] == [
        ("lose_list", "/src/leaky.c", 11),
        ("main", "/src/leaky.c", 17),
    ]
    assert not notes(recording)


def test_what_is_held_is_no_leak(tmp_path):
    recording = one(written(tmp_path, HELD))
    assert held(recording) == (320, 1)
    assert [int(recording.sites[name].sum()) for name in ("allocs", "frees")] == [3, 2]
    assert recording.site_reach is None
    assert main(["report", str(written(tmp_path, HELD))]) == 3


@pytest.mark.parametrize(("text", "status"), [(LEAKS, 1), (HELD, 3)])
def test_a_tree_that_is_cut_says_so(text, status, tmp_path, capsys):
    cut = text[: text.index("totals:")]
    assert "its totals are missing" in notes(one(written(tmp_path, cut)))
    assert main(["report", str(written(tmp_path, cut))]) == status
    nothing = LEAKS[: LEAKS.index("fl=(1)")]
    assert main(["report", str(written(tmp_path, nothing))]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_other_profiles_are_still_none(tmp_path):
    with pytest.raises(RecordingError, match="nothing of memory"):
        read_foreign(written(tmp_path, LEAKS.replace("xtree-1", "callgrind-3.19.0")))
    massif = "desc: xtree.produce_report\ncmd: ./a\ntime_unit: ms\n#-----------\nsnapshot=0\n"
    with pytest.raises(RecordingError, match="different figures of one moment"):
        read_foreign(written(tmp_path, massif))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(edited=edits(b"fn=(1) x", b"calls=0 1\n", b"events: RB DB", b"9999999999999999999 1\n"))
def test_damaged_trees_are_read_or_refused(tmp_path_factory, edited):
    damaged(tmp_path_factory, LEAKS.encode(), edited)
