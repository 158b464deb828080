# SPDX-License-Identifier: Apache-2.0
"""Logs of glibc's mtrace: real ones with the values that others worked out, and damaged ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign import SAMPLES, edits, findings_of, held, notes, one, read_damaged, written
from leakscope.cli import main
from leakscope.formats import read_foreign


@pytest.mark.parametrize(
    ("name", "caller"), [("glibc236-pie", ("./mt", 0x1245)), ("glibc236-nopie", ("./mtn", 0x1232))]
)
def test_real_logs_have_their_right_values(name, caller):
    recording = one(f"mtrace/{name}.mtrace")
    assert held(recording) == (20_568, 6)
    assert sorted(recording.blocks["size"]) == [6, 100, 102, 104, 256, 20_000]
    biggest = findings_of(recording).findings[0]
    assert biggest.kind == "realloc"
    assert [(f.module_path, f.address.offset) for f in biggest.stack] == [caller]
    assert "allocations that failed, and are no blocks: 1" in notes(recording)
    assert (recording.coverage.alloc_events, recording.coverage.free_events) == (11, 5)


def test_a_number_that_is_cut_is_not_read():
    recording = one("mtrace/glibc236-noend.mtrace")
    assert held(recording) == (306, 3)
    assert "cut" in notes(recording)
    assert "a block of 5,000 bytes was being resized" in notes(recording)


def test_a_fork_is_a_process_of_its_own():
    found = read_foreign(SAMPLES / "mtrace/glibc236-fork.mtrace")
    assert [held(recording) for recording in found] == [(30, 2), (40, 2)]


def test_brackets_of_an_old_glibc():
    recording = one("mtrace/old-glibc-0x-offset.mtrace")
    assert held(recording) == (1024, 1)
    (kept,) = findings_of(recording).findings
    assert kept.stack[0].function == "_IO_file_doallocate"
    assert kept.stack[0].module_path == "/lib/x86_64-linux-gnu/libc.so.6"


ALLOC, FREE = "@ ./a:[0x1] + 0x10 0x5\n", "@ ./a:[0x2] - 0x10\n"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("= Start\n" + ALLOC + FREE + "= End\n", 0),
        ("= Start\n" + ALLOC + FREE, 3),
        ("= Start\n" + ALLOC + "= End\n", 3),
        ("= Start\n= End\n", 3),
        ("= Start\n", 3),
        (ALLOC, 3),
        ("= Start\n@ ./a:[0x1] + (nil) 0x5\n@ ./a:[0x1] ! 0x9 0x5\n= End\n", 0),
    ],
)
def test_exit_status(text, status, tmp_path, capsys):
    assert main(["report", str(written(tmp_path, text))]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_another_thread_between_the_lines_of_a_resize(tmp_path):
    text = "= Start\n@ ./a b:(f+0x3)[0x9] + 0x10 0x5\n@ [0x2] < 0x10\n" + ALLOC.replace("10", "20")
    recording = one(written(tmp_path, text + "@ [0x2] > 0x30 0x7\n= End\n"))
    assert sorted(recording.blocks["size"]) == [5, 7]
    assert "resized" not in notes(recording)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["glibc236-fork", "glibc236-noend", "old-glibc-0x-offset"]),
    edited=edits(b"= Start\n", b"= End\n", b"(nil)", b"9" * 40, b"] + 0x", b"] > ", b"\0", b":("),
)
def test_a_damaged_log_is_read_or_refused(tmp_path_factory, name, edited):
    read_damaged(tmp_path_factory, f"mtrace/{name}.mtrace", edited)
