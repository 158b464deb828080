# SPDX-License-Identifier: Apache-2.0
"""Dr. Memory, Electric Fence, memwatch, ccmalloc, Leaky, tracemalloc, ftrace and hooks' logs."""

import os
import pickle
import struct
import tracemalloc
from collections import Counter

import pytest

from foreign import SAMPLES, findings_of, held, notes, one, reached, written
from leakscope.cli import main
from leakscope.errors import RecordingError
from leakscope.formats import read_foreign
from leakscope.formats.hook_log import is_folder, read_folder

LAB = SAMPLES.parent / "kernel-lab" / "samples-6.12"


def errors(recording):
    counts = Counter()
    for error in recording.errors:
        counts[error.kind] += error.count
    return dict(counts)


def places(recording):
    found = findings_of(recording).findings
    return {
        (f.stack[0].file or f.stack[0].function, f.stack[0].line): (f.live_bytes, f.live_count)
        for f in found
        if f.stack
    }


# ---- Dr. Memory


def test_drmemory():
    recording = one("drmemory/warnings-ng-results.txt")
    definite, indirect, possible, reachable = reached(recording)
    assert (definite, indirect, possible) == ((300, 2), (0, 0), (150, 1))
    assert reachable == (4096, 1)
    assert sum(errors(recording).values()) == 5  # 8 with the three leaks
    leaks = findings_of(recording).leaks
    assert leaks[0].stack[0].function == "test_open_address_hashmap_initialize"
    assert main(["report", str(SAMPLES / "drmemory/warnings-ng-results.txt")]) == 1


def test_drmemory_without_a_leak():
    recording = one("drmemory/drmem191-noleak.txt")
    assert reached(recording)[0] == (0, 0)
    assert reached(recording)[3] == (10_661, 52)
    assert errors(recording) == {"uninitialized read": 1}
    inner = recording.errors[0]
    assert inner.text.startswith("UNINITIALIZED READ: reading 0x0018f86a")
    assert main(["report", str(SAMPLES / "drmemory/drmem191-noleak.txt")]) == 0


def test_duplicates_raise_the_sums(tmp_path):
    text = (
        "~~Dr.M~~ Dr. Memory version 2.3.0\n~~Dr.M~~ \n"
        "~~Dr.M~~ Error #  1: LEAK 10 direct bytes 0x1-0xb + 5 indirect bytes\n"
        "~~Dr.M~~ # 0 replace_malloc   [/x/alloc_replace.c:1]\n~~Dr.M~~ # 1 a.out!f   [/s/a.c:3]\n"
        "~~Dr.M~~ \n~~Dr.M~~ DUPLICATE ERROR COUNTS:\n~~Dr.M~~ \tError #   1:      4\n"
        "~~Dr.M~~ ERRORS FOUND:\n~~Dr.M~~       1 unique,     4 total,     60 byte(s) of leak(s)\n"
    )
    recording = one(written(tmp_path, text))
    assert reached(recording)[:2] == ((40, 4), (20, 0))
    (leak, *_) = findings_of(recording).leaks
    assert (leak.stack[0].function, leak.stack[0].module_path) == ("f", "a.out")


# ---- Electric Fence


def test_electric_fence_never_tells_of_leaks(capsys):
    clean, overrun = (one(f"efence/efence22-{name}.txt") for name in ("clean", "overrun"))
    assert clean.errors == ()
    assert errors(overrun) == {"invalid free": 1}
    for name in ("clean", "overrun"):
        assert main(["report", str(SAMPLES / f"efence/efence22-{name}.txt")]) == 3
    assert "does not look for leaks" in notes(clean)
    assert "address not from malloc()" in capsys.readouterr().out


def test_duma_that_lists_blocks(tmp_path):
    text = (
        "DUMA 2.5.15 (shared library, NO_LEAKDETECTION)\n"
        "DUMA: ptr=0xb7c5dff0 size=10 type='malloc()' alloced from a.c(7) not freed\n"
    )
    recording = one(written(tmp_path, text))
    assert held(recording) == (10, 1)
    assert places(recording) == {("a.c", 7): (10, 1)}


# ---- memwatch


def test_memwatch_five_runs(capsys):
    found = read_foreign(SAMPLES / "memwatch/memwatch271-five-runs.log")
    with_leaks = [r for r in found if held(r)[1]]
    assert [held(r) for r in with_leaks] == [(765, 3)] * 2
    assert places(with_leaks[0]) == {
        ("procnanny.server.c", line): (255, 1) for line in (161, 33, 32)
    }
    assert "one of 5 runs" in notes(found[0])
    assert main(["report", str(SAMPLES / "memwatch/memwatch271-five-runs.log")]) == 3


def test_memwatch_clean_and_unfinished():
    (recording,) = read_foreign(SAMPLES / "memwatch/memwatch271-clean-and-unfinished.log")
    assert held(recording) == (0, 0)
    assert "one of 8 runs" in notes(recording)
    assert "1 of which did not end" in notes(recording)


def test_a_run_of_memwatch_without_an_end_proves_nothing(tmp_path):
    text = "============= MEMWATCH 2.71 Copyright =============\n\nStarted at Sun\n"
    assert main(["report", str(written(tmp_path, text))]) == 3
    more = text + "overflow: <3> a.c(7), 9 bytes alloc'd at <2> a.c(5)\n"
    assert errors(one(written(tmp_path, more))) == {"overflow": 1}


# ---- ccmalloc (made from its grammar: no real file is public)

CCMALLOC = """\
.---------------.
|ccmalloc report|
=======================================================
| total # of|   allocated | deallocated |     garbage |
+-----------+-------------+-------------+-------------+
|      bytes|         164 |         104 |          60 |
+-----------+-------------+-------------+-------------+
|allocations|           4 |           2 |           2 |
+-----------------------------------------------------+
*100.0% = 60 Bytes of garbage allocated in 2 allocations
|       |
|       |   0x0804875c in <main>
|       |             at a.c:12
|       |
|       `-----> 0x08048700 in <malloc>
"""


def test_ccmalloc(tmp_path):
    recording = one(written(tmp_path, CCMALLOC))
    assert held(recording) == (60, 2)
    assert places(recording) == {("a.c", 12): (60, 2)}
    assert (recording.coverage.alloc_events, recording.coverage.free_events) == (4, 2)


# ---- Leaky (made from its grammar)


def leaky(order, width):
    letter = "Q" if width == 8 else "I"

    def record(kind, address, size, old, *pcs):
        return struct.pack(
            f"{order}{5 + len(pcs)}{letter}", kind, address, size, old, len(pcs), *pcs
        )

    return (
        record(0, 0x80001000, 64, 0, 0x401000, 0x402000)
        + record(3, 0x80002000, 32, 0, 0x401500)
        + record(1, 0x80003000, 128, 0x80001000, 0x401800)
        + record(2, 0x80002000, 0, 0, 0x403000)
        + record(0, 0x80004000, 8, 0, 0x401000, 0x402000)
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("width", [4, 8])
def test_leakys_log_of_every_machine(order, width, tmp_path):
    recording = one(written(tmp_path, leaky(order, width)))
    assert held(recording) == (136, 2)
    assert recording.coverage.free_events == 2
    cut = one(written(tmp_path, leaky(order, width)[:-3]))
    assert held(cut) == (128, 1)
    assert "last record is cut" in notes(cut)


def test_leakys_report(tmp_path):
    text = (
        "A total of 12 symbols were loaded\nmalloc     00007f1200  size  64  00000000 --> g f main\n"
        "free       00007f1200  size  0  00000000 --> main\n"
        "malloc     00007f1400  size  16  00000000 --> g <0x401000>\nTotal bytes leaked = 16\n"
    )
    recording = one(written(tmp_path, text))
    assert held(recording) == (16, 1)
    tree = " main bytesLeaked=48 (32 from kids)\n  f bytesLeaked=32 (0 from kids)\nTotal bytes leaked = 48\n"
    assert held(one(written(tmp_path, tree)))[0] == 48


# ---- tracemalloc


@pytest.fixture
def snapshot(tmp_path):
    tracemalloc.start(3)
    try:
        kept = [bytearray(1000) for _ in range(20)]
        tracemalloc.take_snapshot().dump(tmp_path / "snapshot")
    finally:
        tracemalloc.stop()
    assert len(kept) == 20
    return tmp_path / "snapshot"


def test_a_snapshot_of_tracemalloc(snapshot):
    truth = tracemalloc.Snapshot.load(snapshot)
    recording = one(snapshot)
    assert held(recording) == (sum(t.size for t in truth.traces), len(truth.traces))
    heaviest = findings_of(recording).findings[0]
    assert heaviest.live_bytes >= 20_000
    assert heaviest.stack[0].file == __file__
    assert len(heaviest.stack) == 3


class Evil:
    def __reduce__(self):
        return os.system, ("touch was_run",)


def test_a_pickle_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = pickle.dumps({"tracemalloc": "Snapshot", "traces": Evil()})
    head = b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x0btracemalloc\x94\x8c\x08Snapshot\x94\x93"
    for data in (evil, head + pickle.dumps(Evil(), 4)[2:]):
        with pytest.raises(RecordingError):
            read_foreign(written(tmp_path, data))
    assert not (tmp_path / "was_run").exists()


def test_a_cut_snapshot_is_refused(snapshot, tmp_path):
    path = written(tmp_path, snapshot.read_bytes()[:-20])
    with pytest.raises(RecordingError, match="damaged or cut"):
        read_foreign(path)


# ---- the kernel


def test_ftrace():
    recording = one(LAB / "trace.kmem.txt")
    assert recording.coverage.alloc_events == 218
    assert recording.coverage.free_events == 62
    assert places(recording)["__alloc_object", None][1] == 91


def test_what_ftrace_lost_is_said(tmp_path):
    text = (
        "# entries-in-buffer/entries-written: 2/9   #P:1\n"
        "   <idle>-0     [000] .....     1.000001: kmalloc: call_site=ffffffff81234567 ptr=00000000abcd1234"
        " bytes_req=10 bytes_alloc=16 gfp_flags=GFP_KERNEL\n"
        "   a b-12 [000] ....     1.000002: kmalloc: call_site=f+0x1/0x2 ptr=(null) bytes_req=9 bytes_alloc=16 x\n"
    )
    recording = one(written(tmp_path, text))
    assert held(recording) == (16, 1)
    for said in ("at least 7", "no free was traced", "failed"):
        assert said in notes(recording)


# ---- logs of hooks


@pytest.mark.parametrize(
    ("text", "size", "place"),
    [
        (
            ("[+0x401234]malloc --> addr: 0x55810, size: 32\n[+0x401290]malloc --> addr: 0x55820, size: 9\n"
            "[-0x401299]free --> addr: 0x55820\n"), 32, 0x401234,
        ),
        ("[+main.c:51]malloc: 0x55810, 32\n[+a.c:5]malloc: 0x55820, 9\n[-a.c:9]free: 0x55820\n", 32, 51),
        ("[+main.c:51] --> addr:0x55810, size:32\n[+a.c:5] --> addr:0x5582000, size:9\n[-a.c:6] --> addr:0x5582000\n", 32, 51),
        ("[+main.c:main:51] malloc ptr=0x55810 size=32\n", 32, 51),
        ("a.c:51: malloc(32) = 0x55810\na.c:9: calloc(3, 3) = 0x55820\nfree(0x55820)\n", 32, 51),
        ("2026-01-01 [+main.c:51]my_malloc(32 bytes) at 0x55810\n", 32, 51),
    ],
)  # fmt: skip
def test_home_made_logs(text, size, place, tmp_path):
    recording = one(written(tmp_path, text))
    assert held(recording) == (size, 1)
    (found,) = [f for f in findings_of(recording).findings if f.live_bytes]
    inner = found.stack[0]
    assert place in (inner.line, inner.address.offset if inner.address else None)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[+]malloc: 0x55aa0020, 32\n", None),
        ("malloc 0x55aa0010 size=10 at main.c:12\nfree 0x55aa0010 at main.c:13\nmalloc 0x55aa0020 size=32 at main.c:14\n", 14),
        ("[+./app(main+0x1b) [0x40092c]] malloc --> addr: 0x1b3f2a0, size: 32\n", 0x40092C),
        ("[malloc] addr=0x1b3f2a0 size=5 file=a.c line=6\n[free] addr=0x1b3f2a0\n[malloc] addr=0x1b3f2b0 size=32 file=a.c line=7\n", 7),
        ("[+a.c: 51] malloc --> addr:0x1b3f2a0,size:32\n", 51),
        ("_malloc: [+memleak.c:51, main] p=0x1b3f2a0, size=32\n", 51),
    ],
)  # fmt: skip
def test_logs_in_other_words(text, place, tmp_path):
    recording = one(written(tmp_path, text))
    assert held(recording) == (32, 1)
    (found,) = [f for f in findings_of(recording).findings if f.live_bytes]
    known = [f.line or (f.address.offset if f.address else None) for f in found.stack]
    assert known == ([place] if place else [])


@pytest.mark.parametrize(
    "text", ["see malloc at 0x1234567 of 12\nno\nno\nno\nno\n", "int *p = malloc(12);\nfree(p);\n"]
)
def test_text_about_malloc_is_no_log(text, tmp_path):
    assert read_foreign(written(tmp_path, text)) is None


def test_files_that_are_left_for_blocks(tmp_path, capsys):
    for n in range(300):
        text = f"[+list.c:{10 + n % 2}] --> addr:{0x5581000 + 64 * n:#x}, size:48\n"
        (tmp_path / f"{0x5581000 + 64 * n:#x}.mem").write_text(text)
    (tmp_path / "notes").write_text("nothing")
    assert is_folder(str(tmp_path))
    (recording,) = read_folder(str(tmp_path))
    assert held(recording) == (300 * 48, 300)
    assert main(["report", str(tmp_path)]) == 3
    out = capsys.readouterr().out
    assert "list.c:10" in out
    assert "150 blocks" in out


# ---- Android


def test_record_allocs(tmp_path):
    text = (
        "186: malloc 0xb6038060 20\n187: calloc 0xb609f080 32 4\n186: realloc 0xb48390a0 0xb6038060 12\n"
        "186: memalign 0xae9d1000 16 104\n187: free 0xb609f080\n187: thread_done 0x0\n"
    )
    recording = one(written(tmp_path, text))
    assert held(recording) == (116, 2)
    assert (recording.coverage.alloc_events, recording.coverage.free_events) == (4, 2)


def test_record_allocs_with_times(tmp_path):
    text = "1: malloc 0x1000 20 123 456\n1: free 0x1000 789 790\n"
    assert main(["report", str(written(tmp_path, text))]) == 0


# ---- errors that are no leaks


def test_errors_of_a_sanitizer_have_their_stacks(tmp_path, capsys):
    text = (
        "==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x602 at pc 0x1 bp 0x2 sp 0x3\n"
        "READ of size 4 at 0x602 thread T0\n    #0 0x55a in use /s/a.c:9:3\n    #1 0x55b in main /s/a.c:20\n\n"
        "0x602 is located 0 bytes inside of 4-byte region\nfreed by thread T0 here:\n"
        "    #0 0x7f in free (/x/libasan.so.6+0x1)\n\nSUMMARY: AddressSanitizer: heap-use-after-free /s/a.c:9 in use\n"
    )
    path = written(tmp_path, text)
    (error,) = findings_of(one(path)).errors
    assert error.kind == "heap-use-after-free"
    assert [frame.function for frame in error.stack] == ["use", "main"]
    assert main(["report", str(path)]) == 3
    assert "E1. heap-use-after-free on address" in capsys.readouterr().out


def test_errors_of_dmalloc():
    recording = one("dmalloc/dmalloc552-overrun.log")
    assert errors(recording) == {"error": 1}
    assert "OVER picket-fence" in recording.errors[0].text


def test_a_place_that_has_only_a_name_is_no_empty_place(capsys):
    assert main(["report", str(SAMPLES / "drmemory/warnings-ng-results.txt")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "   in test_open_address_hashmap_compute_complex_hash" in lines
    assert not any(line.rstrip().endswith(" at") for line in lines)


@pytest.mark.parametrize(
    "line",
    [
        "            bash-1234  [001]  1234.567890: kmalloc:              (f+0x1) call_site=ffffffff81000000 ptr=0xffff888000 bytes_req=9 bytes_alloc=16 gfp_flags=0",
        "bash  1234 [001]  1234.567890:       kmem:kmalloc: call_site=f+0x1/0x2 ptr=0xffff888000 bytes_req=9 bytes_alloc=16 gfp_flags=0",
    ],
)
def test_events_as_trace_cmd_and_perf_print_them(line, tmp_path):
    assert held(one(written(tmp_path, line + "\n"))) == (16, 1)


def test_errors_of_androids_malloc_debug(tmp_path, capsys):
    text = (
        "04-15 12:00:32.304  7412  7412 E malloc_debug: +++ ALLOCATION 0x12345678 SIZE 100 HAS A CORRUPTED REAR GUARD\n"
        "04-15 12:00:32.304  7412  7412 E malloc_debug:   allocation[100] = 0x00 (expected 0xbb)\n"
        "04-15 12:00:32.304  7412  7412 E malloc_debug: Backtrace at time of failure:\n"
        "04-15 12:00:32.304  7412  7412 E malloc_debug:           #00  pc 00029310  /system/lib/libc.so (free+7)\n"
        "04-15 12:00:32.304  7412  7412 E malloc_debug:           #01  pc 00003438  /system/bin/app (main+9)\n"
    )
    path = written(tmp_path, text)
    recording = one(path)
    assert errors(recording) == {"corrupted rear guard": 1}
    assert [f.function for f in findings_of(recording).errors[0].stack] == ["free", "main"]
    assert main(["report", str(path)]) == 3


def test_deletes_of_the_wrong_kind(tmp_path):
    text = "# LeakReport\nS 0x401196 0x4011a6 # new[] but delete normal ; size 12\n# leak 0 Bytes\t:-)\n"
    recording = one(written(tmp_path, text))
    assert [(e.kind, e.text) for e in recording.errors] == [
        ("mismatched free", "new[] but delete normal")
    ]


def test_what_the_script_mtrace_prints(tmp_path):
    text = (
        "- 0x0000000000000077 Free 3 was never alloc'd 0x1\n\nMemory not freed:\n-----------------\n"
        "           Address     Size     Caller\n0x000055dd1088d4a0    0x1f4  at /b/churn.c:10\n"
        "0x000055dd1088d6a0     0x10  at /b/churn.c:10\n0x000055dd1088d6c0      0x4  at 0x5581\n"
    )
    path = written(tmp_path, text)
    recording = one(path)
    assert held(recording) == (520, 3)
    assert places(recording)["/b/churn.c", 10] == (516, 2)
    assert main(["report", str(path)]) == 3
    assert main(["report", str(written(tmp_path, "No memory leaks.\n"))]) == 0


def test_leaktracer_with_addresses_that_run_into_each_other(tmp_path):
    line = "leak, time=1.5, stack=0x360xfd6 0x44, size=1, data=.\n"
    text = "# LeakTracer report diff_utc_mono=1.5\n" + line + line.replace("0x360", "0x36 0")
    assert held(one(written(tmp_path, text))) == (1, 1)


def test_mtrace_prints_blocks_of_no_size_and_discriminators(tmp_path):
    text = "\nMemory not freed:\n-----------------\n           Address     Size     Caller\n"
    text += "0x000055c730b752a0        0  at /tmp/my app (1)/mt.c:5 (discriminator 8)\n"
    text += "0x000055c730b75880    0x280  at /tmp/my app (1)/mt.c:5 (discriminator 2)\n"
    recording = one(written(tmp_path, text))
    assert held(recording) == (0x280, 2)
    (finding,) = findings_of(recording).findings
    assert (finding.stack[0].file, finding.stack[0].line) == ("/tmp/my app (1)/mt.c", 5)


@pytest.mark.parametrize("number", ["#+, ", "#1 +,", "(malloc=,KB #1 +1)", "(malloc=1KB +,KB)"])
def test_a_sign_is_no_number_of_native_memory(tmp_path, number):
    text = (SAMPLES / "nmt" / "jdk17-nmt-summary-diff.txt").read_text()
    at = text.index("(malloc=")
    changed = text[:at] + f"(malloc=9KB {number}" + text[text.index("\n", at) :]
    changed = changed.replace("+8915KB", "+,KB", 1)
    assert read_foreign(written(tmp_path, changed)) is not None


def test_leaktracer_that_was_stopped_before_its_report(tmp_path):
    text = "# starting Tue Dec  1 12:44:26 2026\n# memory overrun protection of 4 Bytes\n"
    recording = one(written(tmp_path, text + "# thread save\n# internal buffer now 32768\n"))
    assert held(recording) == (0, 0)
    assert "no_leak_check" in recording.coverage.troubles


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("malloc,0x1c3f2a0,64,main.c,51\nfree,0x1c3f300,0,main.c,60\n", ("main.c", 51)),
        ("MALLOC main.c:51 0x1c3f2a0 64\nFREE main.c:60 0x1c3f300\n", ("main.c", 51)),
        ("[+main.c:51]malloc --> addr: 0x1c3f2a0, size: 0x40\n", ("main.c", 51)),
    ],
)
def test_sizes_of_hooks_are_no_lines_and_may_be_hexadecimal(text, place, tmp_path):
    recording = one(written(tmp_path, text))
    assert held(recording) == (64, 1)
    (found,) = findings_of(recording).findings
    assert (found.stack[0].file, found.stack[0].line) == place


@pytest.mark.parametrize("size", ["1.048.576", "1,048,576", "1'048'576", "0x100000", "1048576"])
def test_sizes_of_hooks_in_other_countries(size, tmp_path):
    text = f"[+main.c:51]malloc --> addr: 0x1c3f2a0, size: {size}\n"
    assert held(one(written(tmp_path, text))) == (1 << 20, 1)


def test_a_size_that_cannot_be_read_is_no_clean_log(tmp_path):
    text = "[+a.c:1]malloc --> addr: 0x1c3f2a0, size: 1.5 kB\n"
    text += "[+a.c:2]malloc --> addr: 0x1c3f300, size: 8\n[-a.c:3]free --> addr: 0x1c3f300\n"
    recording = one(written(tmp_path, text))
    assert "no_leak_check" in recording.coverage.troubles
    assert "1 allocation could not be read" in notes(recording)


def test_a_hook_may_say_where_a_block_went(tmp_path):
    text = "[+0x401136]malloc --> addr: 0x1c3f2a0, size: 32\n"
    text += "[+0x401190]realloc --> addr: 0x1c3f2a0, new: 0x1c3f400, size: 128\n"
    recording = one(written(tmp_path, text))
    assert held(recording) == (128, 1)
    assert "missing" not in notes(recording)
