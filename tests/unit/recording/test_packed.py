# SPDX-License-Identifier: Apache-2.0
"""The packed file: what goes in comes out, and nothing else ever does."""

import dataclasses
import json
import os
import resource
import stat
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from leakscope.errors import RecordingError
from leakscope.model.census import Tally
from leakscope.model.earlier import MOST_CONTENTS, Earlier, EarlierContent
from leakscope.model.free_errors import RecordedFreeError
from leakscope.model.recordings import BLOCK_DTYPE, RANGE_DTYPE
from leakscope.recording import live, load, packed
from unit.recording.recordings import assert_equal, built

START = struct.Struct("<8sIIQQQQ")


def rewritten(data: bytes, change) -> bytes:
    """The same file with another directory, checksum and all."""
    _, _, _, offset, stored, *_ = START.unpack_from(data)
    facts = json.loads(zlib.decompress(data[offset : offset + stored]))
    change(facts)
    plain = json.dumps(facts).encode()
    directory = zlib.compress(plain)
    start = START.pack(
        packed.MAGIC,
        packed.VERSION,
        zlib.crc32(directory),
        offset,
        len(directory),
        len(plain),
        offset + len(directory),
    )
    return start + data[START.size : offset] + directory


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "app.42.leakscope"
    packed.write(built(), path)
    return path


def refused(path) -> RecordingError:
    with pytest.raises(RecordingError) as caught:
        load(path)
    error = caught.value
    assert str(path) in str(error)
    assert "\n" not in str(error)
    assert error.hint
    return error


def test_every_member_comes_back(file):
    assert_equal(built(), packed.read(file))
    assert_equal(built(), load(file))


@pytest.mark.parametrize("blocks", [0, 1, 2, (1 << 17) - 1, 1 << 17, (1 << 17) + 1, 300_000])
def test_tables_of_every_length_come_back(blocks, tmp_path):
    recording = built(blocks=blocks, sites=1, nodes=1, rows=0)
    packed.write(recording, tmp_path / "f")
    assert_equal(recording, packed.read(tmp_path / "f"))


def test_what_is_unset_stays_unset(tmp_path):
    recording = dataclasses.replace(
        built(),
        timeline=dataclasses.replace(built().timeline, rss_bytes=None),
        blocks=np.zeros(0, BLOCK_DTYPE),
        ranges=np.zeros(0, RANGE_DTYPE),
        modules=(),
        nodes=built(nodes=1).nodes,
        sites=built(nodes=1).sites,
        reachability=None,
        scan=None,
    )
    packed.write(recording, tmp_path / "f")
    assert_equal(recording, packed.read(tmp_path / "f"))


def test_a_real_recording_packs_small_and_comes_back(trace, tmp_path):
    (path,) = trace("leak_rare_error_path")
    recording = live.read(path)
    packed.write(recording, tmp_path / "f")
    assert_equal(recording, load(tmp_path / "f"))
    assert (tmp_path / "f").stat().st_size < 16_000


def test_live_blocks_take_few_bytes(tmp_path):
    recording = built(blocks=100_000)
    packed.write(recording, tmp_path / "f")
    assert (tmp_path / "f").stat().st_size < 12 * 100_000  # 28 each in memory


def test_the_file_is_its_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        packed.write(built(), tmp_path / "f")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def test_a_link_is_replaced_and_what_it_points_to_left_alone(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "f").symlink_to(precious)
    packed.write(built(), tmp_path / "f")
    assert precious.read_text() == "mine"
    assert not (tmp_path / "f").is_symlink()
    assert_equal(built(), load(tmp_path / "f"))


def test_an_earlier_recording_is_replaced_whole(tmp_path):
    packed.write(built(blocks=50_000), tmp_path / "f")
    packed.write(built(blocks=3), tmp_path / "f")
    assert_equal(built(blocks=3), load(tmp_path / "f"))
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("place", ["missing/f", "directory", "fifo", "f\0", "x" * 300])
def test_a_place_that_cannot_be_written_is_one_sentence(place, tmp_path):
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RecordingError, match="f"):
        packed.write(built(), tmp_path / place)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["directory", "fifo"]
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_when_the_disk_is_full_nothing_is_left_and_the_old_file_stays(tmp_path):
    path = tmp_path / "f"
    packed.write(built(blocks=3), path)
    code = f"""
import resource, sys
sys.path[:0] = {sys.path!r}
from leakscope.errors import RecordingError
from leakscope.recording import packed
from unit.recording.recordings import built
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, {resource.RLIM_INFINITY}))
try:
    packed.write(built(blocks=100000), {str(path)!r})
except RecordingError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {path}: File too large\n"
    assert [each.name for each in tmp_path.iterdir()] == ["f"]
    assert_equal(built(blocks=3), load(path))


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 11, 12, 47, 48, 49, 1000, -1])
def test_a_truncated_file_says_so(file, keep):
    data = file.read_bytes()
    file.write_bytes(data[:keep])
    error = refused(file)
    if keep in {12, 47, 48, 49, 1000, -1}:
        assert "is truncated:" in str(error)


def test_a_newer_file_asks_for_a_newer_leakscope(file):
    data = bytearray(file.read_bytes())
    data[8:12] = (packed.VERSION + 1).to_bytes(4, "little")
    file.write_bytes(data[:100])  # what follows may be anything in a later version
    error = refused(file)
    assert f"newer leakscope: its format is version {packed.VERSION + 1}" in str(error)
    assert "Upgrade" in error.hint


def test_a_file_copied_in_text_mode_is_no_recording(file):
    file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n"))
    assert "is not a recording" in str(refused(file))


@pytest.mark.parametrize("content", [b"", b"\0" * 100_000, b"\x7fELF" + bytes(60), b"hello\n"])
def test_other_files_are_no_recordings(content, tmp_path):
    (tmp_path / "f").write_bytes(content)
    assert "is not a recording" in str(refused(tmp_path / "f"))


def test_what_is_no_regular_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert "is not a regular file" in str(refused(tmp_path / "fifo"))
    assert "is a directory" in str(refused(tmp_path))
    assert "No such file" in str(refused(tmp_path / "none"))


def test_a_flipped_bit_anywhere_in_the_data_is_noticed(file):
    data = file.read_bytes()
    for at in range(START.size, len(data), 97):
        wrong = bytearray(data)
        wrong[at] ^= 1 << at % 8
        file.write_bytes(wrong)
        assert "is damaged" in str(refused(file))


def test_a_wrong_checksum_of_the_directory_is_noticed(file):
    data = bytearray(file.read_bytes())
    data[12] ^= 1
    file.write_bytes(data)
    assert "the checksum of its directory is wrong" in str(refused(file))


@pytest.mark.parametrize("claim", [0, 10, 1 << 20, 1 << 40])
def test_a_directory_of_another_length_than_it_says_is_damage(file, claim):
    data = bytearray(file.read_bytes())
    data[32:40] = claim.to_bytes(8, "little")
    file.write_bytes(data)
    assert "its directory c" in str(refused(file))  # claims too much, or cannot be read


def test_columns_and_facts_of_a_later_leakscope_are_passed_over(file):
    def add(facts):
        facts["weather"] = {"sunny": True}
        facts["process"]["mood"] = 3
        facts["columns"]["sites.colour"] = facts["columns"]["sites.kind"]

    file.write_bytes(rewritten(file.read_bytes(), add))
    assert_equal(built(), load(file))


def put(*keys):
    *path, last, value = keys

    def change(facts):
        for key in path:
            facts = facts[key]
        facts[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("tick_ns", 0), "clock makes no sense"),
        (put("tick_ns", "1"), "tick_ns is not what it should be"),
        (put("tick_ns", 10**400), "tick_ns is not what it should be"),
        (put("duration_ns", -1), "clock makes no sense"),
        (put("duration_ns", True), "duration_ns is not what it should be"),
        (put("process", None), "Process is not an object"),
        (put("process", "pid", "42"), "Process.pid is not what it should be"),
        (put("process", "pid", 1 << 64), "Process.pid is not what it should be"),
        (put("scan", "pause_ms", float("inf")), "ScanFacts.pause_ms is not what it should be"),
        (put("process", "exe", ["a"]), "Process.exe is not what it should be"),
        (put("coverage", "dropped", {"early": "many"}), "Coverage.dropped"),
        (put("coverage", "notes", [1]), "Coverage.notes"),
        (put("modules", {}), "lists no modules"),
        (put("modules", 0, {}), "a member of Module is missing"),
        (put("modules", []), "frame or module that is not there"),
        (put("scan", []), "ScanFacts is not an object"),
        (put("columns", []), "names no columns"),
        (put("columns", "deaths", {}), "a member of _Column is missing"),
        (put("columns", "blocks.size", "rows", 999), "columns of blocks differ in length"),
        (put("columns", "deaths", "rows", 1), "of another length"),
        (put("columns", "deaths", "offset", -1), "column deaths is nowhere"),
        (put("columns", "deaths", "offset", 1 << 62), "it ends too early"),
        (put("columns", "deaths", "bytes", 1), "it ends too early"),
        (lambda facts: facts["columns"].pop("nodes.parent"), "nodes.parent is missing"),
        (lambda facts: facts["columns"].update(deaths=facts["columns"]["nodes.flags"]), "deaths"),
    ],
)
def test_a_directory_that_makes_no_sense_is_damage(change, sentence, file):
    file.write_bytes(rewritten(file.read_bytes(), change))
    assert sentence in str(refused(file))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999", "[" * 100_000])
def test_json_that_is_none_is_damage(constant, file, monkeypatch):
    monkeypatch.setattr(json, "dumps", lambda _: f'{{"tick_ns": {constant}}}')
    data = rewritten(file.read_bytes(), lambda _: None)
    file.write_bytes(data)
    assert "is damaged" in str(refused(file))


def test_a_claim_of_endless_rows_is_refused_before_they_are_made(file):
    def claim(facts):
        for name, column in facts["columns"].items():
            if name.startswith("blocks."):
                column["rows"] = 1 << 50

    file.write_bytes(rewritten(file.read_bytes(), claim))
    assert "claims to hold" in str(refused(file))


@pytest.mark.parametrize(
    ("table", "column", "value", "sentence"),
    [
        ("nodes", "parent", 3, "frame or module that is not there"),
        ("nodes", "module", 3, "frame or module that is not there"),
        ("sites", "node", 50, "stack or kind that is not there"),
        ("sites", "kind", 8, "stack or kind that is not there"),
        ("blocks", "site", 20, "site that is not there"),
        ("ranges", "site", 20, "site that is not there"),
    ],
)
def test_references_that_lead_nowhere_are_damage(table, column, value, sentence, tmp_path):
    recording = built()
    getattr(recording, table)[column][2] = value
    packed.write(recording, tmp_path / "f")
    assert sentence in str(refused(tmp_path / "f"))


def test_impossible_timelines_are_damage(tmp_path):
    recording = built()
    recording.timeline.times_ns[2] = 0
    packed.write(recording, tmp_path / "f")
    assert "runs backwards" in str(refused(tmp_path / "f"))
    recording = built()
    recording.timeline.site_bytes[2, 1] = np.nan
    packed.write(recording, tmp_path / "f")
    assert "impossible sizes" in str(refused(tmp_path / "f"))


def test_wrong_frees_come_back_and_earlier_files_have_none(tmp_path):
    error = RecordedFreeError(2, 1, 1, 3, 2, 1 << 46, 100, 0, 1, 1, 0, 5, 7)
    recording = dataclasses.replace(built(), free_errors=(error,))
    packed.write(recording, tmp_path / "r")
    assert load(tmp_path / "r").free_errors == (error,)
    data = (tmp_path / "r").read_bytes()
    (tmp_path / "old").write_bytes(rewritten(data, lambda facts: facts.pop("free_errors")))
    assert load(tmp_path / "old").free_errors == ()
    for member, value in (("site", 1 << 20), ("node", 1 << 20), ("kind", 9), ("count", -1)):
        change = {**dataclasses.asdict(error), member: value}
        (tmp_path / "bad").write_bytes(
            rewritten(data, lambda facts, change=change: facts.update(free_errors=[change]))
        )
        with pytest.raises(RecordingError, match="wrong frees makes no sense"):
            load(tmp_path / "bad")


EARLIER = Earlier(
    "glibc 2.36", Tally(10, 1000, 2, 200), (EarlierContent("text", 100, Tally(4, 400)),), 1.5,
    Tally(6, 600, 3, 300), Tally(4, 400, 1, 100), Tally(2, 200, 2, 200), 2.5,
)  # fmt: skip


@pytest.mark.parametrize("earlier", [EARLIER, dataclasses.replace(EARLIER, there=None), None])
def test_the_earlier_heap_comes_back(earlier, tmp_path):
    packed.write(dataclasses.replace(built(), earlier=earlier), tmp_path / "r")
    assert load(tmp_path / "r").earlier == earlier


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("earlier", "then", "blocks", -1), "counts that cannot be"),
        (put("earlier", "then", "lost_bytes", 1001), "counts that cannot be"),
        (put("earlier", "freed", "bytes", 1 << 63), "counts that cannot be"),
        (put("earlier", "contents", 0, "size", -5), "is not what it should be"),
        (put("earlier", "contents", 0, "what", 7), "EarlierContent.what is not"),
        (put("earlier", "then", None), "Earlier.then|Tally is not an object"),
        (put("earlier", []), "Earlier is not an object"),
    ],
)
def test_an_earlier_heap_that_cannot_be_is_damage(change, sentence, tmp_path):
    packed.write(dataclasses.replace(built(), earlier=EARLIER), tmp_path / "r")
    (tmp_path / "bad").write_bytes(rewritten((tmp_path / "r").read_bytes(), change))
    with pytest.raises(RecordingError, match=sentence):
        load(tmp_path / "bad")


def test_an_earlier_heap_of_more_rows_than_are_written_is_damage(tmp_path):
    many = dataclasses.replace(EARLIER, contents=EARLIER.contents * (MOST_CONTENTS + 1))
    packed.write(dataclasses.replace(built(), earlier=many), tmp_path / "r")
    with pytest.raises(RecordingError, match="earlier heap is not what it should be"):
        load(tmp_path / "r")
