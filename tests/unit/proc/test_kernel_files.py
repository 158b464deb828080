# SPDX-License-Identifier: Apache-2.0
"""allocinfo, page_owner, slab traces and modules: real files with values worked out by awk, and rubbish."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreign import SAMPLES
from leakscope.proc.allocinfo import parse_allocinfo
from leakscope.proc.kernel_frames import is_allocator, parse_frame, without_allocators
from leakscope.proc.kernel_modules import parse_modules, parse_symbols
from leakscope.proc.page_owner import sum_pages, sum_stacks
from leakscope.proc.slab_traces import parse_traces

LAB = SAMPLES.parent / "kernel-lab" / "samples-6.12"


def lines(path: Path):
    return path.read_text().split("\n")


def test_allocinfo_of_a_real_kernel():
    found = parse_allocinfo((LAB / "allocinfo.after.txt").read_text())
    assert sum(one.bytes for one in found) == 28_199_432  # awk: the sum of column 1
    own = {one.place.line: one for one in found if one.place.module == "kmemleak_test"}
    assert (own[68].bytes, own[68].calls) == (10_240, 10)
    assert own[68].place.function == "kmemleak_test_init"
    assert all(one.exact for one in found)


def test_allocinfo_is_summed_signed_and_told_exact_or_not():
    head = "allocinfo - version: 2.0\n#     <size>  <calls> <tag info>\n"
    text = head + (
        "        4096        2 net/a b.c:1 func:no \n"
        "        4096        2 net/a.c:12 [mod] func:open \n"
        "         -96       -1 net/a.c:12 [mod] func:open \n"
        "         -40        0 mm/b.c:9 func:gone \n"
        "       49152       48 arch/x86/c.c:27 func:create accurate:no \n"
    )
    found = {one.place.function: one for one in parse_allocinfo(text)}
    assert (found["open"].bytes, found["open"].calls) == (4000, 1)
    assert found["gone"].bytes == 0
    assert not found["create"].exact
    assert set(found) == {"open", "gone", "create"}


def test_allocinfo_counts_calls_below_zero_as_the_kernel_prints_them():
    # "%12lli %8llu": bytes are signed and calls are not.
    text = (
        "        -192 18446744073709551614 net/a.c:12 func:open \n"
        "         960       10 net/a.c:12 func:open \n"
    )
    (one,) = parse_allocinfo(text)
    assert (one.bytes, one.calls) == (768, 8)


def test_pages_of_kernels_that_print_addresses():
    text = """Page allocated via order 1, migratetype Unmovable, gfp_mask 0x40cc0(GFP_KERNEL)
PFN 4096 type Unmovable Block 2 type Unmovable Flags 0x0()
 [<ffffffff81123456>] __alloc_pages_nodemask+0x1/0x2
 [<ffffffffa0000010>] take+0x10/0x20 [mod]

Page allocated via order 0, mask 0x0(), pid 7, tgid 7 (x), ts 1 ns
 other+0x1/0x2 [mod 0123456789abcdef0123]
"""
    old, built = sum_pages(text.split("\n")).stacks.values()
    assert old.frames == ("__alloc_pages_nodemask+0x1/0x2", "take+0x10/0x20 [mod]")
    assert [parse_frame(f).module for f in (*old.frames, *built.frames)] == [None, "mod", "mod"]


def test_a_stack_without_a_number_is_not_put_before_the_next_one():
    text = " lost+0x1/0x2\nnr_base_pages: -5\n\n other+0x1/0x2\n stack_count: 9\n"
    assert {s.frames: s.pages for s in sum_stacks(text.split("\n")).stacks.values()} == {
        ("other+0x1/0x2",): 9
    }


def test_pages_of_both_layouts():
    sums = sum_stacks(lines(LAB / "page_owner.show_stacks.txt"))
    assert (len(sums.stacks), sums.pages) == (126, 920)  # awk: nr_base_pages
    new = sum_pages(lines(LAB / "page_owner.txt"))
    assert new.pages == 388  # awk: the sum of 2^order
    old = sum_pages(lines(SAMPLES / "kernel-proc" / "page_owner-memcg-offlined.txt"))
    (one,) = old.stacks.values()
    assert (one.pages, one.blocks, one.tasks, one.offline) == (1, 1, {"podman"}, 1)
    assert next(iter(old.offline)).startswith("libpod-conmon-15e4f9c7")


def test_orders_slabs_and_task_names_with_odd_letters():
    text = """Page allocated via order 3, mask 0x0(), pid 7, tgid 7 (a) b, (c), ts 1 ns
PFN 0x10 type Unmovable Block 0 type Unmovable Flags 0x0(zone=0)
 take+0x1/0x2 [mod]
Slab cache page
Charged (via objcg) to memcg here

Page allocated via order 99, mask 0x0(), pid 7, tgid 7 (x), ts 1 ns
 other+0x1/0x2
"""
    (one,) = sum_pages(text.split("\n")).stacks.values()
    assert (one.pages, one.slab, one.offline) == (8, True, 0)
    assert one.frames == ("take+0x1/0x2 [mod]",)


@pytest.mark.parametrize(("cache", "traces", "objects"), [("dentry", 108, 1018), ("kmalloc-1k", 24, 49)])  # fmt: skip
def test_slab_traces(cache, traces, objects):
    found = parse_traces(lines(LAB / f"slab.{cache}.alloc_traces.txt"))
    assert (len(found), sum(one.count for one in found)) == (traces, objects)
    assert all(len(one.frames) > 2 for one in found)


def test_slab_traces_of_old_kernels_have_no_stacks():
    text = "      5 alloc_super+0x3d/0x29f age=3287 pid=29 cpus=0\n     11 <not-available> age=1/22/333 pid=0-9 cpus=0-1\n"
    first, second = parse_traces(text.split("\n"))
    assert (first.frames, first.count, first.age_max) == (("alloc_super+0x3d/0x29f",), 5, 3287)
    assert (second.age_min, second.age_max) == (1, 333)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a+0x1/0x2", ("a", 1, 2, None, None)),
        ("    [<ffffffffa0000001>] take+0x4b/0x412 [mod]", ("take", 0x4B, 0x412, "mod", 0xFFFFFFFFA0000001)),
        ("    [<00000000a3b2c1d0>] x.isra.7+0x4/0x12", ("x.isra.7", 4, 0x12, None, None)),  # a hash
        ("    [<(____ptrval____)>] x+0x4/0x12", ("x", 4, 0x12, None, None)),
        ("    [<c04fd8b3>] x+0x4/0x12", ("x", 4, 0x12, None, 0xC04FD8B3)),
        ("    0xffffffffa000004b", (None, None, None, None, 0xFFFFFFFFA000004B)),
        ("    f+0x1/0x2 [ext4 0123456789abcdef0123]", ("f", 1, 2, "ext4", None)),
    ],
)  # fmt: skip
def test_frames_of_all_kernels(text, expected):
    frame = parse_frame(text)
    assert (frame.function, frame.offset, frame.size, frame.module, frame.address) == expected


def test_allocators_are_the_kernels_and_not_a_modules():
    frames = [parse_frame(f" {f}+0x1/0x2") for f in ("kmemleak_alloc", "__kmalloc_cache_noprof")]
    frames += [parse_frame(" kmalloc_of_mine+0x1/0x2 [mine]"), parse_frame(" vfs_write+0x1/0x2")]
    kind, rest = without_allocators(frames)
    assert (kind, rest[0].function) == ("kmalloc", "kmalloc_of_mine")
    for name in ("__alloc_pages_node_noprof", "kmem_cache_alloc_noprof", "vmalloc_user", "kstrdup",
                 "__vmalloc_node_range_noprof", "pcpu_alloc_noprof", "___slab_alloc", "kvzalloc",
                 "kmemleak_alloc_recursive.constprop.0", "alloc_slab_page"):  # fmt: skip
        assert is_allocator(name), name
    for name in ("kmemleak_test_init", "alloc_super", "copy_process", "alloc_inode", "kobject_create"):  # fmt: skip
        assert not is_allocator(name), name


def test_modules_and_their_functions():
    (one,) = parse_modules(lines(LAB / "modules.txt"))
    assert (one.name, one.size, hex(one.address)) == ("kmemleak_test", 12288, "0xffffffffa0000000")
    text = "ffffffffa0002000 t one [a]\n0000000000000000 t two [a]\nffffffff81000000 T core\nffffffffa0001000 T zero [a]\nffffffffa0003000 d data [a]\n"
    assert [s.name for s in parse_symbols(text.split("\n"))] == ["zero", "one"]


SAMPLE_LINES = [
    line
    for name in ("allocinfo.after.txt", "page_owner.txt", "slab.kmalloc-32.alloc_traces.txt", "modules.txt",
                 "page_owner.show_stacks.txt")
    for line in (LAB / name).read_text().split("\n")[:60]
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(SAMPLE_LINES), st.integers(0, 120), st.text(max_size=9) | st.sampled_from(["9" * 400, "-", "\0", " " * 90, "[", "0x"])),
        max_size=30,
    )
)  # fmt: skip
def test_rubbish_is_read_or_left_out(edited):
    text = [line[:at] + new + line[at:] for line, at, new in edited]
    for one in parse_allocinfo("\n".join(text)):
        assert one.bytes >= 0
        assert one.calls >= 0
    assert sum_pages(text).pages >= 0
    assert sum_stacks(text).pages >= 0
    parse_traces(text)
    parse_modules(text)
    parse_symbols(text)
    for line in text:
        parse_frame(line)
