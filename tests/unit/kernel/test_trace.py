# SPDX-License-Identifier: Apache-2.0
"""From what the kernel's events tell to a recording: stacks, estimates, and what is no leak."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakscope.bpf import wire
from leakscope.bpf.wire import Collected, Moment
from leakscope.errors import TargetError
from leakscope.kernel import tracefs
from leakscope.kernel.trace import thinned
from leakscope.kernel.trace_filter import find_cache, is_kmalloc
from leakscope.kernel.trace_frames import kernel_stack, plain
from leakscope.kernel.trace_ftrace import EventReader, _choice
from leakscope.kernel.trace_lines import named_places
from leakscope.kernel.trace_recording import KernelCounts, Traced, recording_of
from leakscope.model.frames import FrameName
from leakscope.proc.kallsyms import parse_kallsyms

NAMES = [
    "bpf_trace_run5",
    "__kmalloc_noprof",
    "alloc_pipe_info",
    "do_pipe2",
    "asm_sysvec_apic_timer_interrupt",
    "below",
    "allocate_slab",
    "alloc_frozen_pages_noprof",
    "copy_process",
    "filemap_get_folio",
    "bpf_map_area_alloc",
    "pte_alloc_one",
    "__alloc_object",
]
AT = {name: 0x1000 * (number + 1) for number, name in enumerate(NAMES)}
SYMBOLS = parse_kallsyms([f"{at:x} T {name}" for name, at in AT.items()])
SECOND = 1_000_000_000


def stack(*names):
    return kernel_stack([AT[name] + 8 for name in names], SYMBOLS, most=48)


def named(found):
    return [frame.name.function for frame in found.frames]


def test_frames_of_the_tracer_and_the_allocator_are_left_out():
    found = stack("bpf_trace_run5", "__kmalloc_noprof", "alloc_pipe_info", "do_pipe2")
    assert named(found) == ["alloc_pipe_info", "do_pipe2"]
    assert found.frames[0].name.symbol == "alloc_pipe_info+0x8"
    assert found.frames[0].name.module_path == "kernel"


def test_code_that_is_called_as_the_tracer_is_stays():
    found = stack("bpf_trace_run5", "__kmalloc_noprof", "bpf_map_area_alloc", "do_pipe2")
    assert named(found) == ["bpf_map_area_alloc", "do_pipe2"]


def test_a_stack_ends_where_an_interrupt_came():
    found = stack("alloc_pipe_info", "asm_sysvec_apic_timer_interrupt", "below")
    assert named(found) == ["alloc_pipe_info", "asm_sysvec_apic_timer_interrupt"]
    assert found.interrupt
    assert not found.truncated


def test_pages_of_slabs_are_known_for_what_they_are():
    assert stack("alloc_frozen_pages_noprof", "allocate_slab", "do_pipe2").carrier == "slab"


def test_lines_and_inlined_functions_stand_where_they_are_known():
    at = SYMBOLS.find(AT["alloc_pipe_info"] + 8)
    both = [
        FrameName("inlined", file="fs/pipe.c", line=7, inlined=True),
        FrameName("alloc_pipe_info", file="fs/pipe.c", line=800),
    ]
    found = kernel_stack([at.offset + AT["alloc_pipe_info"]], SYMBOLS, most=48, lines={at: both})
    assert [frame.name.line for frame in found.frames] == [7, 800]


def test_what_the_kernel_notes_on_a_block_is_left_out():
    sites = [("__alloc_object", "kmem_cache", 1, 168, 50, 0, 0)]
    recording, _ = made(collected([*sites, ("alloc_pipe_info", "kmalloc", 0, 192, 30, 0, 0)]))
    assert kinds(recording) == ["kmalloc"]
    assert recording.sites["live_count"].sum() == 30


# -- recordings ---------------------------------------------------------------


def collected(sites, *, allocs=1000, frees=10, drops=None, caches=("filp",)):
    """`sites` are stack, kind, cache, size, allocs, frees, reused."""
    table = np.zeros(len(sites), wire.SITE)
    blocks = []
    stacks = np.zeros(len(NAMES), wire.STACK)
    for number, (name, at) in enumerate(AT.items()):
        stacks[number]["hash"], stacks[number]["frames"] = number + 1, 2
        stacks[number]["ip"][:2] = at + 8, AT["do_pipe2"] + 8
        assert NAMES[number] == name
    for row, (name, kind, cache, size, made, gone, reused) in zip(table, sites, strict=True):
        row["stack"], row["kind"] = NAMES.index(name) + 1, wire.KINDS.index(kind)
        row["cache"], row["size"] = cache, size
        row["allocs"], row["alloc_bytes"] = made, made * size
        row["frees"], row["freed_bytes"], row["reused"] = gone, gone * size, reused
        row["first"], row["last"] = SECOND, 9 * SECOND
        row["ages"][2] = gone
        for n in range(made - gone):
            block = np.zeros(1, wire.BLOCK)
            for each in ("stack", "cache", "size", "kind"):
                block[each] = row[each]
            block["address"], block["bytes"], block["tgid"] = 64 * len(blocks), size, 7
            block["birth"] = SECOND + n
            blocks.append(block)
    told = np.zeros(len(caches), wire.CACHE)
    for number, name in enumerate(caches, 1):
        told[number - 1]["cache"], told[number - 1]["name"] = number, name.encode()
    moment = Moment(
        now_ns=11 * SECOND,
        allocs=(allocs,) * 5,
        alloc_bytes=(0,) * 5,
        frees=(frees,) * 5,
        matched=(0,) * 5,
        samples=10,
        drops=drops or {},
        runs=0,
        run_ns=0,
    )
    tasks = np.zeros(1, wire.TASK)
    tasks[0]["tgid"], tasks[0]["comm"] = 7, b"leaky"
    joined = np.concatenate([np.zeros(0, wire.BLOCK), *blocks])
    return Collected(moment, table, stacks, told, tasks, joined, ())


def made(final, *, sample=1, reclaimable=lambda _: False, **more):
    traced = Traced(start_ns=SECOND, sample_bytes=sample, final=final, **more)
    return recording_of(traced, SYMBOLS, reclaimable)


def kinds(recording):
    return [recording.kinds[kind] for kind in recording.sites["kind"][1:]]


def test_sampled_blocks_stand_for_those_that_were_not():
    recording, held = made(
        collected([("alloc_pipe_info", "kmalloc", 0, 192, 30, 10, 0)]), sample=16384
    )
    weight = 1 / (1 - np.exp(-192 / 16384))
    assert recording.sites["allocs"][1] == round(30 * weight)
    assert recording.sites["live_count"][1] == round(20 * weight)
    assert len(recording.blocks) == 20
    assert recording.deaths[1].sum() == 10
    assert held[1].by_process == {7: pytest.approx(20 * 192 * weight)}


def test_what_stays_of_a_region_in_eight_stands_for_eight():
    recording, _ = made(
        collected([("alloc_pipe_info", "kmalloc", 0, 192, 30, 10, 0)]), one_in=8, region=65536
    )
    assert recording.sites["live_count"][1] == 160


@pytest.mark.parametrize(
    ("site", "options", "remark"),
    [
        (("alloc_pipe_info", "kmem_cache", 1, 192, 900, 0, 0), {}, ""),
        (
            ("alloc_pipe_info", "kmem_cache", 1, 192, 9, 0, 0),
            {"reclaimable": lambda name: name == "filp"},
            " (reclaimable)",
        ),
        (("alloc_pipe_info", "kmem_cache", 1, 192, 900, 20, 18), {}, " (frees unseen)"),
        (
            ("alloc_pipe_info", "kmem_cache", 1, 192, 900, 0, 0),
            {"before": KernelCounts({"filp": 500}, 0), "after": KernelCounts({"filp": 510}, 0)},
            " (level)",
        ),
        (
            ("alloc_pipe_info", "kmem_cache", 1, 192, 900, 0, 0),
            {"before": KernelCounts({"filp": 500}, 0), "after": KernelCounts({"filp": 1400}, 0)},
            "",
        ),
        (
            ("copy_process", "kmem_cache", 1, 192, 90, 0, 0),
            {"before": KernelCounts({}, 0), "after": KernelCounts({}, 0, tasks=100)},
            " (of tasks)",
        ),
        (
            ("copy_process", "kmem_cache", 1, 192, 900, 0, 0),
            {"before": KernelCounts({}, 0), "after": KernelCounts({}, 0, tasks=100)},
            "",
        ),
        (("filemap_get_folio", "page", 0, 4096, 9, 0, 0), {}, " (reclaimable)"),
    ],
)
def test_what_is_no_leak_on_this_evidence(site, options, remark):
    recording, _ = made(collected([site]), **options)
    kind = "cache filp" if site[1] == "kmem_cache" else site[1]
    assert kinds(recording)[0].partition(",")[0].partition(" (")[0] == kind
    assert (remark and kinds(recording)[0].endswith(remark)) or "(" not in kinds(recording)[0]


def test_a_full_table_is_a_trouble_and_a_nested_event_among_many_is_none():
    site = [("alloc_pipe_info", "kmalloc", 0, 192, 3, 0, 0)]
    full, _ = made(collected(site, drops={"blocks_full": 1}))
    assert "incomplete" in full.coverage.troubles
    few, _ = made(collected(site, drops={"nested_event": 1}))
    assert "incomplete" not in few.coverage.troubles
    many, _ = made(collected(site, drops={"nested_event": 100}))
    assert "incomplete" in many.coverage.troubles


def test_nothing_at_all_is_a_recording_too():
    recording, held = made(collected([]))
    assert len(recording.sites) == 1
    assert held == {}


# -- ftrace -------------------------------------------------------------------

EVENTS = """\
          leaky-42      [000] .....   100.000001: kmalloc: call_site=x+0x1/0x2 ptr=00000000aaaaaaaa bytes_req=90 bytes_alloc=96 gfp_flags=GFP_KERNEL node=-1 accounted=false
          leaky-42      [000] .....   100.000002: <stack trace>
 => __kmalloc_noprof+0x8/0x100 <2008>
 => alloc_pipe_info+0x8/0x100 <3008>
          other-43      [001] .....   100.000003: kfree: call_site=x+0x1/0x2 ptr=00000000bbbbbbbb
          leaky-42      [000] .....   100.000004: kmem_cache_alloc: call_site=x ptr=00000000cccccccc name=filp bytes_req=192 bytes_alloc=192 gfp_flags=GFP_KERNEL|__GFP_RECLAIMABLE node=-1 accounted=true
          leaky-42      [000] .....   100.000005: <stack trace>
 => alloc_pipe_info+0x8/0x100 <3008>
          other-43      [001] .....   103.000003: kmem_cache_free: call_site=x+0x1/0x2 ptr=00000000cccccccc name=filp
CPU:1 [LOST 12 EVENTS]
          leaky-42      [000] .....   104.000001: mm_page_alloc: page=00000000dddddddd pfn=0x40 order=2 migratetype=0 gfp_flags=GFP_KERNEL
"""


def test_events_of_ftrace_become_sites_and_blocks():
    reader = EventReader(0)
    for at in range(0, len(EVENTS), 7):
        reader.feed(EVENTS[at : at + 7].encode())
    found = reader.collected()
    assert found.moment.drops == {"overrun": 12}
    assert found.moment.allocs == (1, 1, 1, 0, 0)
    assert found.moment.frees == (1, 1, 0, 0, 0)
    assert sorted(found.blocks["bytes"].tolist()) == [96, 16384]
    gone = found.sites[found.sites["frees"] == 1][0]
    assert gone["flags"] == wire.RECLAIMABLE
    assert gone["ages"].tolist().index(1) == (3 * SECOND // wire.TICK_NS).bit_length()
    recording, held = made(found)
    assert "kmalloc" in kinds(recording)
    assert {name for each in held.values() for name in each.comms.values()} == {"leaky"}


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [*EVENTS.split("\n"), "rubbish", " => <>", "x-1 [0] . 1.000000: kfree: ptr="]
        )
    )
)
def test_no_order_of_lines_does_harm(lines):
    reader = EventReader(0)
    reader.feed("\n".join(lines).encode() + b"\n")
    recording, _ = made(reader.collected())
    assert len(recording.blocks) <= recording.sites["allocs"].sum()


def test_a_sample_is_so_many_bits_of_an_address():
    assert [_choice(size) for size in (1, 2048, 16384, 1 << 26)] == [0, 0, 3, 6]


def test_instances_of_the_dead_are_removed_and_of_the_living_not(tmp_path):
    own = tracefs._namespace()
    start = tracefs.read_start(os.getpid())
    alive = tmp_path / f"leakscope-{own}-{os.getpid()}-{start}"
    for folder in (
        alive,
        tmp_path / f"leakscope-{own}-{os.getpid()}-{start - 1}",
        tmp_path / f"leakscope-{own}-4194303-1",
        tmp_path / "leakscope-1-4194303-1",  # of another namespace
        tmp_path / "theirs",
    ):
        folder.mkdir()
    tracefs.remove_left_behind(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {
        alive.name,
        "leakscope-1-4194303-1",
        "theirs",
    }


# -- filters ------------------------------------------------------------------


def test_caches_of_kmalloc_are_known_by_their_size():
    sizes = [is_kmalloc(name) for name in ("kmalloc-192", "kmalloc-cg-4k", "kmalloc-rnd-07-8")]
    assert sizes == [192, 4096, 8]
    assert is_kmalloc("dentry") is None


def test_a_cache_that_there_is_not_is_refused():
    with pytest.raises(TargetError, match="no cache"):
        find_cache("no such cache")


# -- bounds -------------------------------------------------------------------


def test_looks_stay_few_however_long_it_takes():
    looks, every = [], 3.0
    for number in range(10_000):
        looks.append(number)
        every = thinned(looks, every)
    assert len(looks) < 64
    assert every > 3.0


def test_names_that_others_chose_command_no_terminal():
    assert plain("\x1b[31mred\n") == "?[31mred?"


def test_debug_information_is_asked_with_the_kernels_own_words():
    class Lines:
        def resolve(self, frames):
            (frame,) = frames
            inner = frame._replace(function="inlined", file="a.c", line=3, inlined=True)
            return {frame: (inner, frame._replace(file="a.c", line=9))}

    place = SYMBOLS.find(AT["alloc_pipe_info"] + 8)
    (told,) = named_places([place], Lines()).values()
    assert [(f.function, f.line, f.inlined) for f in told] == [
        ("inlined", 3, True),
        ("alloc_pipe_info", 9, False),
    ]
    assert {f.symbol for f in told} == {"alloc_pipe_info+0x8"}
