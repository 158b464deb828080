# SPDX-License-Identifier: Apache-2.0
"""The small readers: what the kernel's own text means, and what happens when it is not as told."""

import os

import pytest

from leakscope.proc import cgroup, fds, meminfo, process, slabinfo, smaps
from leakscope.proc.text import read_number, read_text


def test_meminfo_is_bytes_and_page_counts_stay_counts():
    text = "MemTotal:       24684084 kB\nHugePages_Total:       3\nbroken\nBad: x kB\n"
    assert meminfo.parse_meminfo(text) == {"MemTotal": 24684084 * 1024, "HugePages_Total": 3}


def test_status_of_this_process_agrees_with_smaps():
    gauges = process.parse_gauges((read_text("/proc/self/status") or "").encode())
    rollup = smaps.read_rollup(os.getpid())
    assert gauges.parent == os.getppid()
    assert gauges.threads >= 1
    assert gauges.rss == gauges.rss_anon + gauges.rss_file + gauges.rss_shmem
    # Other readings of the same moment, off by what the reader itself allocated.
    assert abs(rollup.rss - gauges.rss) < 8 << 20
    assert 0 < rollup.uss <= rollup.pss <= rollup.rss


@pytest.mark.parametrize(
    "text", [b"", b"Name:\tx\n", b"State:\nPPid:\t1\nThreads:\t1\n", b"\xff:\n"]
)
def test_a_status_cut_short_is_no_status(text):
    assert process.parse_gauges(text) is None


def test_start_counts_from_the_last_bracket():
    fields = " ".join(str(n) for n in range(3, 53))
    assert process.parse_start(f"12 (a) 1 (b c) {fields}") == 22
    assert process.parse_start("12 (a) S 1") is None


def test_anonymous_memory_in_swap_is_still_held():
    text = (
        b"Name:\tx\nState:\tS (sleeping)\nPPid:\t1\nThreads:\t2\nRssAnon:\t10 kB\nVmSwap:\t5 kB\n"
    )
    assert process.parse_gauges(text).anon == 15 * 1024


def test_smaps_adds_up_every_mapping():
    one = "Rss: 4 kB\nPss: 2 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 1 kB\nVmFlags: rd\n"
    both = smaps.parse_smaps(("1-2 r--p\n" + one + "2-3 rw-p\n" + one).split("\n"))
    assert (both.rss, both.pss, both.uss) == (8192, 4096, 4096)
    assert smaps.parse_smaps([]) is None


def test_descriptors_are_counted_and_told_apart(tmp_path):
    before = fds.read_open_files(os.getpid())
    path = tmp_path / "gone"
    with open(path, "wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        path.unlink()
        receive, send = os.pipe()
        after = fds.read_open_files(os.getpid())
        counted = fds.count_fds(os.getpid())
        os.close(receive)
        os.close(send)
    kinds, old = dict(after.kinds), dict(before.kinds)
    assert kinds["pipe"] - old.get("pipe", 0) == 2
    assert kinds["deleted file"] - old.get("deleted file", 0) == 1
    assert abs(counted - after.total) <= 1  # the directory itself is open while it is listed
    sizes = {os.path.basename(d[0]): d[1] for d in after.deleted}
    assert sizes["gone"] >= 100_000


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("socket:[1]", "socket"),
        ("anon_inode:[eventpoll]", "eventpoll"),
        ("/memfd:x (deleted)", "memfd"),
        ("/tmp/x (deleted)", "deleted file"),
        ("/dev/null", "device"),
        ("/x:[1]", "file"),
    ],
)
def test_kind_of_a_descriptor(target, kind):
    assert fds.kind_of(target) == kind


def test_limits():
    text = (
        "Limit  Soft Limit  Hard\nMax open files            1024                 4096      files\n"
    )
    assert fds.parse_limit(text) == 1024
    assert fds.parse_limit(text.replace("1024", "unlimited")) is None
    assert fds.read_fd_limit(os.getpid()) is not None


def test_slabinfo_takes_pages_for_size():
    text = (
        "slabinfo - version: 2.1\n# name <active_objs>\n"
        "dentry 10 42 192 21 1 : tunables 0 0 0 : slabdata 2 2 0\nbad line\n"
    )
    assert slabinfo.parse_slabinfo(text) == (slabinfo.Slab("dentry", 10, 42, 192, 8192),)


MOUNTS_1 = "30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
MOUNTS_2 = "31 24 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n"


def test_the_version_that_has_the_memory_controller_wins():
    both = cgroup.parse_hierarchy(MOUNTS_2 + MOUNTS_1)
    assert both == cgroup.Hierarchy("/sys/fs/cgroup/memory", 1)
    assert cgroup.parse_hierarchy(MOUNTS_2) == cgroup.Hierarchy("/sys/fs/cgroup", 2)
    assert cgroup.parse_hierarchy("nonsense\n") is None


def test_cgroup_version_2(tmp_path):
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    (group / "memory.stat").write_text("anon 100\nfile 300\ninactive_file 200\nkernel 7\n")
    (group / "memory.current").write_text("407\n")
    (group / "memory.max").write_text("max\n")
    (group / "memory.events").write_text("low 0\noom_kill 2\n")
    hierarchy = cgroup.Hierarchy(str(tmp_path), 2)
    assert list(cgroup.walk(hierarchy)) == ["/", "/a", "/a/b"]
    read = cgroup.read_cgroup(hierarchy, "/a/b")
    assert (read.limit, read.working_set, read.anon, read.oom_kills) == (None, 207, 100, 2)
    assert cgroup.read_cgroup(hierarchy, "/gone") is None


def test_cgroup_version_1_no_limit_is_a_number_close_to_2_to_the_63(tmp_path):
    (tmp_path / "memory.stat").write_text("total_rss 5\ntotal_inactive_file 3\n")
    (tmp_path / "memory.usage_in_bytes").write_text("10\n")
    (tmp_path / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    read = cgroup.read_cgroup(cgroup.Hierarchy(str(tmp_path), 1), "/")
    assert (read.limit, read.working_set, read.anon) == (None, 7, 5)


def test_reads_are_bounded_and_never_fail(tmp_path):
    big = tmp_path / "big"
    big.write_bytes(b"1" * 100)
    os.mkfifo(tmp_path / "fifo")
    assert read_text(str(big), 10) == "1" * 10
    assert read_text(str(tmp_path / "fifo")) == ""
    assert read_text(str(tmp_path / "none")) is None
    assert read_text(str(tmp_path)) is None
    assert read_number(str(tmp_path / "none")) is None


def test_a_kernel_without_smaps_rollup_adds_up_smaps(monkeypatch):
    def without(path, *limit):
        return None if path.endswith("smaps_rollup") else read_text(path, *limit)

    whole = smaps.read_rollup(os.getpid())
    monkeypatch.setattr(smaps, "read_text", without)
    summed = smaps.read_rollup(os.getpid())
    assert summed.pss == pytest.approx(whole.pss, rel=0.1)
    assert summed.uss == pytest.approx(whole.uss, rel=0.1)
