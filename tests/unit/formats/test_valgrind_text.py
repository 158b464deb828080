# SPDX-License-Identifier: Apache-2.0
"""valgrind's text: real logs with the values that others worked out, and damaged ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign import SAMPLES, edits, findings_of, notes, one, reached, read_damaged, written
from leakscope.cli import main
from leakscope.formats import read_foreign

OF_ALL = ((716, 8), (224, 9), (5000, 1), (320, 20))


@pytest.mark.parametrize(
    ("name", "pid", "version", "ended"),
    [
        ("vg319-origins-gensupp.txt", 28911, "3.19.0", "exited"),
        ("derived-gha-timestamps-crlf.txt", 28911, "3.19.0", "exited"),
        ("vg319-timestamp-v.txt", 29276, "3.19.0-8d3c8034b8-20220411", "exited"),
        ("vg319-sigterm.txt", 29430, "3.19.0", "killed by SIGTERM"),
        ("vg319-abort.txt", 29314, "3.19.0", "killed by SIGABRT"),
        ("vg319-summary-only.txt", 29362, "3.19.0", "exited"),
    ],
)
def test_real_logs_have_their_right_values(name, pid, version, ended):
    recording = one(f"valgrind-text/{name}")
    assert reached(recording) == OF_ALL
    assert (recording.process.pid, recording.process.ended) == (pid, ended)
    assert recording.coverage.mode == f"valgrind memcheck {version}"
    found = findings_of(recording)
    assert not found.undecided
    assert sum(f.lost_bytes for f in found.findings) == 940
    if "summary" not in name:
        assert found.findings[0].source.function == "keep_interior"
        lost = next(f for f in found.findings if f.lost_bytes == 700)
        assert (lost.source.function, lost.source.line) == ("lose_buffers", 10)
        assert [(f.function, f.line) for f in lost.through] == [("my_alloc", 9)]


def test_what_the_summary_alone_counts_has_no_place():
    recording = one("valgrind-text/vg319-summary-only.txt")
    assert all(not f.stack for f in findings_of(recording).findings)
    assert "definitely lost: 716 bytes in 8 blocks" in notes(recording)
    assert "still reachable: 320 bytes in 20 blocks" in notes(one("valgrind-text/vg319-abort.txt"))


@pytest.mark.parametrize("name", ["vg319-multipid-stderr.txt", "derived-compose-prefix.txt"])
def test_processes_of_one_log_are_kept_apart(name):
    found = {r.process.pid: reached(r) for r in read_foreign(SAMPLES / "valgrind-text" / name)}
    assert {pid: kinds[0] for pid, kinds in found.items()} == {
        29131: (716, 8), 29171: (816, 9), 29172: (916, 10), 29173: (1016, 11), 29189: (716, 8),
    }  # fmt: skip
    assert {kinds[1:] for kinds in found.values()} == {OF_ALL[1:]}


def test_an_overwritten_log_says_so():
    found = read_foreign(SAMPLES / "valgrind-text/vg319-multipid-overwritten.txt")
    assert [recording.process.pid for recording in found] == [29081, 29032]
    assert all(reached(recording) == OF_ALL for recording in found)
    assert all("overwritten" in notes(recording) for recording in found)


def test_a_killed_program_proves_nothing(capsys):
    path = SAMPLES / "valgrind-text/vg319-sigkill.txt"
    assert main(["report", str(path)]) == 3
    assert "killed" in capsys.readouterr().out
    kinds = [error.kind for error in one(path).errors for _ in range(error.count)]
    assert sorted(kinds) == [*["conditional jump"] * 3, "use of uninitialised"]


def test_an_old_log_with_one_record():
    recording = one("valgrind-text/vg381-php-v.log")
    assert reached(recording) == ((224, 1), (5876, 16), (0, 0), (57_652, 222))
    placed = [f for f in findings_of(recording).findings if f.stack]
    assert [(f.stack[0].function, f.stack[0].file, f.stack[0].line) for f in placed] == [
        ("zend_compile", "zend_language_scanner.l", 590)
    ]
    assert (recording.coverage.alloc_events, recording.coverage.free_events) == (25_848, 25_609)


def test_what_suppressions_hid_is_no_leak_and_a_parent_without_summary_proves_nothing():
    path = SAMPLES / "valgrind-text/vg318-minishell-multipid-fds.log"
    found = {recording.process.pid: recording for recording in read_foreign(path)}
    assert "208,227 bytes in 226 blocks" in notes(found[1404293])
    assert "208,277 bytes in 229 blocks" in notes(found[1404399])
    assert [findings_of(found[pid]).undecided for pid in (1404229, 1404293, 1404399)] == [
        True, False, False,
    ]  # fmt: skip


HEAD = "==7== Memcheck, a memory error detector\n==7== Using Valgrind-3.22.0 and LibVEX\n"
HEAP = "==7== HEAP SUMMARY:\n==7==     in use at exit: {} bytes in 1 blocks\n"
LEAK = "==7== {} bytes in 1 blocks are definitely lost in loss record 1 of 1\n"
FRAMES = "==7==    at 0x1: malloc (vg_replace_malloc.c:9)\n==7==    by 0x2: f(int) (in /a b/x)\n"
SUMS = "==7== LEAK SUMMARY:\n==7==    definitely lost: {} bytes in 1 blocks\n"
NONE = "==7== All heap blocks were freed -- no leaks are possible\n"
END = "==7== ERROR SUMMARY: 0 errors from 0 contexts (suppressed: 0 from 0)\n"
OLD = "==7== malloc/free: in use at exit: 13 bytes in 1 blocks.\n"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (HEAD + HEAP.format(0) + NONE + END, 0),
        (HEAD + HEAP.format(5) + LEAK.format(5) + FRAMES + SUMS.format(5) + END, 1),
        (HEAD + HEAP.format(5) + END, 3),
        (HEAD + HEAP.format(5) + LEAK.format(5), 1),
        (HEAD, 3),
        (HEAD.replace("Memcheck, a memory", "Helgrind, a thread") + END, 3),
        (OLD + SUMS.format(13).replace("definitely", "possibly"), 0),
        (HEAD + HEAD.replace("7", "8") + HEAP.format(0) + NONE + END, 3),
    ],
)
def test_exit_status(text, status, tmp_path, capsys):
    assert main(["report", str(written(tmp_path, text))]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_the_check_at_the_end_counts_and_not_those_before_it(tmp_path):
    early = LEAK.format(9) + FRAMES + SUMS.format(9)
    text = HEAD + early + "x==1== y\n" + HEAP.format(5) + LEAK.format(5) + FRAMES + SUMS.format(5)
    recording = one(written(tmp_path, text + END))
    assert reached(recording)[0] == (5, 1)
    (leak,) = findings_of(recording).leaks
    assert [(f.function, f.module_path) for f in leak.stack] == [("f(int)", "/a b/x")]


def test_counts_with_what_changed_since_the_check_before(tmp_path):
    text = (
        HEAD
        + "==7== 9 (+9) (5 (+5) direct, 4 (+4) indirect) bytes in 1 (+1) blocks are definitely lost"
        " in loss record 2 of 2\n"
        + FRAMES
        + SUMS.replace("{} bytes in 1", "5 (+5) bytes in 1 (+1)")
    )
    assert reached(one(written(tmp_path, text)))[0] == (5, 1)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["vg319-origins-gensupp.txt", "vg319-multipid-overwritten.txt"]),
    edited=edits(b"==1== HEAP SUMMARY:\n", b"==1==", b"\0" * 9, b"\r\n", b"9" * 40, b" (in ",
                 b"==1==    at 0x1: (", b"9,999,999,999,999 bytes in 1 blocks", b"\n"),
)  # fmt: skip
def test_a_damaged_log_is_read_or_refused(tmp_path_factory, name, edited):
    read_damaged(tmp_path_factory, f"valgrind-text/{name}", edited)


@pytest.mark.parametrize(
    "error",
    [
        "realloc() with size 0",
        "Argument 'size' of function malloc has a fishy (possibly negative) value: -1",
        "Mismatched new/delete size value: 8",
        "Invalid alignment value: 3 (should be power of 2)",
        "Unsafe allocation with size of zero",
        "Uninitialised byte(s) found during client check request",
    ],
)
def test_errors_of_newer_versions_are_in_their_account(error, tmp_path):
    text = "==7== Memcheck, a memory error detector\n==7== Command: ./a\n==7== \n"
    text += f"==7== {error}\n==7==    at 0x1093DF: f (a.c:18)\n==7==    by 0x1: main (a.c:9)\n"
    text += "==7== \n==7== HEAP SUMMARY:\n==7==     in use at exit: 0 bytes in 0 blocks\n==7== \n"
    text += "==7== All heap blocks were freed -- no leaks are possible\n==7== \n"
    text += "==7== ERROR SUMMARY: 1 errors from 1 contexts (suppressed: 0 from 0)\n"
    recording = one(written(tmp_path, text))
    (told,) = findings_of(recording).errors
    assert told.text == error
    assert [frame.function for frame in told.stack] == ["f", "main"]
