# SPDX-License-Identifier: Apache-2.0
"""One leak moves many gauges: it is told once, by the gauge that says it best."""

import numpy as np
import pytest

from leakscope.judge.causes import find_causes
from leakscope.judge.growing import fast_growers, moved_by
from leakscope.judge.trends import judge_series
from leakscope.model.series import Series, Subject, Trend, TrendVerdict

MIB = float(1 << 20)


def leak(kind, key, metric, rate, *, unit="bytes", exe=None, name=None, verdict=TrendVerdict.LEAK):
    pid = int(key.split("@")[0]) if kind == "process" else None
    subject = Subject(kind, key, name or key, pid, exe)
    series = Series(subject, metric, unit, np.array([0]), np.array([1.0]))
    return Trend(series, verdict, 0.9, rate, rate, rate, "", None)


def told(causes):
    return [
        (
            c.trend.series.subject.key,
            c.trend.series.metric,
            {(t.series.subject.key, t.series.metric) for t in c.follows},
        )
        for c in causes
    ]


def test_memory_of_a_process_explains_its_cgroup_and_the_machine():
    trends = [
        leak("system", "machine", "used", 11 * MIB),
        leak("cgroup", "/", "working_set", 10.5 * MIB),
        leak("cgroup", "/a", "working_set", 10 * MIB),
        leak("process", "7@1", "anon", 10 * MIB),
        leak("process", "7@1", "page_tables", 0.1 * MIB),
    ]
    assert told(find_causes(trends)) == [
        (
            "7@1",
            "anon",
            {
                ("machine", "used"),
                ("/", "working_set"),
                ("/a", "working_set"),
                ("7@1", "page_tables"),
            },
        )
    ]


def test_growth_that_nothing_explains_stands_alone():
    trends = [
        leak("system", "machine", "used", 100 * MIB),
        leak("process", "7@1", "anon", 10 * MIB),
    ]
    assert told(find_causes(trends)) == [("machine", "used", set()), ("7@1", "anon", set())]


def test_threads_bring_stacks_mappings_and_kernel_objects():
    trends = [
        leak("process", "7@1", "anon", 60 * 20 * 1024.0),
        leak("process", "7@1", "threads", 60, unit="count"),
        leak("process", "7@1", "mappings", 120, unit="count"),
        leak("slab", "task_struct", "unreclaimable", 0.5 * MIB),
        leak("slab", "dma-kmalloc-8k", "unreclaimable", 0.5 * MIB),
    ]
    assert told(find_causes(trends)) == [
        ("dma-kmalloc-8k", "unreclaimable", set()),
        (
            "7@1",
            "threads",
            {("7@1", "anon"), ("7@1", "mappings"), ("task_struct", "unreclaimable")},
        ),
    ]


def test_much_memory_beside_a_few_descriptors_is_a_leak_of_its_own():
    trends = [
        leak("process", "7@1", "anon", 100 * MIB),
        leak("process", "7@1", "fds", 12, unit="count"),
    ]
    assert told(find_causes(trends)) == [("7@1", "anon", set()), ("7@1", "fds", set())]


def test_a_heap_that_grows_by_mmap_is_told_as_memory():
    trends = [
        leak("process", "7@1", "anon", 100 * MIB),
        leak("process", "7@1", "mappings", 100, unit="count"),
    ]
    assert told(find_causes(trends)) == [("7@1", "anon", {("7@1", "mappings")})]


def test_workers_that_leak_alike_are_one_cause():
    rates = {"7@1": 5, "8@1": 9, "9@1": 7}
    trends = [leak("process", k, "anon", r * MIB, exe="/bin/w") for k, r in rates.items()]
    trends.append(leak("process", "5@1", "anon", 6 * MIB, exe="/bin/other"))
    causes = find_causes(trends)
    assert [(c.trend.series.subject.key, len(c.alike)) for c in causes] == [("8@1", 2), ("5@1", 0)]


def test_two_processes_are_no_pattern():
    trends = [leak("process", k, "anon", MIB, exe="/bin/w") for k in ("7@1", "8@1")]
    assert [len(c.alike) for c in find_causes(trends)] == [0, 0]


def test_shared_memory_of_a_process_explains_the_tmpfs_it_is_in():
    trends = [
        leak("tmpfs", "0:5", "tmpfs", 10 * MIB, name="/dev/shm"),
        leak("process", "7@1", "shmem", 10 * MIB),
        leak("system", "machine", "shmem", 10 * MIB),
    ]
    assert told(find_causes(trends)) == [("7@1", "shmem", {("0:5", "tmpfs"), ("machine", "shmem")})]


def test_segments_and_what_they_hold_are_one_leak():
    trends = [
        leak("sysv", "shm", "segments", 60, unit="count"),
        leak("sysv", "shm", "shm", 30 * MIB),
    ]
    assert told(find_causes(trends)) == [("shm", "shm", {("shm", "segments")})]


def test_what_is_no_leak_is_no_cause():
    assert find_causes([leak("process", "7@1", "anon", MIB, verdict=TrendVerdict.FILLING)]) == []


@pytest.mark.parametrize(
    ("kind", "metric", "verdict"),
    [
        ("slab", "reclaimable", TrendVerdict.CACHE),
        ("slab", "unreclaimable", TrendVerdict.LEAK),
        ("system", "page_cache", TrendVerdict.CACHE),
        ("system", "unexplained", TrendVerdict.LEAK),
    ],
)
def test_a_cache_the_kernel_gives_back_is_no_leak(kind, metric, verdict):
    subject = Subject(kind, "dentry", "dentry")
    n = np.arange(1080)
    values = 100 * MIB + n * 0.1 * MIB + np.random.default_rng(3).normal(0, MIB, len(n))
    (got,) = judge_series([Series(subject, metric, "bytes", n * 10_000_000_000, values)])
    assert got.verdict is verdict
    assert ("drop_caches" in (got.next_step or "")) == (verdict is TrendVerdict.CACHE)


@pytest.mark.parametrize(
    ("kind", "metric", "said"),
    [
        ("system", "used", "the memory of this machine lasts"),
        ("cgroup", "anon", "the memory it can get lasts"),
        ("tmpfs", "tmpfs", "its limit of 1.0 GiB lasts"),
        ("process", "anon", "the memory it can get lasts"),
    ],
)
def test_what_runs_out_has_its_right_name(kind, metric, said):
    subject = Subject(kind, "x", "x", limit=1024 * MIB)
    n = np.arange(1080)
    values = 100 * MIB + n * 0.1 * MIB + np.random.default_rng(3).normal(0, MIB, len(n))
    (got,) = judge_series([Series(subject, metric, "bytes", n * 10_000_000_000, values)])
    assert said in got.sentence


def test_processes_and_sockets_of_the_machine_follow_whoever_piles_them_up():
    trends = [
        leak("system", "machine", "processes", 60, unit="count"),
        leak("system", "machine", "sockets", 60, unit="count"),
        leak("process", "7@1", "children", 60, unit="count"),
        leak("process", "8@1", "fds", 60, unit="count"),
        leak("system", "machine", "kernel_stacks", 1 * MIB),
        leak("cgroup", "/a", "anon", 500 * MIB),
    ]
    assert sorted(told(find_causes(trends))) == [
        (
            "7@1",
            "children",
            {("machine", "processes"), ("machine", "kernel_stacks"), ("/a", "anon")},
        ),
        ("8@1", "fds", {("machine", "sockets")}),
    ]


def test_an_inner_cgroup_explains_the_outer_one_and_no_neighbour():
    trends = [
        leak("cgroup", "/a", "anon", 11 * MIB),
        leak("cgroup", "/a/b", "anon", 10 * MIB),
        leak("cgroup", "/ab", "anon", 9 * MIB),
        leak("system", "machine", "anon", 12 * MIB),
    ]
    assert sorted(told(find_causes(trends))) == [
        ("/a/b", "anon", {("/a", "anon"), ("machine", "anon")}),
        ("/ab", "anon", set()),
    ]


def test_large_kernel_buffers_follow_threads_only_when_threads_take_them():
    threads = leak("process", "7@1", "threads", 60, unit="count")
    stacks = leak("vmalloc", "kernel_clone", "buffers", MIB)
    driver = leak("vmalloc", "drv_open", "buffers", MIB)
    assert sorted(told(find_causes([threads, stacks, driver]))) == [
        ("7@1", "threads", {("kernel_clone", "buffers")}),
        ("drv_open", "buffers", set()),
    ]


def test_a_cgroup_below_the_root_is_told_once_whatever_comes_first():
    trends = [leak("cgroup", "/", "anon", 10 * MIB), leak("cgroup", "/a", "anon", 10 * MIB)]
    for order in (trends, trends[::-1]):
        assert told(find_causes(order)) == [("/a", "anon", {("/", "anon")})]


def course(kind, key, metric, rate, *, unit="bytes", start=100.0):
    """A gauge that is looked at every 5 s for a minute and grows by `rate` a second."""
    times = np.arange(13) * 5 * 10**9
    values = np.round(start + rate * times / 1e9)
    pid = int(key.split("@")[0]) if kind == "process" else None
    return Series(Subject(kind, key, key, pid), metric, unit, times, values)


def test_what_a_programs_descriptors_fill_is_told_with_the_program():
    trends = judge_series(
        [
            course("slab", "signal_cache (with UNIX)", "unreclaimable", 200 * 1152.0),
            course("slab", "filp", "unreclaimable", 200 * 256.0),
            course("process", "7@1", "fds", 200.0, unit="count"),
        ]
    )
    assert {t.verdict for t in trends} == {TrendVerdict.GROWING}
    (fast,) = fast_growers(trends)
    assert (fast.series.subject.key, fast.series.metric) == ("7@1", "fds")
    moved = [t.series.subject.key for t in moved_by(fast, trends)]
    assert moved == ["signal_cache (with UNIX)", "filp"]


@pytest.mark.parametrize(
    ("cache", "rate"),
    [("kmalloc-cg-1k (with names)", 200 * 1024.0), ("kmalloc-rnd-05-256", 200 * 128.0)],
)
def test_a_cache_of_one_object_to_a_descriptor_or_to_a_pair_is_told_with_them(cache, rate):
    trends = judge_series(
        [
            course("slab", cache, "unreclaimable", rate),
            course("process", "7@1", "fds", 200.0, unit="count"),
        ]
    )
    (fast,) = fast_growers(trends)
    assert [t.series.subject.key for t in moved_by(fast, trends)] == [cache]


@pytest.mark.parametrize(
    ("cache", "rate"),
    [
        ("kmalloc-4k", 200 * 1152.0),
        ("kmalloc-64", 200 * 1152.0),
        ("filp", 200 * float(1 << 20)),
        ("task_struct", 200 * 1152.0),
    ],
)
def test_a_cache_that_descriptors_cannot_fill_stays_on_its_own(cache, rate):
    trends = judge_series(
        [
            course("slab", cache, "unreclaimable", rate),
            course("process", "7@1", "fds", 200.0, unit="count"),
        ]
    )
    assert len(fast_growers(trends)) == 2


def test_files_in_memory_are_told_with_their_file_system_and_with_no_bystander():
    trends = judge_series(
        [
            course("slab", "shmem_inode_cache", "unreclaimable", 1500 * 768.0),
            course("tmpfs", "/run/spool", "files", 1500.0, unit="count"),
            course("process", "7@1", "fds", 3.3, unit="count"),
        ]
    )
    told = {t.series.subject.key: t for t in fast_growers(trends)}
    assert set(told) == {"/run/spool", "7@1"}
    assert [t.series.subject.key for t in moved_by(told["/run/spool"], trends)] == [
        "shmem_inode_cache"
    ]
    assert moved_by(told["7@1"], trends) == []


def test_a_cache_without_a_name_of_its_own_follows_the_descriptors_that_leak():
    fds = leak("process", "7@1", "fds", 900.0, unit="count")
    assert told(find_causes([leak("slab", "kmalloc-256", "unreclaimable", 900 * 256.0), fds])) == [
        ("7@1", "fds", {("kmalloc-256", "unreclaimable")})
    ]
    apart = find_causes([leak("slab", "kmalloc-256", "unreclaimable", 9 * 900 * 256.0), fds])
    assert [c.trend.series.subject.key for c in apart] == ["kmalloc-256", "7@1"]


def test_a_cache_that_a_young_program_may_fill_is_not_called_a_leak_before_it():
    (fds,) = judge_series([course("process", "7@1", "fds", 0.25, unit="count")])
    assert fds.verdict is not TrendVerdict.LEAK
    held = [leak("slab", name, "unreclaimable", 900 * size) for name, size in (("UNIX", 1024.0), ("kmalloc-64", 64.0))]  # fmt: skip
    assert find_causes([*held, fds]) == []
    other = leak("slab", "task_struct", "unreclaimable", 900 * 1024.0)
    assert len(find_causes([other, fds])) == 1
