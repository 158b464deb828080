# SPDX-License-Identifier: Apache-2.0
"""gperftools' heap profiles and Go's text form: real files with google-pprof's values, made ones."""

import pytest

import foreign
from foreign import one, written
from leakscope._analysis import analyse
from leakscope.cli import main
from leakscope.errors import RecordingError
from leakscope.formats import read_foreign
from leakscope.model.columns import Column

SAMPLES = foreign.SAMPLES
HEAD = "heap profile:      1:     1024 [     2:     4096] @ {}\n"
RECORD = "     1:     1024 [     2:     4096] @ 0x7feca414ae84\n"
MAPS = "\nMAPPED_LIBRARIES:\n"


@pytest.mark.parametrize(
    ("name", "size", "count", "allocated"),
    [
        ("gperftools/gp.0001.heap", 30_300_000, 40, 60_300_000),
        ("gperftools/gp.sample", 21_068_958, 7, None),
        ("gperftools/gp.growth", 34_119_680, 12, None),
        ("gperftools/cppbench.heap", 80_935_293, None, None),
        ("pprof/go119-heap-debug1.txt", 1_028_568, 109, 6_766_016),
    ],
)
def test_real_files_have_their_right_values(name, size, count, allocated, capsys):
    recording = one(SAMPLES / name)
    exact = recording.coverage.sample_bytes is None
    assert recording.total(Column.LIVE_BYTES) == pytest.approx(size, abs=0 if exact else 31)
    if count is not None:
        assert recording.total(Column.LIVE_COUNT) == count
    assert recording.total(Column.ALLOC_BYTES) == allocated
    assert not any("not whole" in n or "not understood" in n for n in recording.coverage.notes)
    assert main(["report", str(SAMPLES / name)]) == 3
    assert "nothing is known of leaks" in capsys.readouterr().out


def test_the_heaviest_place_is_that_of_google_pprof():
    found = analyse(one(SAMPLES / "gperftools/gp.0001.heap"), debuginfod=False)
    assert found.findings[0].live_bytes / found.live_bytes == pytest.approx(0.990, abs=0.001)
    growth = one(SAMPLES / "gperftools/gp.growth")
    heaviest = analyse(growth, debuginfod=False).findings[0]
    assert heaviest.live_bytes / 34_119_680 == pytest.approx(0.969, abs=0.001)
    assert any("is no leak" in note for note in growth.coverage.notes)


def test_go_names_its_frames_itself():
    recording = one(SAMPLES / "pprof/go119-heap-debug1.txt")
    heaviest = analyse(recording, debuginfod=False).findings[0]
    top = heaviest.stack[0]
    assert (top.function, top.file, top.line) == ("main.leakSite", "/tmp/demo/g/main.go", 12)
    assert recording.coverage.mode == "Go's heap profile"
    assert any("2,370,712 bytes" in note for note in recording.coverage.notes)


def test_the_map_of_servers_has_texts_of_its_own():
    recording = one(SAMPLES / "gperftools/cppbench.heap")
    assert "/home/cppbench_server_main" in {module.path for module in recording.modules}


def test_go_counts_half_the_period(tmp_path):
    go = one(written(tmp_path, HEAD.format("heap/2048") + RECORD + MAPS))
    other = one(written(tmp_path, HEAD.format("heap_v2/1024") + RECORD + MAPS))
    assert go.coverage.sample_bytes == other.coverage.sample_bytes == 1024
    assert go.total(Column.LIVE_BYTES) == other.total(Column.LIVE_BYTES) == 1619


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (HEAD.format("heapprofile") + RECORD, "not whole"),
        (HEAD.format("heapprofile") + RECORD[:-5], "not whole"),
        (HEAD.format("heapprofile") + RECORD.replace(" 0x7feca414ae84", "") + MAPS, "empty"),
        (HEAD.format("heapprofile") + RECORD.replace("  1:", " -1:", 1) + MAPS, "negative"),
        (HEAD.format("heapprofile") + RECORD + RECORD + MAPS, "records of 2,048"),
        (HEAD.format("heapprofile") + "something\n" + RECORD + MAPS, "1 line was"),
    ],
)
def test_what_is_odd_is_said(text, note, tmp_path, capsys):
    path = written(tmp_path, text)
    assert any(note in each for each in one(path).coverage.notes)
    assert main(["report", str(path)]) == 3
    capsys.readouterr()


def test_a_kind_that_tells_nothing_of_the_heap_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="fragmentationz"):
        read_foreign(written(tmp_path, HEAD.format("fragmentationz") + RECORD))
