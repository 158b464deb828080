# SPDX-License-Identifier: Apache-2.0
"""Every reader of another tool's file, given damaged ones: a recording or a sentence, at once."""

import contextlib
import gzip
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakscope._analysis import analyse
from leakscope.errors import RecordingError
from leakscope.formats import foreign_format, read_foreign
from leakscope.recording import packed

SAMPLES = Path(__file__).parents[4] / "shared" / "samples"
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
@given(
    edits=st.lists(
        st.tuples(
            st.floats(0, 1), st.integers(0, 200), st.sampled_from(PARTS) | st.binary(max_size=8)
        ),
        min_size=1,
        max_size=6,
    ),
    cut=st.floats(0.02, 1),
)
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, name, edits, cut):
    data = (SAMPLES / name).read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    data = data[:12_000]
    for place, length, new in edits:
        at = int(place * len(data))
        data = data[:at] + new + data[at + length :]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[: int(cut * len(data))])
    found = ()
    with contextlib.suppress(RecordingError):
        found = read_foreign(path)
    for recording in found or ():
        assert recording.absent
        found = analyse(recording, debuginfod=False)
        assert found.undecided or name.startswith(COMPLETE)
        packed.write(recording, path.with_suffix(".kept"))
        packed.read(path.with_suffix(".kept"))


@pytest.mark.parametrize(
    "data", [b"\n" * 70_000, b" " * 70_000, b"a:\n" * 20_000, b"#\n" * 30_000, b"+++ " * 15_000]
)
def test_no_pattern_runs_away(data, tmp_path):
    (tmp_path / "file").write_bytes(data)
    started = time.process_time()
    assert foreign_format(tmp_path / "file") is None
    assert time.process_time() - started < 20  # seconds; it did not end in minutes
