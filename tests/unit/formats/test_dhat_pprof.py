# SPDX-License-Identifier: Apache-2.0
"""DHAT's JSON and pprof's protobuf: real files with their producers' values, and made ones."""

import gzip
import json

import pytest

import foreign
from foreign import one, written
from leakscope._analysis import analyse
from leakscope.cli import main
from leakscope.errors import RecordingError
from leakscope.formats import foreign_format, read_foreign
from leakscope.model.columns import Column

SAMPLES = foreign.SAMPLES


def numbers(recording):
    columns = (Column.ALLOC_BYTES, Column.ALLOCS, Column.LIVE_BYTES, Column.LIVE_COUNT)
    return tuple(recording.total(column) for column in columns)


# ---- DHAT


@pytest.mark.parametrize(
    ("name", "expected", "points", "peak", "top"),
    [
        ("vg319-heap.json", (308_710, 138, 6_260, 38), 6, "10,309", (5_000, "keep_interior")),
        ("dhat-rs-yt.json", (1_101, 3, 1_088, 2), 3, "1,101", (1_024, "<alloc::alloc::Global")),
    ],
)
def test_dhat(name, expected, points, peak, top, capsys):
    recording = one(SAMPLES / "dhat" / name)
    assert numbers(recording) == expected
    assert len(recording.sites) == 1 + points
    assert any(f"at most {peak} bytes" in note for note in recording.coverage.notes)
    first = analyse(recording, debuginfod=False).findings[0]
    assert first.live_bytes == top[0]
    assert first.stack[0].function.startswith(top[1])
    assert main(["report", str(SAMPLES / "dhat" / name)]) == 3
    capsys.readouterr()


def dhat(**changes):
    document = {
        "dhatFileVersion": 2, "mode": "heap", "bklt": True, "tu": "instrs", "cmd": "./a b", "pid": 5,
        "te": 9, "ftbl": ["[root]", "0x10: f (a.c:3:4)", "text"],
        "pps": [{"tb": 9, "tbk": 2, "eb": 0, "ebk": 0, "gb": 9, "fs": [1, 2, 0, 77]}],
    }  # fmt: skip
    return json.dumps({**document, **changes})


def test_a_heap_of_which_all_was_freed_has_no_leak(tmp_path, capsys):
    path = written(tmp_path, dhat())
    recording = one(path)
    assert (recording.process.pid, recording.process.exe) == (5, "./a")
    assert [(n.function, n.line, n.column) for n in recording.names] == [
        ("text", None, None),
        ("f", 3, 4),
    ]
    assert main(["report", str(path)]) == 0
    bad = {"tb": 9, "tbk": 2, "eb": 10, "ebk": 0, "fs": []}
    assert main(["report", str(written(tmp_path, dhat(pps=[bad])))]) == 3
    capsys.readouterr()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ((SAMPLES / "dhat/vg319-copy.json").read_text(), "mode 'copy'"),
        (dhat(mode="ad-hoc"), "mode 'ad-hoc'"),
        (dhat()[:-5], "no whole file"),
        (dhat(pps=3), "no program points"),
        (dhat(dhatFileVersion=3), "version 3"),
        ('{"dhatFileVersion":' + "[" * 100_000, "no whole file"),
        (dhat(pps=[{"tb": 1 << 59, "tbk": 1, "eb": 1 << 59, "ebk": 1}] * 40), "larger than any"),
    ],
)
def test_what_dhat_does_not_tell_is_refused(text, why, tmp_path, capsys):
    with pytest.raises(RecordingError, match=why):
        read_foreign(written(tmp_path, text))
    assert main(["report", str(tmp_path / "profile")]) == 2
    capsys.readouterr()


# ---- pprof


def varint(value):
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(found) + bytes([value])


def message(*fields):
    """(number, int or bytes) as a message."""
    return b"".join(
        varint(n << 3) + varint(v)
        if isinstance(v, int)
        else varint(n << 3 | 2) + varint(len(v)) + v
        for n, v in fields
    )


def pprof(types, samples, *more):
    texts = ["", "f", "a.c", "/bin/x", "ab" * 20]
    told = []
    for name, unit in types:
        told.append((1, message((1, len(texts)), (2, len(texts) + 1))))
        texts += [name, unit]
    return message(
        *told,
        *((2, message((1, varint(1)), *((2, value) for value in values))) for values in samples),
        (3, message((1, 1), (2, 0x1000), (3, 0x9000), (5, 3), (6, 4))),
        (4, message((1, 1), (2, 1), (3, 0x1234), *more)),
        (5, message((1, 1), (2, 1), (4, 2))),
        *((6, text.encode()) for text in texts),
    )


BOTH = [("objects", "count"), ("space", "bytes")]


def test_go(capsys):
    path = SAMPLES / "pprof/go119-heap.pb.gz"
    recording = one(path)
    assert numbers(recording) == (6_766_016, 216, 1_028_568, 109)
    found = analyse(recording, debuginfod=False)
    leak = [f for f in found.findings if f.stack[0].function == "main.leakSite"]
    assert sum(f.live_bytes for f in leak) / found.live_bytes == pytest.approx(0.9986, abs=0.0001)
    assert (leak[0].stack[0].file, leak[0].stack[0].line) == ("/tmp/demo/g/main.go", 12)
    names = recording.names
    churn = [i for i, n in enumerate(names, 1) if n.function == "main.churn"]
    at = recording.nodes["name"][recording.sites["node"]]
    part = recording.sites["alloc_bytes"][[n in churn for n in at]].sum() / 6_766_016
    assert part == pytest.approx(0.8475, abs=0.0001)
    assert main(["report", str(path)]) == 3
    capsys.readouterr()


def test_a_profile_of_something_else_is_named_and_refused(capsys):
    assert main(["report", str(SAMPLES / "pprof/go119-goroutine.pb.gz")]) == 2
    assert "profile of goroutine" in capsys.readouterr().err


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_other_producers(pack, tmp_path):
    line = (4, message((1, 1), (2, 7)))
    recording = one(written(tmp_path, pack(pprof(BOTH, [(2, 60), (1, 4)], line))))
    assert numbers(recording) == (None, None, 64, 3)
    assert (recording.names[0].function, recording.names[0].line) == ("f", 7)
    unnamed = one(written(tmp_path, pack(pprof(BOTH, [(2, 60)]))))
    assert unnamed.modules[0].build_id == "ab" * 20
    assert unnamed.stack(1)[0].offset == 0x234
    only = one(written(tmp_path, pack(pprof([("alloc_space", "bytes")], [(60,)]))))
    assert numbers(only) == (60, None, None, None)
    assert any("how much of it is held" in note for note in only.coverage.notes)


def test_differences_of_profiles_are_no_bytes(tmp_path):
    recording = one(written(tmp_path, pprof(BOTH, [(1, (1 << 64) - 5)])))
    assert recording.total(Column.LIVE_BYTES) == 0
    assert any("negative" in note for note in recording.coverage.notes)


@pytest.mark.parametrize("end", [-1, -30])
def test_a_cut_profile_is_refused(end, tmp_path):
    whole = (SAMPLES / "pprof/go119-heap.pb.gz").read_bytes()
    for cut in (gzip.decompress(whole)[:end], whole[:end]):
        with pytest.raises(RecordingError, match="not whole"):
            read_foreign(written(tmp_path, cut))


@pytest.mark.parametrize("text", [b"", b"\n", b"\n\n\n\n", b"Zebra\n", b"\x0a\x00", b"\n\x04text"])
def test_what_is_no_profile_is_left_to_others(text, tmp_path):
    assert foreign_format(written(tmp_path, text)) is None


def test_no_format_takes_the_files_of_another():
    names = {}
    for path in sorted(SAMPLES.rglob("*")):
        if path.is_file() and path.suffix != ".zst":
            names.setdefault(path.parent.name, set()).add(foreign_format(path))
    own = {
        "jemalloc": {"jemalloc's heap profile"},
        "gperftools": {"a heap profile of gperftools or Go"},
        "heaptrack": {"what heaptrack recorded"},
        "android": {"Android's native heap dump", "leaks in a log of Android"},
        "massif": {"massif's snapshots"},
        "callgrind": {"a profile by callgrind or cachegrind"},
        "dhat": {"DHAT's program points"},
        "pprof": {"a pprof profile", "a heap profile of gperftools or Go"},
    }
    for folder, expected in own.items():
        assert names.pop(folder) == expected
    ours = set().union(*own.values())
    for found in names.values():
        assert not found & ours
