# SPDX-License-Identifier: Apache-2.0
"""LeakTracer, memleax and libleak: real output with its right values, and damaged output."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign import edits, findings_of, held, notes, one, read_damaged, written
from leakscope.cli import main


def test_leaktracer_2():
    recording = one("leaktracer/leaktracer24-leak.out")
    assert held(recording) == (259, 5)
    assert "its own sum" not in notes(recording)
    first = findings_of(recording).findings[0]
    assert (first.live_bytes, first.live_count) == (160, 4)
    assert first.stack[0].address.offset == 0x557FFF82E17F


def test_leaktracer_3_with_bytes_that_are_no_text():
    recording = one("leaktracer/leaktracer3-android-leaks.out")
    assert held(recording) == (1, 1)
    (found,) = findings_of(recording).findings
    offsets = [frame.address.offset for frame in found.stack]
    assert offsets == [0x36FD6, 0x35A90, 0x359A4, 0x32FEA, 0xC965E3D0]


def test_memleax():
    recording = one("memleax/readme.log")
    assert held(recording) == (2020, 20)
    (found,) = findings_of(recording).findings
    inner = found.stack[0]
    assert (inner.function, inner.file, inner.line) == ("foo", "foo.c", 12)
    assert recording.coverage.mode == "memleax"


def test_libleak():
    recording = one("libleak/readme.log")
    assert held(recording) == (1056, 5)
    assert "no call stack for 1 place" in notes(recording)
    first = next(f for f in findings_of(recording).findings if f.stack)
    assert (first.live_bytes, first.live_count) == (1024, 1)
    assert (first.stack[0].function, first.stack[0].line) == ("foo", 30)


def test_memleax_without_its_statistics(tmp_path):
    text = (
        "CallStack[3]: memory expires with 101 bytes, backtrace:\n    0x0040084e  test  [stripped]\n"
        "CallStack[3]: memory expires with 101 bytes, 7 times again\n"
    )
    recording = one(written(tmp_path, text))
    assert held(recording) == (707, 7)
    assert "statistics at its end are missing" in notes(recording)


def test_the_statistics_of_libleak_tell_what_was_freed_meanwhile(tmp_path):
    text = (
        "callstack[7] expires. count=2 size=8/16 alloc=2 free=0\n"
        "callstack[9] expires. count=3 size=8/24 alloc=2 free=0\n"
        "callstack[9] frees after expired. live=6 expired=3 free_expired=1\n"
    )
    assert held(one(written(tmp_path, text))) == (32, 4)
    assert held(one(written(tmp_path, text + "callstack[9]: may-leak=1 (8 bytes)\n"))) == (8, 1)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("# LeakReport\n# leak 0 Bytes\t:-)\n", 0),
        ("# LeakReport\n", 3),
        ("# LeakTracer report diff_utc_mono=1.2\n", 3),
        ("== Begin monitoring process 5...\n", 3),
        ("# start detect. expire=60s\n", 3),
        ("CallStack[3]: may-leak=0 (0 bytes)\n", 3),
    ],
)
def test_exit_status(text, status, tmp_path, capsys):
    assert main(["report", str(written(tmp_path, text))]) == status
    assert "Traceback" not in capsys.readouterr().err


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from([
        "leaktracer/leaktracer24-leak.out", "leaktracer/leaktracer3-android-leaks.out",
        "memleax/readme.log", "libleak/readme.log",
    ]),
    edited=edits(b"CallStack[3]: may-leak=2 (9 bytes)\n", b"L 0x1 5 # 0x2\n", b"9" * 40, b"()", b":",
                 b"callstack[1] expires. count=2 size=1/2 ", b"    0x1  a  b\n", b"\0"),
)  # fmt: skip
def test_damaged_output_is_read_or_refused(tmp_path_factory, name, edited):
    read_damaged(tmp_path_factory, name, edited)
