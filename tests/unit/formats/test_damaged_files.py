# SPDX-License-Identifier: Apache-2.0
"""Every reader of another tool's file, given damaged ones: a recording or a sentence, at once."""

import gzip
import time

import pytest
from hypothesis import given, settings

import foreign
from leakscope.formats import foreign_format

SAMPLES = foreign.SAMPLES
FILES = [
    "jemalloc/lg19-accum.f.heap",
    "gperftools/gp.0001.heap",
    "pprof/go119-heap-debug1.txt",
    "heaptrack/heaptrack.leaky.v3.gz",
    "heaptrack/heaptrack.test_sysroot.raw",
    "heaptrack/heaptrack.test_sysroot.expected",
    "android/native-heap-v1.1.txt",
    "android/logcat-brief-leak10.txt",
    "android/dumpsys-unreachable.txt",
    "massif/vg319-heap.massif",
    "massif/linuxtools-TiB.massif",
    "callgrind/vg319.callgrind.out",
    "callgrind/vg319.cachegrind.out",
    "dhat/vg319-heap.json",
    "pprof/go119-heap.pb.gz",
]
# These tell that all was freed, or search memory.
COMPLETE = ("heaptrack", "dhat", "android/dumpsys")
PARTS = [
    b"\n", b"\r\n", b"@", b" ", b"[", b"-", b"0x", b"\x00", b"\xff\xfe", b"9" * 40, b"f" * 17,
    b"\n\n", b": ", b"18446744073709551615", b"-1", b"\t", b"{", b"]", b'"', b"9000000000000000000",
    b"9000000000000000000",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, deadline=None)
@given(edited=foreign.edits(*PARTS))
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, name, edited):
    data = (SAMPLES / name).read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    for recording, found in foreign.damaged(tmp_path_factory, data[:12_000], edited):
        assert recording.absent
        assert found.undecided or name.startswith(COMPLETE)


@pytest.mark.parametrize(
    "data", [b"\n" * 70_000, b" " * 70_000, b"a:\n" * 20_000, b"#\n" * 30_000, b"+++ " * 15_000]
)
def test_no_pattern_runs_away(data, tmp_path):
    (tmp_path / "file").write_bytes(data)
    started = time.process_time()
    assert foreign_format(tmp_path / "file") is None
    assert time.process_time() - started < 20  # seconds; it did not end in minutes
