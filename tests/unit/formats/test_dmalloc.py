# SPDX-License-Identifier: Apache-2.0
"""Logs of dmalloc: real ones with the values that others worked out, and damaged ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign import SAMPLES, edits, findings_of, held, notes, one, read_damaged, written
from leakscope.cli import main


def test_pointers_with_their_lines():
    recording = one("dmalloc/dmalloc552-fileline.log")
    assert held(recording) == (838, 7)
    assert (recording.process.pid, recording.coverage.mode) == (7096, "dmalloc 5.5.2")
    found = {(f.stack[0].file, f.stack[0].line): f for f in findings_of(recording).findings}
    assert {place: (f.live_bytes, f.live_count) for place, f in found.items()} == {
        ("dm.c", 4): (424, 5), ("dm.c", 5): (414, 2),
    }  # fmt: skip


def test_pointers_of_unknown_places_are_counted():
    recording = one("dmalloc/dmalloc552-ra.log")
    assert held(recording) == (408, 4)
    assert "place of 4 blocks is not known" in notes(recording)


def test_an_error_before_the_list_proves_nothing(capsys):
    path = SAMPLES / "dmalloc/dmalloc552-overrun.log"
    assert main(["report", str(path)]) == 3
    assert "picket-fence" in capsys.readouterr().out


HEAD = "Dmalloc version '5.5.2' from 'x'\n"
DUMP = "Dumping Not-Freed Pointers Changed Since Start:\n"
LEAK = " not freed: '0x1{}|s1' (5 bytes) from 'ra=0x40{}'\n"
NONE = "current memory in use: 0 bytes (0 pnts)\n"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (HEAD + NONE + DUMP, 0),
        (HEAD + DUMP, 3),
        (HEAD, 3),
        (HEAD + DUMP + LEAK.format(1, 2), 3),
        (LEAK.format(1, 2), 3),
        ("dmalloc version '4.2'\n" + NONE + DUMP.lower(), 0),
    ],
)
def test_exit_status(text, status, tmp_path, capsys):
    assert main(["report", str(written(tmp_path, text))]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_the_last_list_counts(tmp_path):
    text = HEAD + DUMP + LEAK.format(5, 2) + DUMP + LEAK.format(1, 2) + LEAK.format(3, 2)
    recording = one(written(tmp_path, text))
    assert held(recording) == (10, 2)
    (finding,) = findings_of(recording).findings
    assert finding.stack[0].address.offset == 0x402
    assert "last of 2 lists" in notes(recording)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["fileline", "ra", "overrun"]),
    edited=edits(DUMP.encode(), LEAK.format(1, 2).encode(), HEAD.encode(), b"9" * 40, b"'", b"\0"),
)
def test_a_damaged_log_is_read_or_refused(tmp_path_factory, name, edited):
    read_damaged(tmp_path_factory, f"dmalloc/dmalloc552-{name}.log", edited)
