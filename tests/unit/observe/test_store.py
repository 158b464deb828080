# SPDX-License-Identifier: Apache-2.0
"""The recording of a watch: what goes in comes out, and what is no recording is refused."""

import contextlib
import dataclasses
import os
import struct
import subprocess
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakscope.errors import RecordingError
from leakscope.model.series import Subject
from leakscope.observe import store, store_reader
from leakscope.observe.measures import Measure, Pass
from leakscope.observe.store import MAGIC, StoreWriter, is_store
from leakscope.observe.store_reader import StoreReader

MS = 1_000_000
A = Subject("process", "7@70", "a\n<b>", 7, "/bin/a", 700, 1024.0)
B = Subject("slab", "dentry", "dentry")


def a_pass(ms, *measures):
    return Pass(ms * MS, measures, len({m.subject for m in measures} - {B}), 0.0, 0.0)


def size(subject, kib, metric="anon", *, sparse=False):
    return Measure(subject, metric, "bytes", kib * 1024, sparse)


def write(path, passes, asleep=0):
    writer = StoreWriter(path, {"interval_s": 1})
    for one in passes:
        writer.add(one, asleep_ns=asleep)
    writer.close()
    return path


def read(path, **options):
    return [one for one, _ in StoreReader(path).passes(**options)]


PASSES = [
    a_pass(
        1000, size(A, 5), size(B, 70), Measure(A, "fds", "count", 3), size(A, 9, "pss", sparse=True)
    ),
    a_pass(2000, size(A, 5), size(B, 60), Measure(A, "fds", "count", 1 << 40)),
    a_pass(3500, size(B, 60)),
    a_pass(4000, size(B, 61), size(A, 1)),
]


def test_what_goes_in_comes_out(tmp_path):
    path = write(tmp_path / "r", PASSES, asleep=5 * MS)
    back = read(path)
    assert [(p.time_ns, set(p.measures)) for p in back] == [
        (p.time_ns, set(p.measures)) for p in PASSES
    ]
    assert {asleep for _, asleep in StoreReader(path).passes()} == {5 * MS}
    assert is_store(path)
    assert path.stat().st_mode & 0o777 == 0o600


@given(
    st.lists(st.dictionaries(st.integers(0, 5), st.integers(0, 1 << 40), max_size=6), max_size=12)
)
def test_any_course_comes_back(tmp_path_factory, courses):
    passes = [
        a_pass(n + 1, *(size(Subject("process", str(k), "x", k), v) for k, v in course.items()))
        for n, course in enumerate(courses)
    ]
    path = write(tmp_path_factory.mktemp("s") / "r", passes)
    assert [set(p.measures) for p in read(path)] == [set(p.measures) for p in passes]


def test_questions_about_a_part_of_it(tmp_path):
    path = write(tmp_path / "r", PASSES)
    assert [p.time_ns // MS for p in read(path, stride=2)] == [1000, 3500]
    assert [p.time_ns // MS for p in read(path, since_ns=2000 * MS, until_ns=3500 * MS)] == [
        2000,
        3500,
    ]


def test_every_truncated_tail_gives_what_was_whole(tmp_path):
    path = write(tmp_path / "r", PASSES)
    whole = path.read_bytes()
    counts = []
    for length in range(len(MAGIC), len(whole) + 1):
        cut = tmp_path / "cut"
        cut.write_bytes(whole[:length])
        with contextlib.suppress(RecordingError):  # before the first frame is whole
            counts.append(len(read(cut)))
    assert sorted(set(counts)) == [0, 1, 2, 3, 4]
    assert counts == sorted(counts)
    assert StoreReader(cut).truncated is False
    cut.write_bytes(whole[:-1])
    assert StoreReader(cut).truncated is True


def test_killed_in_the_middle_it_can_be_read(tmp_path):
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from leakscope.observe.store import StoreWriter
from leakscope.observe.measures import Measure, Pass
from leakscope.model.series import Subject
w = StoreWriter({str(tmp_path / "r")!r}, {{}})
for n in range(1, 51):
    w.add(Pass(n * 10**9, (Measure(Subject("process", "1", "x", 1), "anon", "bytes", n * 1024),), 1, 0, 0))
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert [p.measures[0].value for p in read(tmp_path / "r")] == [n * 1024 for n in range(1, 51)]


def test_one_wrong_byte_is_noticed_or_harmless(tmp_path):
    path = write(tmp_path / "r", PASSES)
    whole = path.read_bytes()
    good = [set(p.measures) for p in read(path)]
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            found = [set(p.measures) for p in read(path)]
        except RecordingError:
            refused += 1
        else:
            assert found == good[: len(found)]  # taken for a tail that a crash cut off
            assert len(found) < len(good)
    assert refused > len(whole) // 2


@given(st.binary(max_size=200))
def test_garbage_with_a_right_checksum_is_a_recording_error(tmp_path_factory, garbage):
    path = write(tmp_path_factory.mktemp("s") / "r", PASSES[:1])
    data = zlib.compress(garbage)
    frame = struct.pack("<II", len(data), zlib.crc32(data)) + data
    path.write_bytes(path.read_bytes() + frame)
    with contextlib.suppress(RecordingError):  # and nothing else
        read(path)


@pytest.mark.parametrize("content", [b"", b"x", b"LKSGAUGF" + b"\0" * 90, b"\x7fELF" * 30])
def test_what_is_no_recording_is_refused(tmp_path, content):
    path = tmp_path / "r"
    path.write_bytes(content)
    assert not is_store(path)
    with pytest.raises(RecordingError, match="no recording of leakscope watch"):
        StoreReader(path)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("leakscope.observe.store_reader.MAX_PAYLOAD", 1 << 16)
    path = write(tmp_path / "r", PASSES)
    data = zlib.compress(b"\0" * (1 << 20))
    frame = struct.pack("<II", len(data), zlib.crc32(data)) + data
    path.write_bytes(path.read_bytes() + frame)
    with pytest.raises(RecordingError, match="unpacks to too much"):
        read(path)


def test_nothing_is_overwritten_and_no_link_followed(tmp_path):
    path = write(tmp_path / "r", PASSES)
    with pytest.raises(RecordingError, match="exists already"):
        StoreWriter(path, {})
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordingError):
        StoreWriter(tmp_path / "link", {})
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_is_said_and_what_was_written_stays(tmp_path):
    code = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
from leakscope.errors import RecordingError
from leakscope.observe.store import StoreWriter
from leakscope.observe.measures import Measure, Pass
from leakscope.model.series import Subject
w = StoreWriter({str(tmp_path / "r")!r}, {{}})
try:
    for n in range(1, 100):
        w.add(Pass(n * 10**9, (Measure(Subject("process", "1", "x", 1), "anon", "bytes", n * 1024),), 1, 0, 0))
except RecordingError as error:
    print(n, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, _, message = done.stdout.partition(" ")
    assert "cannot write" in message
    assert len(read(tmp_path / "r")) == int(count) - 1
    assert StoreReader(tmp_path / "r").truncated is False


def test_what_did_not_change_takes_no_room(tmp_path):
    subjects = [Subject("process", f"{n}@1", "x", n) for n in range(300)]
    first = [a_pass(1, *(size(s, 100) for s in subjects))]
    short = os.path.getsize(write(tmp_path / "short", first))
    later = [a_pass(n, *(size(s, 100) for s in subjects)) for n in range(2, 102)]
    assert os.path.getsize(write(tmp_path / "long", first + later)) - short < 100 * 40


def test_processes_that_ended_are_not_kept(tmp_path):
    writer = StoreWriter(tmp_path / "r", {})
    for n in range(1, 200):
        s = Subject("process", f"{n}@1", "x", n)
        writer.add(a_pass(n, size(s, 1), size(s, 1, "pss", sparse=True)))
    writer.close()
    assert len(writer._gauges) == len(writer._live) == 2


def many(count, name="x"):
    subjects = [Subject("slab", str(n), name) for n in range(count)]
    measures = tuple(Measure(s, "unreclaimable", "bytes", 4096) for s in subjects)
    return Pass(1_000_000_000, measures, 0, 0.0, 0.0)


@pytest.mark.parametrize("one", [many(11), many(10, "x" * 100)])
def test_more_gauges_than_any_machine_has_are_neither_written_nor_read(tmp_path, monkeypatch, one):
    fits = many(10)
    monkeypatch.setattr("leakscope.observe.store.MAX_HELD", 10 * (512 + 2))
    monkeypatch.setattr("leakscope.observe.store_reader.MAX_HELD", 10 * (512 + 2))
    path = write(tmp_path / "fits", [fits])
    assert len(read(path)) == 1
    with pytest.raises(RecordingError, match="more gauges than a recording holds"):
        write(tmp_path / "refused", [one])
    assert read(tmp_path / "refused") == []
    monkeypatch.setattr("leakscope.observe.store.MAX_HELD", 1 << 20)
    path = write(tmp_path / "hostile", [one])
    with pytest.raises(RecordingError, match="more gauges than a recording holds"):
        StoreReader(path)


def test_a_limit_that_is_changed_is_recorded(tmp_path):
    other = dataclasses.replace(A, limit=4096.0)
    passes = [
        a_pass(1, size(A, 5), size(B, 7)),
        a_pass(2, size(other, 5)),
        a_pass(3, size(other, 6)),
    ]
    back = read(write(tmp_path / "r", passes))
    assert [set(p.measures) for p in back] == [set(p.measures) for p in passes]


def test_damage_ends_what_can_be_read_and_is_said(tmp_path):
    passes = [a_pass(n, size(A, n)) for n in range(1, 40)]
    whole = write(tmp_path / "r", passes).read_bytes()
    size_of_20 = write(tmp_path / "s", passes[:20]).stat().st_size
    for at in (size_of_20, size_of_20 + 4, size_of_20 + 12):  # length, checksum, payload
        (tmp_path / "d").write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(RecordingError, match="is damaged"):
            read(tmp_path / "d")
        assert count_until_damage(tmp_path / "d") == 20


def count_until_damage(path):
    count = 0
    with contextlib.suppress(RecordingError):
        for _ in StoreReader(path).passes():
            count += 1
    return count


def test_several_passes_that_never_reached_the_disk_are_a_cut_off_end(tmp_path):
    passes = [a_pass(n, size(A, n)) for n in range(1, 40)]
    whole = write(tmp_path / "r", passes).read_bytes()
    size_of_34 = write(tmp_path / "s", passes[:34]).stat().st_size
    # The file has its length; the last blocks hold what was on the disk before.
    path = tmp_path / "r"
    for junk in (b"\xa5", b"\0", b"\x78\x9c", b"x"):
        tail = (junk * len(whole))[: len(whole) - size_of_34]
        path.write_bytes(whole[:size_of_34] + tail)
        reader = StoreReader(path)
        assert len(list(reader.passes())) == 34
        assert reader.truncated


def payload(*parts):
    out = bytearray()
    for part in parts:
        if isinstance(part, bytes):
            out += part
        else:
            store._unsigned(out, part)
    return bytes(out)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (payload(0, 0, 0, 2, 0, 0, 0), "more series than there are"),
        (payload(0, 0, 0, 0, 1 << 60), "more series than there are"),
        (payload(0, 0, 1 << 60), "longer than its frame"),
        (payload(0, 0, 200_000, b"[" * 200_000, 0, 0), "endless name"),
        (payload(0, 0, 2, b"{}", 0, 0), "no list"),
        (payload(0, 0, 3, b"[0]", 0, 0), "makes no sense"),
    ],
)
def test_a_pass_that_makes_no_sense_is_damage(tmp_path, content, said):
    path = write(tmp_path / "r", [a_pass(1, size(B, 7))])
    data = zlib.compress(content)
    path.write_bytes(path.read_bytes() + struct.pack("<II", len(data), zlib.crc32(data)) + data)
    with pytest.raises(RecordingError, match=said):
        read(path)


def test_a_number_is_one_series_for_good(tmp_path):
    path = write(tmp_path / "r", [a_pass(1, size(A, 7))])
    other = store._row(0, store.Gauge(B, "reclaimable", "bytes", False)).encode()
    data = zlib.compress(payload(0, 0, len(other), other, 0, 0))
    path.write_bytes(path.read_bytes() + struct.pack("<II", len(data), zlib.crc32(data)) + data)
    with pytest.raises(RecordingError, match="belongs to another series"):
        read(path)


def test_a_disk_that_fails_is_said(tmp_path, monkeypatch):
    def fails(_):
        raise OSError(5, "Input/output error")

    writer = StoreWriter(tmp_path / "r", {})
    monkeypatch.setattr(os, "fdatasync", fails)
    added = iter(range(1, 20))
    with pytest.raises(RecordingError, match="Input/output error"):
        all(writer.add(a_pass(n, size(A, n))) is None for n in added)
    writer.close()
    assert len(read(tmp_path / "r")) == next(added) - 1


@pytest.mark.parametrize(("first", "second"), [(5, 4), (5, 1 << 44)])
def test_passes_out_of_order_are_damage(tmp_path, first, second):
    writer = StoreWriter(tmp_path / "r", {})
    for at in (first, second):
        writer.add(Pass(at * MS, (), 0, 0.0, 0.0))
    writer.close()
    with pytest.raises(RecordingError, match="out of order"):
        list(StoreReader(tmp_path / "r").passes())


def test_blocks_that_were_never_written_before_a_power_cut_are_a_cut_off_end(tmp_path):
    path = write(tmp_path / "r", PASSES)
    whole = read(path)
    path.write_bytes(path.read_bytes() + bytes(4096))
    reader = StoreReader(path)
    assert read(path) == whole
    assert reader.frames == len(PASSES)
    assert reader.truncated


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, "=kind"), (3, []), (3, -1), (3, True), (4, {}), (5, 1 << 70), (6, float("nan")),
        (6, float("inf")), (6, []), (6, 10**400), (7, "=HYPERLINK(1)"), (8, "furlongs"),
    ],
)  # fmt: skip
def test_a_gauge_that_makes_no_sense_is_damage(field, value):
    row = ["process", "7@1", "x", 7, "/bin/x", 1, 10.0, "anon", "bytes", False]
    store_reader._gauge(*row)
    row[field] = value
    with pytest.raises(ValueError, match="a gauge"):
        store_reader._gauge(*row)
