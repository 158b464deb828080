# SPDX-License-Identifier: Apache-2.0
"""jemalloc's heap profiles: real files with the values that jeprof finds, and made ones."""

import gzip
import lzma

import pytest

import foreign
from foreign import one, written
from leakscope._analysis import analyse
from leakscope.cli import main
from leakscope.errors import RecordingError
from leakscope.formats import foreign_format, read_foreign
from leakscope.formats._file import ForeignFile
from leakscope.model.columns import Column

SAMPLES = foreign.SAMPLES / "jemalloc"
MADE = """heap_v2/1
  t*: 3: 300 [0: 0]
  t7: 3: 300 [0: 0] a thread: 1
@ 0x401010 0x402000
  t*: 2: 200 [0: 0]
  t7: 2: 200 [0: 0] a thread: 1
@ 0x7000
  t*: 1: 100 [0: 0]

MAPPED_LIBRARIES:
00400000-00403000 r-xp 00000000 fe:00 77                    /nowhere/fixed program
55550000-55560000 r-xp 00001000 fe:00 78                    /nowhere/moved (deleted)
"""


def test_a_profile_of_every_block_is_exact():
    recording = one(SAMPLES / "lg0.f.heap")
    assert recording.total(Column.LIVE_BYTES) == 7_526_720
    assert recording.total(Column.LIVE_COUNT) == 20_263
    assert len(recording.sites) == 1 + 7
    assert recording.coverage.sample_bytes is None
    assert Column.ALLOCS in recording.absent


def test_each_stack_of_samples_is_scaled_by_itself():
    recording = one(SAMPLES / "lg19-accum.f.heap")
    assert recording.total(Column.LIVE_BYTES) == pytest.approx(9_038_007, abs=5)
    assert recording.total(Column.LIVE_COUNT) == pytest.approx(8_574, abs=5)
    assert recording.coverage.sample_bytes == 524_288
    assert recording.knows(Column.ALLOCS, Column.ALLOC_BYTES)
    small = int(recording.sites["live_count"].max())
    assert small == pytest.approx(8_192, abs=1)  # one sample of 64 bytes


def test_frames_of_the_allocators_library_are_left_out_and_others_are_in_their_modules():
    recording = one(SAMPLES / "lg0.f.heap")
    heaviest = analyse(recording, debuginfod=False).findings[0]
    assert heaviest.live_bytes == 3_276_800
    assert [f.module_path for f in heaviest.stack[:2]] == ["/tmp/demo/jm"] * 2
    assert heaviest.stack[0].address.offset == 0x11DA


def test_programs_that_are_not_moved_keep_their_addresses(tmp_path):
    recording = one(written(tmp_path, MADE))
    assert [m.path for m in recording.modules] == ["/nowhere/fixed program"]
    assert [a.offset for a in recording.stack(1)] == [0x401010, 0x402000]
    assert recording.stack(2)[0].module is None
    moved = one(written(tmp_path, MADE.replace("0x7000", "0x55551234")))
    assert moved.modules[1].path == "/nowhere/moved"
    assert moved.stack(2)[0].offset == 0x55551234 - 0x55550000 + 0x1000


@pytest.mark.parametrize("name", ["lg0.f.heap", "lg19-accum.f.heap"])
def test_what_is_held_is_shown_and_is_no_verdict(name, capsys):
    assert main(["report", str(SAMPLES / name)]) == 3
    text = capsys.readouterr().out
    assert "nothing is known of leaks" in text
    assert "0 frees" not in text


def test_a_cut_file_says_so(tmp_path):
    data = (SAMPLES / "lg0.f.heap").read_bytes()
    cut = one(written(tmp_path, data[:1000]))
    assert any("not whole" in note for note in cut.coverage.notes)
    assert not any("not whole" in note for note in one(SAMPLES / "lg0.f.heap").coverage.notes)
    # A number that is cut is none: "t*: 20" of "t*: 20000".
    at = data.index(b"20000: 1280000")
    assert len(one(written(tmp_path, data[: at + 2])).sites) == 1 + 1
    with pytest.raises(RecordingError, match="without any number"):
        read_foreign(written(tmp_path, "heap_v2/512\n"))


def test_an_empty_profile_is_no_proof_of_anything(tmp_path, capsys):
    path = written(tmp_path, "heap_v2/524288\n  t*: 0: 0 [0: 0]\n\nMAPPED_LIBRARIES:\n")
    assert main(["report", str(path)]) == 3
    assert "prof_active" in capsys.readouterr().out


# ---- packed files, of any format


def test_packed_files_are_opened(tmp_path, capsys):
    data = MADE.encode()
    for packed in (
        gzip.compress(data),
        lzma.compress(data),
        gzip.compress(data[:70]) + gzip.compress(data[70:]),
        gzip.compress(data) + b"\0" * 512,
    ):
        recording = one(written(tmp_path, packed))
        assert recording.total(Column.LIVE_BYTES) == 300
        assert not any("not whole" in note for note in recording.coverage.notes)
    assert main(["report", str(written(tmp_path, lzma.compress(data)))]) == 3
    assert "300 B" in capsys.readouterr().out


def test_packed_files_that_are_cut_or_damaged_say_so(tmp_path):
    data = (SAMPLES / "lg0.f.heap").read_bytes()
    packed = gzip.compress(data)
    cut = one(written(tmp_path, packed[: len(packed) // 2]))
    assert any("gzip data end too early" in note for note in cut.coverage.notes)
    damaged = one(written(tmp_path, packed[:-6] + b"\1\2\3\4\5\6"))
    assert any("gzip data are damaged" in note for note in damaged.coverage.notes)
    assert foreign_format(written(tmp_path, b"\x1f\x8b nothing")) is None
    assert foreign_format(written(tmp_path, b"\xfd7zXZ\0 nothing")) is None


def test_what_is_unpacked_is_bounded(tmp_path):
    path = written(tmp_path, gzip.compress(b"\n" * (8 << 20), 1))
    assert path.stat().st_size < 100_000
    with ForeignFile.open(path) as file:
        assert len(file.head(1000)) == 1000
        assert max(len(piece) for piece in file.pieces()) <= 1 << 16
        with pytest.raises(RecordingError, match="larger than 1"):
            list(file.pieces(1 << 20))
