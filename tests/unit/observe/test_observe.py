# SPDX-License-Identifier: Apache-2.0
"""Passes, the series made of them, and the account of the machine."""

import json
import os
import subprocess
import sys
import time

import pytest

from leakscope.model.series import Subject
from leakscope.observe.collect import Collection
from leakscope.observe.gather import Gatherer
from leakscope.observe.machine import account, unexplained
from leakscope.observe.measures import Measure, Pass
from leakscope.observe.process import account_of
from leakscope.proc.meminfo import read_meminfo
from leakscope.proc.smaps import read_rollup
from leakscope.proc.tmpfs import read_tmpfs

SECOND = 1_000_000_000
ONE = Subject("process", "1@1", "x", limit=9.0)


def one_pass(second, value, subject=ONE, metric="anon"):
    return Pass(second * SECOND, (Measure(subject, metric, "bytes", value),), 1, 0.0, 0.0)


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.stdin.close()
    process.wait()


def metrics(one, pid):
    return {m.metric: m.value for m in one.measures if m.subject.pid == pid}


def test_the_account_adds_up_to_all_memory():
    fields = read_meminfo()
    lines = account(fields)
    assert sum(line.bytes for line in lines) == fields["MemTotal"]
    assert all(line.bytes >= 0 for line in lines[:-1])
    # Nothing on an idle machine hides this much.
    assert abs(unexplained(fields)) < fields["MemTotal"] // 4


def test_what_no_counter_shows_is_the_last_line():
    fields = {"MemTotal": 1000, "MemFree": 100, "AnonPages": 200, "Cached": 300, "Shmem": 50}
    assert {line.name: line.bytes for line in account(fields) if line.bytes} == {
        "free": 100,
        "programs": 200,
        "page cache": 250,
        "shared memory and tmpfs": 50,
        "unexplained": 400,
    }


def test_stacks_are_not_counted_again_in_vmalloc():
    fields = {"MemTotal": 100, "KernelStack": 30, "VmallocUsed": 40}
    assert unexplained(fields) == 60


@pytest.mark.parametrize("keep", [True, False])
def test_a_pass_sees_this_process(keep):
    gatherer = Gatherer(only=frozenset({os.getpid()}), system=False, keep_fds=keep)
    try:
        first, second = gatherer.gather(), gatherer.gather()
    finally:
        gatherer.close()
    held = metrics(second, os.getpid())
    assert held["threads"] >= 1
    assert held["fds"] >= 3
    assert held["anon"] > 1 << 20
    assert metrics(first, os.getpid())["pss"] > 1 << 20
    assert 0 < second.cpu_s < 1


@pytest.mark.parametrize("keep", [True, False])
def test_a_process_that_ends_between_passes_is_gone_from_the_next(sleeper, keep):
    gatherer = Gatherer(only=frozenset({sleeper.pid}), system=False, keep_fds=keep)
    try:
        assert gatherer.gather().processes == 1
        sleeper.kill()
        sleeper.wait()
        after = gatherer.gather()
    finally:
        gatherer.close()
    assert after.processes == 0
    assert not [m for m in after.measures if m.subject.kind == "process"]


def test_descriptors_kept_are_given_back():
    before = len(os.listdir("/proc/self/fd"))
    gatherer = Gatherer(only=frozenset({os.getpid()}), system=False)
    gatherer.gather()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    gatherer.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_reused_pid_is_another_subject():
    collection = Collection()
    collection.add(one_pass(1, 5))
    collection.add(one_pass(2, 7, Subject("process", "1@2", "y")))
    assert [list(s.values) for s in collection.series()] == [[5], [7]]


def test_memory_is_bounded_and_the_whole_course_is_kept():
    collection = Collection(limit=64)
    for second in range(1, 10_001):
        collection.add(one_pass(second, second))
    (series,) = collection.series()
    assert 32 <= len(series.values) < 64
    assert series.times_ns[0] == SECOND
    assert series.times_ns[-1] > 9_500 * SECOND
    assert list(series.values) == [t / SECOND for t in series.times_ns]


def test_suspend_and_gap_cut():
    collection = Collection(interval_s=1)
    for second, asleep in [(1, 0), (2, 0), (100, 97 * SECOND), (101, 97 * SECOND)]:
        collection.add(one_pass(second, 1), asleep_ns=asleep)
    (series,) = collection.series()
    assert [(c.time_ns // SECOND, c.reason) for c in series.cuts] == [(100, "suspend")]

    collection = Collection(interval_s=1)
    for second in (1, 2, 3, 60, 61):
        collection.add(one_pass(second, 1))
    (series,) = collection.series()
    assert [(c.time_ns // SECOND, c.reason) for c in series.cuts] == [(60, "gap")]


def test_a_stopped_watcher_is_a_gap_even_when_the_machine_never_slept():
    collection = Collection(interval_s=1)
    for second in (1, 2, 60, 61):
        collection.add(one_pass(second, 1), asleep_ns=0)
    (series,) = collection.series()
    assert [c.reason for c in series.cuts] == ["gap"]


def test_ended_processes_are_forgotten():
    collection = Collection(forget_ns=100 * SECOND)
    collection.add(one_pass(1, 5))
    for second in range(2, 400):
        collection.add(one_pass(second, 7, Subject("process", "2@2", "y")))
    assert [s.subject.key for s in collection.series()] == ["2@2"]


def test_a_limit_bounds_only_its_own_gauge():
    collection = Collection()
    collection.add(one_pass(1, 5))
    collection.add(one_pass(1, 5, metric="fds"))
    limits = {s.metric: s.subject.limit for s in collection.series()}
    assert limits == {"anon": None, "fds": 9.0}


def test_memory_ends_where_the_machine_or_the_cgroup_ends_whichever_is_nearer():
    machine = Subject("system", "machine", "this machine")
    inside, outside = Subject("process", "7@1", "in", 7), Subject("process", "8@1", "out", 8)
    group = Subject("cgroup", "/a", "/a", limit=500.0)
    measures = (
        Measure(machine, "available", "bytes", 1000),
        Measure(inside, "anon", "bytes", 10),
        Measure(inside, "room", "bytes", 300),
        Measure(outside, "anon", "bytes", 20),
        Measure(group, "working_set", "bytes", 200),
        Measure(group, "anon", "bytes", 150),
    )
    collection = Collection()
    collection.add(Pass(SECOND, measures, 2, 0.0, 0.0))
    limits = {(s.subject.key, s.metric): s.subject.limit for s in collection.judged()}
    assert limits == {("7@1", "anon"): 310, ("8@1", "anon"): 1020, ("/a", "anon"): 450}


def test_what_came_and_went_is_not_judged():
    collection = Collection(interval_s=1)
    brief = Subject("process", "9@1", "brief", 9)
    for second in range(1, 101):
        collection.add(one_pass(second, 5))
        if second < 5:
            collection.add(one_pass(second, 5, brief))
        if second == 15:
            assert "9@1" in {s.subject.key for s in collection.series()}
    assert "9@1" not in {s.subject.key for s in collection.series()}  # nor kept
    assert "9@1" not in {s.subject.key for s in collection.judged()}
    assert len(collection.judged()) == 1


def test_many_gauges_keep_fewer_points_each(monkeypatch):
    monkeypatch.setattr("leakscope.observe.collect._POINTS", 4000)
    monkeypatch.setattr("leakscope.observe.collect._FEWEST_POINTS", 20)
    subjects = [Subject("slab", str(n), str(n)) for n in range(50)]
    collection = Collection(interval_s=1)
    for second in range(1, 400):
        some = subjects[: 5 if second < 300 else 50]
        measures = tuple(Measure(s, "unreclaimable", "bytes", 4096) for s in some)
        collection.add(Pass(second * SECOND, measures, 0, 0.0, 0.0))
    kept = [len(s.values) for s in collection.series()]
    assert sum(kept) < 4000
    assert min(kept) > 40
    assert max(kept) < 80


def test_a_limit_that_is_changed_counts():
    collection = Collection()
    changed = Subject("process", "1@1", "x", limit=20.0)
    for second, subject in ((1, ONE), (2, changed)):
        collection.add(one_pass(second, 5, subject, "fds"))
    (series,) = collection.series()
    assert series.subject.limit == 20.0


def test_after_exec_only_the_new_program_is_shown():
    collection = Collection(interval_s=10)
    for key, second in (("7@1", 10), ("7@1", 20), ("7@1+1", 30)):
        collection.add(one_pass(second, second, Subject("process", key, "x", 7)))
    assert collection.latest(7) == [("anon", "bytes", 30.0)]


def test_a_program_started_by_another_name_is_found_later(tmp_path):
    name = f"late{os.getpid()}"
    (tmp_path / name).symlink_to("/bin/sleep")
    code = (
        f"exec python3 -c \"input(); import os; os.execv('{tmp_path / name}', ['{name}', '60'])\""
    )
    process = subprocess.Popen(["/bin/sh", "-c", code], stdin=subprocess.PIPE)
    gatherer = Gatherer(only=frozenset(), names=frozenset({name}), system=False)
    try:
        time.sleep(0.3)
        assert gatherer.gather().processes == 0
        process.stdin.write(b"\n")
        process.stdin.flush()
        deadline = time.monotonic() + 10
        while not gatherer.gather().processes and time.monotonic() < deadline:
            time.sleep(0.05)
        assert gatherer.only == {process.pid}
    finally:
        gatherer.close()
        process.kill()
        process.communicate()


def test_a_limit_of_descriptors_that_is_changed_is_seen():
    import resource

    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (500, 600)); print(flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    gatherer = Gatherer(only=frozenset({process.pid}), system=False)

    def limit():
        gatherer.gather()
        return next(m.subject.limit for m in gatherer.gather().measures if m.metric == "fds")

    try:
        assert limit() == 500
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (123, 600))
        assert limit() == 123
    finally:
        gatherer.close()
        process.kill()
        process.communicate()


def test_a_limit_of_a_group_above_binds_those_below(tmp_path):
    from leakscope.observe.groups import measure_groups, room_of
    from leakscope.proc.cgroup import Hierarchy

    for path, limit, current in (("a", "1000", 700), ("a/b", "max", 300), ("a/c", "400", 100)):
        group = tmp_path / path
        group.mkdir()
        (group / "memory.stat").write_text("anon 100\nkernel 50\nslab_reclaimable 30\n")
        (group / "memory.current").write_text(f"{current}\n")
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.events").write_text("oom_kill 2\n")
    hierarchy = Hierarchy(str(tmp_path), 2)
    out = []
    assert measure_groups(hierarchy, "/a", out) == {"/a": 300, "/a/b": 300, "/a/c": 300}
    assert room_of(hierarchy, "/a/c") == 300
    limits = {m.subject.key: m.subject.limit for m in out}
    assert limits == {"/a": 1000, "/a/b": 1000, "/a/c": 400}
    values = {m.metric: m.value for m in out if m.subject.key == "/a/c"}
    assert values == {"working_set": 100, "anon": 100, "kernel": 20, "oom_kills": 2}
    below = []
    measure_groups(hierarchy, "/a/b", below)
    assert {m.subject.limit for m in below} == {1000}


def test_a_pass_over_the_machine_has_its_kernel_gauges():
    gatherer = Gatherer(pss_budget_s=0.0)
    try:
        one = gatherer.gather()
    finally:
        gatherer.close()
    kinds = {m.subject.kind for m in one.measures}
    assert {"system", "process", "sysv"} <= kinds
    assert ("tmpfs" in kinds) == bool(read_tmpfs())  # a bare chroot has none
    assert ({"slab", "vmalloc"} <= kinds) == (os.geteuid() == 0)
    machine = {m.metric: m.value for m in one.measures if m.subject.kind == "system"}
    assert machine["used"] + machine["available"] == read_meminfo()["MemTotal"]
    assert machine["processes"] > 2
    if os.geteuid() != 0:
        return
    slabs = {m.subject.key: m.metric for m in one.measures if m.subject.kind == "slab"}
    assert slabs["dentry"] == "reclaimable"
    assert slabs["task_struct"] == "unreclaimable"


def as_nobody(work):
    """Return what `work` returns, as JSON, in a child that is nobody; the caller must be root."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(send, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(send)
    with os.fdopen(receive) as file:
        text = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(text)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_without_permission_it_says_what_is_missing_and_shows_the_rest():
    parent = os.getpid()

    def work():
        gatherer = Gatherer()
        one = gatherer.gather()
        return [list(one.missing), metrics(one, parent)]

    missing, held = as_nobody(work)
    assert "PSS of other users' processes (needs CAP_SYS_PTRACE)" in missing
    assert "kernel caches by name (needs root)" in missing
    assert held["anon"] > 1 << 20
    assert held["threads"] >= 1
    # Since Linux 6.2 anybody may count them.
    assert ("fds" in held) != ("descriptors of other users' processes" in missing)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can choose the next pid")
@pytest.mark.parametrize("keep", [True, False])
def test_a_number_that_the_kernel_gives_to_another_process_is_another_subject(keep):
    first = subprocess.Popen(["sleep", "60"])
    watched = Gatherer(only=frozenset({first.pid}), system=False, keep_fds=keep)
    everything = Gatherer(system=False, keep_fds=keep, pss_budget_s=0.0)
    second = None
    try:
        before = {m.subject.key for m in everything.gather().measures if m.subject.pid == first.pid}
        watched.gather()
        first.kill()
        first.wait()
        time.sleep(0.05)  # the start time counts in hundredths
        for _ in range(200):
            with open("/proc/sys/kernel/ns_last_pid", "w") as file:
                file.write(str(first.pid - 1))
            second = subprocess.Popen(["sleep", "60"])
            if second.pid == first.pid:
                break
            second.kill()
            second.wait()
        assert second.pid == first.pid
        after = {m.subject.key for m in everything.gather().measures if m.subject.pid == first.pid}
        assert len(before) == len(after) == 1
        assert before != after
        assert not [m for m in watched.gather().measures if m.subject.kind == "process"]
        assert watched.ended
    finally:
        watched.close()
        everything.close()
        for one in (first, second):
            if one is not None:
                one.kill()
                one.wait()


def test_a_process_is_as_old_as_it_is():
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    child = subprocess.Popen(["sleep", "60"])
    gatherer = Gatherer(only=frozenset({child.pid}), system=False)
    try:
        one = next(m for m in gatherer.gather().measures if m.subject.pid == child.pid)
    finally:
        gatherer.close()
        child.kill()
        child.wait()
    # Clock ticks are hundredths of a second, rounded down.
    assert before - 20_000_000 <= one.subject.started_ns <= one.subject.started_ns + SECOND
    assert abs(one.subject.started_ns - before) < SECOND


def test_what_is_bounded_by_nothing_has_no_limit():
    machine = Subject("system", "machine", "this machine", limit=500.0)
    measures = (
        Measure(machine, "available", "bytes", 1000),
        Measure(machine, "used", "bytes", 100),
        Measure(machine, "page_tables", "bytes", 100),
        Measure(ONE, "threads", "count", 5),
        Measure(ONE, "mappings", "count", 5),
    )
    collection = Collection()
    collection.add(Pass(SECOND, measures, 2, 0.0, 0.0))
    limits = {s.metric: s.subject.limit for s in collection.judged()}
    assert limits == {"used": 500, "page_tables": None, "threads": None, "mappings": None}
    assert collection.course(ONE, "threads").values.tolist() == [5]
    assert collection.course(ONE, "anon") is None
    assert collection.began_ns == SECOND


def test_a_long_recording_of_many_short_processes_stays_small():
    collection = Collection(interval_s=10, keep_ended=True)
    long = Subject("process", "1@1", "long", 1)
    for look in range(3000):
        second = 10 * (look + 1)
        brief = Subject("process", f"{look}@9", "brief", look)
        measures = [Measure(brief, "anon", "bytes", 1)]
        if look < 100:
            measures.append(Measure(long, "anon", "bytes", look))
        collection.add(Pass(second * SECOND, tuple(measures), 1, 0.0, 0.0))
    kept = {s.subject.key for s in collection.series()}
    assert "1@1" in kept
    assert len(kept) < 600


def test_every_field_of_meminfo_that_is_memory_is_in_one_line():
    fields = {
        "MemTotal": 100_000, "MemFree": 10_000, "AnonPages": 20_000, "Cached": 9_000,
        "Buffers": 500, "Shmem": 2_000, "Active": 21_000, "Inactive": 9_000, "Unevictable": 100,
        "SwapCached": 700, "SReclaimable": 3_000, "KReclaimable": 3_200, "SUnreclaim": 1_500,
        "KernelStack": 300, "PageTables": 400, "SecPageTables": 40, "VmallocUsed": 800,
        "Percpu": 60, "Hugetlb": 5_000, "Zswap": 70, "Balloon": 30,
    }  # fmt: skip
    lines = {line.name: line.bytes for line in account(fields, per_cpu_free=90)}
    assert lines == {
        "free": 10_090, "programs": 20_000, "page cache": 7_500, "shared memory and tmpfs": 2_000,
        "swap cache": 600, "compressed swap": 70, "balloon": 30, "huge pages": 5_000,
        "kernel caches, reclaimable": 3_200, "kernel caches, unreclaimable": 1_500,
        "page tables": 440, "kernel stacks": 300, "vmalloc": 500, "per-CPU": 60,
        "unexplained": 48_710,
    }  # fmt: skip
    assert sum(lines.values()) == 100_000


def test_children_and_zombies_belong_to_their_parent():
    code = (
        "import os, time\n"
        "for n in range(3):\n"
        "    if os.fork() == 0:\n"
        "        if n: time.sleep(60)\n"
        "        os._exit(0)\n"
        "print(flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    parent.stdout.readline()
    time.sleep(0.1)
    everything, alone = Gatherer(), Gatherer(only=frozenset({parent.pid}), system=False)
    try:
        for gatherer in (everything, alone):
            held = metrics(gatherer.gather(), parent.pid)
            assert (held["children"], held["zombies"]) == (2, 1)
    finally:
        everything.close()
        alone.close()
        os.killpg(parent.pid, 9)
        parent.wait()
        parent.stdout.close()


def test_a_program_that_runs_another_in_its_place_is_another_subject():
    """And a program that only calls itself otherwise is the same one."""
    code = (
        "import ctypes, os, sys\n"
        "sys.stdin.readline()\n"
        "ctypes.CDLL(None).prctl(15, b'busy', 0, 0, 0); print(flush=True)\n"
        "sys.stdin.readline()\n"
        "os.execv('/bin/cat', ['cat'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    gatherer = Gatherer(only=frozenset({process.pid}), system=False)

    def subject():
        return next(m.subject for m in gatherer.gather().measures if m.subject.pid == process.pid)

    try:
        first = subject()
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        assert subject() == first
        process.stdin.write("\n")
        process.stdin.flush()
        deadline = time.monotonic() + 10
        while (last := subject()).name != "cat" and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        gatherer.close()
        process.kill()
        process.communicate()
    assert last.exe.endswith("/cat")
    assert last.key == f"{first.key}+1"
    # Its memory began anew, so it is as young as a new process.
    assert last.started_ns > first.started_ns + 10_000_000


def test_the_account_of_a_process_adds_up_and_knows_heap_stacks_and_shared_memory():
    code = (
        "import mmap, threading, time\n"
        "threading.stack_size(16 << 20)\n"
        "def deep(n):\n"
        "    time.sleep(60) if not n else deep(n - 1)\n"
        "import sys; sys.setrecursionlimit(100_000)\n"
        "shared = mmap.mmap(-1, 6 << 20); shared.write(b'x' * (6 << 20))\n"
        "private = mmap.mmap(-1, 9 << 20, flags=mmap.MAP_PRIVATE); private.write(b'x' * (9 << 20))\n"
        "small = [bytes(400) for _ in range(20_000)]\n"
        "threading.Thread(target=deep, args=(100,), daemon=True).start()\n"
        "time.sleep(0.3); print(flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    try:
        account = account_of(process.pid)
        rollup = read_rollup(process.pid)
    finally:
        process.kill()
        process.communicate()
    lines = {name: size for name, size, resident in account.lines if resident}
    assert sum(lines.values()) == account.rss == rollup.rss
    assert lines["shared memory"] >= 6 << 20
    assert lines["other private memory: mmap, malloc arenas"] >= 9 << 20
    assert 8 << 10 <= lines["stacks"] < 4 << 20
    assert lines["files"] > 1 << 20
    assert account.name.startswith("python")
    assert sum(count for _, count in account.threads) == 2


def test_what_stands_now_is_the_newest_value_however_thin_the_course_is():
    collection = Collection(limit=16, interval_s=1)
    for second in range(1, 1000):
        collection.add(one_pass(second, second, Subject("process", "7@1", "x", 7)))
        (standing,) = collection.standings()
        assert standing.last == second
    (series,) = collection.series()
    assert series.values[-1] == 999
    assert series.times_ns[-1] == 999 * SECOND
    assert len(series.values) <= 17
    assert collection.latest(7) == [("anon", "bytes", 999)]
