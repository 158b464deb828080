# SPDX-License-Identifier: Apache-2.0
"""What several tools wrote into one file is all read, or said not to be."""

import itertools

import pytest

from foreign import SAMPLES, held, written
from leakscope.formats import read_foreign

_LOGS = ("valgrind-text/vg319-abort.txt", "lsan/gcc12-asan.txt", "dmalloc/dmalloc552-fileline.log")
_WHOLE = (
    "jemalloc/lg0.f.heap",
    "gperftools/gp.0001.heap",
    "massif/vg319-heap.massif",
    "heaptrack/heaptrack.leaky.v3.cut2000",
)


def _both(tmp_path, first, second):
    text = (SAMPLES / first).read_bytes().removesuffix(b"\n")
    return read_foreign(written(tmp_path, text + b"\n" + (SAMPLES / second).read_bytes()))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *itertools.product(_LOGS, _WHOLE),
        *itertools.product(_WHOLE, _WHOLE),
        ("lsan/gcc12-asan.txt", "dhat/vg319-heap.json"),
    ],
)
def test_a_whole_file_may_stand_behind_another(tmp_path, first, second):
    alone = [held(each) for name in (first, second) for each in read_foreign(SAMPLES / name)]
    assert [held(each) for each in _both(tmp_path, first, second)] == alone


def test_what_was_not_read_is_named(tmp_path):
    (recording,) = _both(tmp_path, "dhat/vg319-heap.json", "lsan/gcc12-asan.txt")
    (note,) = (each for each in recording.coverage.notes if "not all of the file" in each)
    assert "DHAT" in note


def test_many_beginnings_are_bounded(tmp_path):
    assert read_foreign(written(tmp_path, b"heap_v2/1\n  t*: 1: 8 [0: 0]\n" * 2000)) is not None
