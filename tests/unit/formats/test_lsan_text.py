# SPDX-License-Identifier: Apache-2.0
"""LeakSanitizer's reports: real ones with the values that others worked out, and damaged ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign import SAMPLES, edits, findings_of, notes, one, reached, read_damaged, written
from leakscope.cli import main
from leakscope.formats import foreign_format, read_foreign

OF_ALL = ((716, 8), (224, 9), (0, 0), (0, 0))
WHOLE = ["gcc12-asan", "gcc12-lsan-symbolized", "clang14-asan-color", "derived-gha-ctest"]


@pytest.mark.parametrize("name", WHOLE)
def test_real_reports_have_their_right_values(name):
    recording = one(f"lsan/{name}.txt")
    assert reached(recording) == OF_ALL
    found = findings_of(recording)
    assert found.headline == "2 places leak 940 B"
    first = found.findings[0]
    assert (first.lost_bytes, first.lost_count) == (700, 7)
    assert (first.source.function, first.source.line) == ("lose_buffers", 10)
    assert [(f.function, f.line) for f in first.through] == [("my_alloc", 9)]
    assert {f.kind for f in found.findings} == {"malloc", "calloc"}


def test_without_names_places_are_offsets_in_modules():
    recording = one("lsan/gcc12-lsan-nosym.txt")
    assert reached(recording) == OF_ALL
    lost = findings_of(recording).findings[0]
    assert (lost.lost_bytes, lost.lost_count) == (700, 7)
    assert [f.address.offset for f in lost.stack[:3]] == [0x1280, 0x1375, 0x155D]


def test_what_was_left_out_is_lost_and_has_no_place():
    recording = one("lsan/gcc12-lsan-objects-max2.txt")
    assert sum(size for size, _ in reached(recording)) == 940
    assert "224 bytes in 9 blocks are in the summary alone" in notes(recording)
    assert any(f.lost_bytes == 224 and not f.stack for f in findings_of(recording).findings)


def test_what_suppressions_hid_is_said():
    recording = one("lsan/gcc12-lsan-suppressed.txt")
    assert reached(recording)[0] == (700, 7)
    assert "hid 240 bytes in 10 blocks" in notes(recording)


def test_several_processes_on_one_pipe_stay_apart():
    found = read_foreign(SAMPLES / "lsan/gcc12-asan-forks-mixed.txt")
    sums = [(sum(n for n, _ in reached(r)), sum(c for _, c in reached(r))) for r in found]
    assert sums == [(1140, 19), (1040, 18), (1240, 20), (940, 17)]
    assert len({recording.process.pid for recording in found}) == 4


def test_a_cut_report_says_so():
    recording = one("lsan/clusterfuzz-multi-direct.txt")
    assert reached(recording)[0] == (6078, 12)
    assert "no summary" in notes(recording)
    assert "hid 8,518 bytes in 289 blocks" in notes(recording)


def test_prefixes_of_grep_and_a_report_cut_before_its_records():
    first, second = read_foreign(SAMPLES / "lsan/i3-4087-grep-prefix.txt")
    assert reached(first)[0] == (14, 2)
    assert "1,812 bytes in 54 blocks" in notes(first)
    assert findings_of(second).undecided
    assert second.process.pid == 3635045


LEAK = "Direct leak of 5 byte(s) in 1 object(s) allocated from:\n"
FRAMES = "    #0 0x1 in malloc (/a+0x1)\n    #1 0x2 in f (g) /my dir/x.c:7:3\n"
HEAD = "==7==ERROR: LeakSanitizer: detected memory leaks\n\n"
END = "\nSUMMARY: LeakSanitizer: 5 byte(s) leaked in 1 allocation(s).\n"
OTHER = "==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x1\n    #0 0x9 in h x.c:1\n"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (HEAD + LEAK + FRAMES + END, 1),
        (HEAD + LEAK, 1),
        (HEAD, 3),
        (OTHER, 3),
        (OTHER + HEAD + LEAK + FRAMES + END, 1),
        ("==7==LeakSanitizer has encountered a fatal error.\n", 3),
        (END, 1),
    ],
)
def test_exit_status(text, status, tmp_path, capsys):
    assert main(["report", str(written(tmp_path, text))]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_stacks_of_other_errors_are_no_part_of_a_leak(tmp_path):
    text = (
        OTHER + HEAD + LEAK + FRAMES + "previously allocated here:\n    #2 0x3 in y z.c:1\n" + END
    )
    (leak,) = findings_of(one(written(tmp_path, text))).leaks
    assert [(f.function, f.file, f.line) for f in leak.stack] == [("f (g)", "/my dir/x.c", 7)]


def test_a_stack_goes_no_further_than_its_numbers_and_colours_are_no_part_of_names(tmp_path):
    more = "".join(f"    #{n} 0x9 in later z.c:1\n" for n in range(4))
    frames = FRAMES.replace("x.c:7:3", "x.c:7:3\x1b[0m")
    (leak,) = findings_of(one(written(tmp_path, HEAD + LEAK + frames + more + END))).leaks
    assert [(f.function, f.line) for f in leak.stack] == [("f (g)", 7)]


def test_reports_that_lie_in_one_another_are_told(tmp_path):
    text = HEAD + LEAK + HEAD.replace("7", "8") + LEAK + END + END
    found = read_foreign(written(tmp_path, text))
    assert all("not sure" in notes(recording) for recording in found)


def _record(kind, size, count):
    return (
        f"{kind} leak of {size} byte(s) in {count} object(s) allocated from:\n"
        f"    #0 0x1 in malloc (/a+0x1)\n    #1 0x2 in f{size} /x.c:{size}\n\n"
    )


def _head(pid):
    return f"\n{'=' * 65}\n=={pid}==ERROR: LeakSanitizer: detected memory leaks\n\n"


def _end(size, count):
    return f"SUMMARY: AddressSanitizer: {size} byte(s) leaked in {count} allocation(s).\n"


def test_the_sums_tell_which_report_goes_on_behind_another(tmp_path):
    """As a forked child and its parent wrote on one pipe."""
    text = _head(76) + _record("Direct", 816, 9) + _record("Indirect", 224, 9)
    text += _head(77) + _record("Direct", 916, 10) + _record("Indirect", 160, 5)
    text += _end(1040, 18) + _record("Indirect", 64, 4) + _end(1140, 19)
    found = read_foreign(written(tmp_path, text))
    assert [(r.process.pid, reached(r)[:2]) for r in found] == [
        (76, ((816, 9), (224, 9))),
        (77, ((916, 10), (224, 9))),
    ]
    assert not any("place" in notes(r) or "sure" in notes(r) for r in found)


@pytest.mark.parametrize("ends", [2, 1])
def test_reports_that_cannot_be_told_apart_are_one(tmp_path, ends):
    text = _head(40) + _record("Direct", 916, 10) + _head(39) + _record("Direct", 700, 7)
    text += _record("Indirect", 160, 5) + _record("Direct", 116, 2) + _record("Indirect", 64, 4)
    text += _end(1140, 19) + _record("Indirect", 224, 9) + _end(1040, 18) * (ends - 1)
    text += _head(41) + _record("Direct", 5, 1) + _end(5, 1)
    mixed, other = read_foreign(written(tmp_path, text))
    assert reached(mixed)[:2] == ((1732, 19), (448, 18))
    assert reached(other)[0] == (5, 1)
    assert "2 processes wrote at once (40, 39)" in notes(mixed)
    assert ("no summary" in notes(mixed)) is (ends == 1)
    if ends == 2:
        assert "without a place" not in notes(mixed)


def test_a_line_of_another_process_between_a_record_and_its_stack(tmp_path):
    head, stack = _record("Direct", 700, 7).split("\n", 1)
    text = _head(88) + _record("Direct", 5, 1) + _head(90) + head + "\n" + _end(5, 1) + stack
    text += _end(700, 7)
    first, second = read_foreign(written(tmp_path, text))
    assert (reached(first)[0], reached(second)[0]) == ((5, 1), (700, 7))
    (leak,) = findings_of(second).leaks
    assert [frame.function for frame in leak.stack] == ["f700"]
    assert "exchanged" not in notes(second)


def test_stacks_that_come_behind_two_heads_may_be_exchanged(tmp_path):
    one_head, one_stack = _record("Direct", 200, 2).split("\n", 1)
    two_head, two_stack = _record("Direct", 700, 7).split("\n", 1)
    text = _head(90) + one_head + "\n" + _head(92) + two_head + "\n" + one_stack + two_stack
    text += _end(200, 2) + _end(700, 7)
    found = read_foreign(written(tmp_path, text))
    for recording in found:
        (leak,) = findings_of(recording).leaks
        assert [frame.function for frame in leak.stack] == [f"f{leak.lost_bytes}"]
        assert "may be exchanged" in notes(recording)


def test_allocators_of_the_run_time_are_no_place(tmp_path):
    frames = "    #0 0x1 in aligned_alloc (/a+0x1) (BuildId: ab12)\n    #1 0x2 in main (/a+0x2)\n"
    (leak,) = findings_of(one(written(tmp_path, HEAD + LEAK + frames + END))).leaks
    assert leak.kind == "memalign"
    assert [f.function for f in leak.stack] == ["main"]


def test_it_is_named():
    assert "Sanitizer" in foreign_format(SAMPLES / "lsan/gcc12-asan.txt")


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["gcc12-asan-forks-mixed", "gcc12-lsan-objects-max2", "gcc12-lsan-nosym"]),
    edited=edits(b"==1==ERROR: LeakSanitizer: detected memory leaks\n", b"#0 0x", b"\x1b[", b"\0",
                 b"Suppressions used:\n", b"9" * 40, b"+0x", b"(", b" (BuildId: ", b"\n"),
)  # fmt: skip
def test_a_damaged_report_is_read_or_refused(tmp_path_factory, name, edited):
    read_damaged(tmp_path_factory, f"lsan/{name}.txt", edited)


def test_a_leak_check_that_failed_is_told_once_for_each_process(tmp_path):
    text = "".join(
        f"=={pid}==LeakSanitizer has encountered a fatal error.\n"
        f"=={pid}==HINT: For debugging, try setting environment variable LSAN_OPTIONS=verbosity=1\n"
        f"=={pid}==HINT: LeakSanitizer does not work under ptrace (strace, gdb, etc)\n"
        for pid in (99, 100)
    )
    found = read_foreign(written(tmp_path, text))
    assert [recording.process.pid for recording in found] == [99, 100]
    assert all("no_leak_check" in recording.coverage.troubles for recording in found)
