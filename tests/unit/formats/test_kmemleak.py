# SPDX-License-Identifier: Apache-2.0
"""The kernel's kmemleak: real lists with the values that others worked out, and damaged ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign import SAMPLES, edits, findings_of, notes, one, reached, read_damaged, written
from leakscope.cli import main
from leakscope.formats.kmemleak import KmemleakText

LAB = SAMPLES.parent / "kernel-lab" / "samples-6.12"


@pytest.mark.parametrize(
    ("name", "size", "first"),
    [
        ("51", 64, ("sock_kmalloc", "net/core/sock.c", 1774)),
        ("55", 20, ("debug_objects_mem_init", None, None)),
        ("752", 96, ("lookup_or_create_module_kobject", "kernel/params.c", 774)),
    ],
)
def test_real_lists_have_their_right_values(name, size, first):
    recording = one(f"kmemleak/syzkaller-{name}.txt")
    assert reached(recording)[0] == (size, 1)
    (leak,) = findings_of(recording).leaks
    inner = leak.stack[0]
    assert (inner.function, inner.file, inner.line) == first
    assert main(["report", str(SAMPLES / f"kmemleak/syzkaller-{name}.txt")]) == 1


@pytest.mark.parametrize(("name", "objects"), [("loaded", 14), ("unloaded", 3)])
def test_objects_of_one_stack_are_one_site(name, objects):
    recording = one(LAB / f"kmemleak.{name}.txt")
    assert reached(recording)[0][1] == objects
    assert len(recording.sites) - 1 <= objects
    if name == "loaded":
        assert {"kmalloc", "vmalloc", "percpu"} <= {f.kind for f in findings_of(recording).leaks}


OBJECT = """[   18.829060] unreferenced object 0xffff8880 (size {}):
[   18.829061]   comm "a b", pid 0, jiffies 4294892748
[   18.829062]   backtrace (crc 1):
[   18.829063]     __kmalloc_noprof+0x1/0x2
[   18.829064]     [<ffffffffa0000001>] take+0x4b/0x412 [module]
"""


def test_a_list_in_the_kernels_log(tmp_path):
    text = (
        OBJECT.format(8)
        + OBJECT.format(8).replace("0xffff8880", "(____ptrval____)")
        + "[   19.0] unreferenced object (size 3):\n    x\n"
    )
    recording = one(written(tmp_path, text))
    (leak,) = findings_of(recording).leaks
    assert (leak.lost_bytes, leak.lost_count) == (16, 2)
    assert [(f.function, f.module_path) for f in leak.stack] == [("take", "module")]
    assert "line 11" in notes(recording)
    assert "a b (2)" in notes(recording)


def objects(text):
    return list(KmemleakText(text.split("\n")))


def test_objects_whose_kind_stands_before_the_address():
    per_cpu, physical = objects(
        "unreferenced object (percpu) 0x607f12a01230 (size 64):\n"
        "  backtrace (crc 5e93):\n    take+0x10/0x20 [module]\n"
        "unreferenced object (phys) 0x12a01230 (size 32):\n"
    )
    assert (per_cpu.address, per_cpu.size, per_cpu.checksum) == (0x607F12A01230, 64, 0x5E93)
    assert [f.function for f in per_cpu.frames] == ["take"]
    assert (physical.address, physical.size) == (0x12A01230, 32)


def test_the_end_of_a_stack_is_no_frame_of_it():
    (old,) = objects(
        "unreferenced object 0xffff88007b6f5540 (size 64):\n  backtrace:\n"
        "    [<ffffffffa000004b>] take+0x4b/0x412 [module]\n"
        "    [<ffffffffffffffff>] 0xffffffffffffffff\n"
    )
    assert [f.function for f in old.frames] == ["take"]
    assert not old.cut


def test_a_frame_that_cannot_be_read_does_not_end_the_stack():
    (one,) = objects(
        "unreferenced object 0xffff88007b6f5540 (size 64):\n  backtrace (crc 1):\n"
        "    inner+0x1/0x2 [module]\n    <what is this>\n    outer+0x1/0x2 [module]\n"
    )
    assert [f.function for f in one.frames] == ["inner", "outer"]
    assert one.cut


@pytest.mark.parametrize(
    "prefix",
    ["[   12.3] ", "[   12.3][  T123] ", "<6>[   12.3] ", "<30>[   12.3][    C1] ",
     "Dec  1 12:00:00 host kernel: ", "Dec 01 12:00:00 host kernel: [   12.3] ",
     "2026-12-01T12:00:00+0000 host kernel: ", "2026-12-01T12:00:00.123456+01:00 host kernel: ",
     "kern  :info  : [   12.3] "],
)  # fmt: skip
def test_a_report_in_any_log_of_the_kernel(prefix):
    lines = (
        "unreferenced object 0xffff88007b6f5540 (size 64):", '  comm "cat", pid 9, jiffies 42',
        "  backtrace (crc 1):", "    take+0x1/0x2 [module]",
    )  # fmt: skip
    (one,) = objects("\n".join(f"{prefix}kmemleak: {line}" for line in lines))
    assert (one.comm, one.pid, one.jiffies, one.checksum) == ("cat", 9, 42, 1)
    assert [(f.function, f.module) for f in one.frames] == [("take", "module")]


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["51", "55", "752"]),
    edited=edits(b"unreferenced object 0x1 (size 9):\n", b"unreferenced", b"  backtrace:\n",
                 b"[<", b"+0x", b" [inline]", b"9" * 40, b"\0", b"\n"),
)  # fmt: skip
def test_a_damaged_list_is_read_or_refused(tmp_path_factory, name, edited):
    read_damaged(tmp_path_factory, f"kmemleak/syzkaller-{name}.txt", edited)
