# SPDX-License-Identifier: Apache-2.0
"""Android's native heap dumps and logs: files of Android's own tests, and made ones."""

import pytest

import foreign
from foreign import one, written
from leakscope._analysis import analyse
from leakscope.cli import main
from leakscope.formats import read_foreign
from leakscope.model.columns import Column

SAMPLES = foreign.SAMPLES / "android"
FULL = """Android Native Heap Dump v1.2

Build fingerprint: 'google/taimen/taimen:8.1.0/x:user/release-keys'

Total memory: 1900
Allocation records: 4
Backtrace size: 16

z 0  sz      400  num    1  bt a2a0 b510
  bt_info {"/system/libc.so" 2a0 "abort" 24} {"/system/libutils.so" 510 "" 0}
z 1  sz      500  num    3  bt b000 c000
MAPS
a000-b000 r-xp 00000000 103:00 0    /system/libc.so
b000-d000 r-xp 00000000 103:00 0    /data/app/base.apk!lib.so
e000-f000 rw-p 00000000 00:00 0
END
"""


def numbers(recording):
    return recording.total(Column.LIVE_BYTES), recording.total(Column.LIVE_COUNT)


@pytest.mark.parametrize(
    ("name", "size", "count", "zygote"),
    [
        ("native-heap-v1.0-num-right.txt", 33_800, 13, "17,800"),
        ("native-heap-v1.0-num-wrong.txt", 12_500, 4, "9,500"),
        ("native-heap-v1.1.txt", 200_000, 64, "152,000"),
    ],
)
def test_dumps_have_their_right_values(name, size, count, zygote, capsys):
    recording = one(SAMPLES / name)
    assert numbers(recording) == (size, count)
    own = recording.kinds.index("malloc (zygote)") == recording.sites["kind"]
    assert int(recording.sites["live_bytes"][own].sum()) == int(zygote.replace(",", ""))
    assert any(note.startswith(zygote) for note in recording.coverage.notes)
    assert main(["report", str(SAMPLES / name)]) == 3
    capsys.readouterr()


def test_a_dump_with_names(tmp_path):
    recording = one(written(tmp_path, FULL))
    assert numbers(recording) == (1_900, 4)
    assert not any("not whole" in n or "not understood" in n for n in recording.coverage.notes)
    findings = analyse(recording, debuginfod=False).findings
    stacks = {f.live_bytes: f.stack for f in findings}
    assert stacks[400][0].function == "abort"
    assert stacks[400][0].module_path == "/system/libc.so"
    assert [f.module_path for f in stacks[1500]] == ["/data/app/base.apk!lib.so"] * 2
    assert stacks[1500][1].address.offset == 0x1000


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (FULL[: FULL.index("MAPS")], "not whole"),
        (FULL.replace("END\n", "EN"), "not whole"),
        (FULL.replace("v1.2", "v1.7"), "newer"),
        (FULL.replace("num    3", "num    2"), "1,900 bytes, its records of 1,400"),
        (FULL.replace("z 1", "y 1"), "1 line was not understood"),
    ],
)
def test_what_is_odd_is_said(text, note, tmp_path):
    assert any(note in each for each in one(written(tmp_path, text)).coverage.notes)


def test_the_last_word_needs_no_end_of_line(tmp_path):
    notes = one(written(tmp_path, FULL.rstrip())).coverage.notes
    assert not any("not whole" in note for note in notes)


def test_what_malloc_debug_logs_is_what_was_not_freed(capsys):
    recording = one(SAMPLES / "logcat-brief-leak10.txt")
    assert numbers(recording) == (40, 1)
    assert (recording.process.pid, recording.process.exe) == (3500, "/data/O5_xxl_test_leak")
    (finding,) = analyse(recording, debuginfod=False).findings
    assert [f.function for f in finding.stack] == ["chk_malloc", "malloc", None]
    assert finding.stack[2].address.offset == 0x348
    assert finding.stack[2].module_path == "/data/O5_xxl_test_leak"
    assert main(["report", str(SAMPLES / "logcat-brief-leak10.txt")]) == 3
    capsys.readouterr()


def test_processes_in_one_log_are_kept_apart(tmp_path):
    line = "04-15 12:35:33.304  {0}  {0} E malloc_debug: {1}\n"
    parts = [
        (7, "+++ a leaked block of size 100 at 0x2be3b0b0 (leak 1 of 2)"),
        (8, "+++ b leaked block of size 7 at 0x10 (leak 1 of 1)"),
        (7, "      #00  pc 00029310  /system/lib/libc.so (f(int)+7)"),
        (8, "      #00  pc 10  /system/lib/libb.so (g) (BuildId: ab)"),
    ]
    first, second = read_foreign(written(tmp_path, "".join(line.format(*p) for p in parts)))
    assert (numbers(first), numbers(second)) == ((100, 1), (7, 1))
    assert first.names[0].function == "f(int)"
    assert (second.names[0].function, second.names[0].module_path) == ("g", "/system/lib/libb.so")
    assert any("1 of 2 blocks are not in this log" in note for note in first.coverage.notes)


def test_unreachable_memory_is_lost_and_what_is_not_listed_is_said(capsys):
    recording = one(SAMPLES / "dumpsys-unreachable.txt")
    assert int(recording.site_reach["definite_bytes"].sum()) == 1_632
    assert int(recording.site_reach["definite_count"].sum()) == 10
    assert any("1,152 bytes in 8 blocks" in note for note in recording.coverage.notes)
    assert main(["report", str(SAMPLES / "dumpsys-unreachable.txt")]) == 1
    capsys.readouterr()


WHOLE = """ 29 bytes in 4 unreachable allocations
 5 bytes unreachable at 10
  and 10 similar unreachable bytes in 2 allocations
  referencing 14 unreachable bytes in 1 allocation
"""


@pytest.mark.parametrize(
    ("text", "status", "size"),
    [
        (" 0 bytes in 0 unreachable allocations\n", 0, 0),
        ("", 3, 0),
        (" 5 bytes unreachable at 10\n", 1, 5),
        (WHOLE, 1, 29),
    ],
)
def test_the_section_of_unreachable_memory(text, status, size, tmp_path, capsys):
    path = written(tmp_path, "** MEMINFO in pid 5 [com.x] **\n Unreachable memory\n" + text)
    recording = one(path)
    assert (recording.process.pid, recording.process.exe) == (5, "com.x")
    assert (recording.total(Column.LIVE_BYTES) or 0) == size
    assert main(["report", str(path)]) == status
    capsys.readouterr()
