# SPDX-License-Identifier: Apache-2.0
"""What is followed in the kernel, whose it is, and what is no leak however it grows."""

import numpy as np
import pytest

from leakscope.judge.causes import find_causes
from leakscope.judge.trends import judge_series
from leakscope.kernel import gather
from leakscope.kernel.gather import KernelGatherer
from leakscope.kernel.places import Purpose, purpose_of
from leakscope.model.series import Series, Subject, TrendVerdict
from leakscope.proc.allocinfo import AllocPlace, parse_allocinfo

HOUR = 3_600_000_000_000


def growing(subject, metric, per_hour, unit="bytes", first=8 << 20, hours=3.0, noise=0.002):
    times = (np.linspace(0.0, hours, 180) * HOUR).astype(np.int64)
    spread = np.random.default_rng(len(subject.key)).normal(0, noise * per_hour, 180)
    return Series(subject, metric, unit, times, first + per_hour * (times / HOUR) + spread)


def line(name, key=None):
    return Subject("allocinfo", key or name, name)


@pytest.mark.parametrize(
    ("place", "purpose"),
    [
        (("drivers/net/foo.c", 12, "foo", "foo_open"), Purpose.KERNEL),
        (("mm/readahead.c", 263, None, "page_cache_ra_unbounded"), Purpose.CACHE),
        (("fs/dcache.c", 1, None, "__d_alloc"), Purpose.CACHE),
        (("fs/ext4/super.c", 1, "ext4", "ext4_alloc_inode"), Purpose.CACHE),
        (("fs/ext4/mballoc.c", 1, "ext4", "ext4_mb_new_group_info"), Purpose.KERNEL),
        (("mm/memory.c", 1, None, "alloc_anon_folio"), Purpose.PROGRAM),
        (("mm/slub.c", 1, None, "alloc_slab_page"), Purpose.SLAB),
        (("kernel/fork.c", 1, None, "copy_process"), Purpose.KERNEL),
    ],
)
def test_lines_are_told_by_whom_they_serve(place, purpose):
    assert purpose_of(AllocPlace(*place)) is purpose


def test_a_line_that_leaks_takes_its_cache_and_the_sums_with_it():
    machine = Subject("system", "machine", "this machine", limit=16e9)
    series = [
        growing(line("leak_it at drivers/a.c:1 [a]"), "allocated", 40 << 20),
        growing(Subject("slab", "kmalloc-1k", "kmalloc-1k"), "unreclaimable", 41 << 20),
        growing(machine, "slab_unreclaimable", 42 << 20),
    ]
    (cause,) = find_causes(judge_series(series))
    assert cause.trend.series.subject.kind == "allocinfo"
    assert {t.series.metric for t in cause.follows} == {"unreclaimable", "slab_unreclaimable"}


def test_caches_are_no_leak_however_they_grow():
    trends = judge_series([growing(line("__d_alloc at fs/dcache.c:1"), "cached", 90 << 20)])
    assert [t.verdict for t in trends] == [TrendVerdict.CACHE]
    assert find_causes(trends) == []


def test_a_line_that_grows_with_the_descriptors_of_a_program_is_the_programs_leak():
    program = Subject("process", "7@1", "server", 7, started_ns=-10 * HOUR)
    series = [
        growing(program, "fds", 1800, "count", first=100),
        growing(line("alloc_empty_file at fs/file_table.c:1"), "allocated", 1800 * 256),
        growing(line("alloc_pipe_info at fs/pipe.c:1"), "allocated", 1800 * 700),
        growing(line("leak_it at drivers/a.c:1 [a]"), "allocated", 40 << 20),
    ]
    causes = find_causes(
        judge_series(
            series,
        )
    )
    heads = {c.trend.series.metric: c for c in causes}
    assert {t.series.subject.name.split()[0] for t in heads["fds"].follows} == {"alloc_empty_file", "alloc_pipe_info"}  # fmt: skip
    assert heads["allocated"].trend.series.subject.name.startswith("leak_it")


def test_what_a_program_keeps_open_is_no_leak_of_the_kernel_before_it_has_a_verdict():
    young = Subject("process", "7@1", "server", 7, started_ns=int(2.5 * HOUR))
    cache = growing(Subject("slab", "kmalloc-cg-1k", "kmalloc-cg-1k"), "unreclaimable", 1800 * 1024)
    pipes = growing(line("alloc_pipe_info at fs/pipe.c:1"), "allocated", 1800 * 1024)
    other = growing(Subject("slab", "kmalloc-2k", "kmalloc-2k"), "unreclaimable", 40 << 20)
    opened = growing(young, "fds", 1800, "count", first=100)
    trends = judge_series([opened, cache, pipes, other])
    assert trends[0].verdict is not TrendVerdict.LEAK
    assert [c.trend.series.subject.key for c in find_causes(trends)] == ["kmalloc-2k"]
    alone = judge_series([cache, pipes, other])
    assert len(find_causes(alone)) == 2


def test_a_cache_follows_the_line_that_follows_a_program():
    program = Subject("process", "7@1", "server", 7, started_ns=-10 * HOUR)
    series = [
        growing(program, "fds", 1800, "count", first=100),
        growing(line("alloc_pipe_info at fs/pipe.c:1"), "allocated", 1800 * 1024),
        growing(Subject("slab", "kmalloc-cg-1k", "kmalloc-cg-1k"), "unreclaimable", 1800 * 1024),
    ]
    (cause,) = find_causes(judge_series(series))
    assert cause.trend.series.metric == "fds"
    assert {t.series.subject.kind for t in cause.follows} == {"allocinfo", "slab"}


ALLOCINFO = """allocinfo - version: 1.0
#     <size>  <calls> <tag info>
  {big} 10 drivers/big.c:1 [big] func:big_one 
  {small} 10 drivers/small.c:2 [small] func:small_one 
        4096 1 drivers/rest.c:3 [rest] func:rest_one 
  9999999999 1 mm/memory.c:4 func:alloc_anon_folio 
"""  # noqa: W291


def test_a_line_is_followed_once_it_is_large_or_has_grown(monkeypatch):
    texts = [
        ALLOCINFO.format(big=4 << 20, small=10_000),
        ALLOCINFO.format(big=4 << 20, small=15_000),
        ALLOCINFO.format(big=4 << 20, small=200_000),
        ALLOCINFO.format(big=0, small=0),
    ]
    monkeypatch.setattr(gather, "read_profiling", lambda: True)
    monkeypatch.setattr(gather, "read_allocinfo", lambda: parse_allocinfo(texts.pop(0)))
    gatherer = KernelGatherer(keep_fds=False)
    try:
        seen = [
            {m.subject.name.split()[0]: m.value for m in gatherer.gather().measures if m.subject.kind == "allocinfo"}
            for _ in range(4)
        ]  # fmt: skip
    finally:
        gatherer.close()
    assert seen == [
        {"big_one": 4 << 20},
        {"big_one": 4 << 20},
        {"big_one": 4 << 20, "small_one": 200_000},
        {"big_one": 0, "small_one": 0},  # its module was unloaded, or all was freed
    ]


def test_of_programs_only_what_can_keep_kernel_memory_is_followed():
    gatherer = KernelGatherer(keep_fds=False)
    try:
        measures = gatherer.gather().measures
    finally:
        gatherer.close()
    metrics = {m.metric for m in measures if m.subject.kind == "process"}
    assert "fds" in metrics
    assert not metrics & {"anon", "pss", "virtual"}
    assert {"slab", "system"} <= {m.subject.kind for m in measures}
