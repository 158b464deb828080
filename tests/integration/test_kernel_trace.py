# SPDX-License-Identifier: Apache-2.0
"""Traces of the kernel's allocations, on the kernel that runs the tests (as root)."""

import contextlib
import ctypes
import fcntl
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from conftest import ROOT
from leakscope.kernel.trace_filter import find_kernel_cgroup
from leakscope.proc.slabinfo import read_slabinfo

LOAD = ROOT / "tests" / "programs" / "kernel_load.py"
COMMAND = Path(sys.executable).with_name("leakscope")
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("kernel"), pytest.mark.timeout(400)]


@pytest.fixture(autouse=True, scope="module")
def _alone():
    """One of these tests at a time: they look at all that is loaded into the kernel."""
    with open(Path(tempfile.gettempdir()) / "leakscope-kernel-trace.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kernel_trace(*options, before=(), **more):
    return subprocess.run(
        [*before, COMMAND, "kernel", "trace", *options],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        **more,
    )


@contextlib.contextmanager
def load(what, *more):
    command = [sys.executable, "-I", LOAD, what, "100", *map(str, more)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            yield process.pid
        finally:
            process.kill()


def findings_of(done):
    assert done.returncode in {0, 1, 3}, done.stderr
    return json.loads(done.stdout)["processes"][0]["findings"]


def functions(finding):
    return [frame["function"] for frame in finding["stack"]]


def processes(findings):
    return {
        each["value"]
        for finding in findings
        for each in finding["evidence"]
        if each["name"] == "process"
    }


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def programs():
    """The numbers of all BPF programs in the kernel."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    found, last = set(), 0
    while True:
        ask = ctypes.create_string_buffer(struct.pack("<III", last, 0, 0) + bytes(116))
        if call(number, 11, ask, len(ask)) != 0:  # BPF_PROG_GET_NEXT_ID
            return found
        last = struct.unpack_from("<I", ask.raw, 4)[0]
        found.add(last)


def helpers():
    """Numbers of the processes that hold BPF programs for us."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry / "comm").read_text() == "leakscope-bpf\n":
                found.append(int(entry.name))
    return found


def soon(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def active(name):
    return next(slab.active for slab in read_slabinfo() if slab.name == name)


# -- what is found ------------------------------------------------------------


class TestLeak:
    """One process opens descriptors and keeps them, another closes them at once."""

    @pytest.fixture(scope="class")
    @classmethod
    def seen(cls):
        with load("leak") as leaky, load("churn") as calm:
            files, counted = open_files(leaky), active("filp")
            done = kernel_trace(
                *("--for", "24s", "--every", "1s", "--sample", "4KiB", "--bpf", "--json", "--all")
            )
            files, counted = open_files(leaky) - files, active("filp") - counted
        return done, leaky, calm, files, counted

    def test_it_is_called_a_leak_by_stack_and_process(self, seen):
        done, leaky, _, _, _ = seen
        for function in ("create_pipe_files", "do_epoll_create"):
            named = [f for f in findings_of(done) if function in functions(f) and not f["known"]]
            worst = max(named, key=lambda f: f["live_bytes"])
            assert worst["verdict"] == "leaking", worst
            assert f"(pid {leaky})" in worst["sentence"]
            assert f"/proc/{leaky}/fd" in worst["next_step"]
        assert done.returncode == 1

    def test_the_estimate_is_near_the_truth_and_the_kernels_own_count(self, seen):
        done, _, _, files, counted = seen
        filp = [f for f in findings_of(done) if f["kind"].startswith("cache filp")]
        held = sum(f["live_count"] for f in filp)
        # Both were counted before it began and after it had ended, on a machine that may be busy.
        assert 0.2 * files < held < 1.6 * files
        assert 0.2 * counted < held < 2 * counted

    def test_who_frees_is_not_accused(self, seen):
        done, _, calm, _, _ = seen
        leaks = [f for f in findings_of(done) if f["verdict"] == "leaking" and not f["known"]]
        assert not [f for f in leaks if f"(pid {calm})" in f["sentence"]]

    def test_the_tracer_does_not_count_itself(self, seen):
        done = seen[0]
        assert "leakscope" not in " ".join(f["sentence"] for f in findings_of(done))

    def test_what_it_cost_is_told(self, seen):
        notes = " ".join(json.loads(seen[0].stdout)["processes"][0]["coverage"]["notes"])
        assert re.search(r"tracing took about \d+ ns for each of [\d,]+ events", notes)
        assert "its tables took" in notes


def test_page_cache_that_fills_is_no_leak(tmp_path):
    with load("cache", tmp_path / "file"):
        done = kernel_trace(
            *("--for", "6s", "--every", "0.4s", "--movable", "--kinds", "page", "--bpf", "--json")
        )
    pages = [f for f in findings_of(done) if f["kind"].startswith("page (reclaimable)")]
    assert pages
    assert all(f["known"].startswith("reclaimable") for f in pages)


def test_one_process_and_one_cache_are_counted_and_nothing_else():
    with load("leak") as leaky, load("churn"):
        before = open_files(leaky)
        done = kernel_trace(
            *("--for", "4s", "--pid", str(leaky), "--cache", "filp", "--sample", "1", "--json")
        )
        after = open_files(leaky)
    found = findings_of(done)
    assert processes(found) == {leaky}
    # It begins after the first count and ends before the second, and sees some rounds of four.
    held = sum(f["live_count"] for f in found)
    assert 20 < held <= after - before
    assert sum(f["allocation_count"] for f in found) == held


@pytest.mark.parametrize(
    "root", ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
)
def test_one_cgroup(root):
    if not os.path.exists(f"{root}/cgroup.procs"):
        return  # another of these is what this machine has
    group = Path(root, f"leakscope-test-{os.getpid()}")
    group.mkdir()
    try:
        with load("leak") as leaky, load("leak"):
            (group / "cgroup.procs").write_text(str(leaky))
            done = kernel_trace("--for", "3s", "--cgroup", str(group), "--sample", "1", "--json")
            assert processes(findings_of(done)) == {leaky}
            assert find_kernel_cgroup(group.name).number > 0
    finally:
        assert soon(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_in_a_namespace_of_processes_numbers_are_those_of_the_namespace():
    script = (
        'python=$1; load=$2; shift 2; "$python" -I "$load" leak 60 >/dev/null & sleep 1;'
        ' "$@" --pid $!; status=$?; kill $!; exit $status'
    )
    done = kernel_trace(
        *("--for", "2s", "--sample", "1", "--bpf", "--json"),
        before=(
            *("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"),
            *(sys.executable, LOAD),
        ),
    )
    assert len(processes(findings_of(done))) == 1
    assert max(processes(findings_of(done))) < 20


def test_a_range_of_sizes():
    with load("leak"):
        done = kernel_trace(
            "--for", "2s", "--size", "1KiB-2KiB", "--sample", "1", "--json", "--all"
        )
    found = findings_of(done)
    assert found
    assert all(1024 <= f["live_bytes"] / f["live_count"] <= 2048 for f in found if f["live_count"])


def test_a_full_table_is_told_and_nothing_is_called_clean():
    with load("leak"):
        done = kernel_trace("--for", "3s", "--sample", "1", "--blocks", "1024")
    assert done.returncode in {1, 3}
    assert "a table was full" in " ".join(done.stdout.split())
    assert "no leak found" not in done.stdout


def test_a_trace_that_is_too_short_for_a_verdict_is_undecided():
    with load("leak"):
        done = kernel_trace("--for", "2s", "--sample", "1", "--pid", "1")
    assert done.returncode == 3
    told = " ".join(done.stdout.split())
    assert "nothing is known of leaks: the trace was too short" in told
    assert "before 20 s nothing is called a leak" in told
    assert "trace for longer: leakscope kernel trace" in told
    assert "nothing to mend" not in told


def test_a_recording_of_it_is_reported_again(tmp_path):
    with load("leak"):
        done = kernel_trace("--for", "3s", "--record", tmp_path / "k.leakscope")
    again = subprocess.run(
        [COMMAND, "report", tmp_path / "k.leakscope"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == done.returncode
    assert again.stdout.splitlines()[0] == done.stdout.splitlines()[0]


# -- nothing is left ----------------------------------------------------------


def test_nothing_is_left_in_the_kernel_however_it_ends():
    before = programs()
    chance = random.Random(17)
    for end in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        with subprocess.Popen(
            [COMMAND, "kernel", "trace", "--for", "60s", "--every", "0.1s"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert soon(lambda: programs() - before, 30)
            time.sleep(chance.random())
            process.send_signal(end)
        assert soon(lambda: not helpers())
        assert soon(lambda: programs() <= before)


def test_a_helper_that_is_killed_is_told():
    before = programs()
    with subprocess.Popen(
        [COMMAND, "kernel", "trace", "--for", "60s", "--every", "0.1s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert soon(lambda: len(programs() - before) >= 8, 30)
        time.sleep(1)
        for pid in helpers():
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert re.search("leakscope-bpf (ended while it traced|was ended by signal 9)", err)
    assert "Traceback" not in out + err
    assert soon(lambda: programs() <= before)


# -- ftrace -------------------------------------------------------------------


@contextlib.contextmanager
def tracefs():
    """Where instances of tracefs are, seen from a mount of our own."""
    folder = tempfile.mkdtemp()
    subprocess.run(["mount", "-t", "tracefs", "none", folder], check=True)
    try:
        yield Path(folder, "instances")
    finally:
        subprocess.run(["umount", folder], check=True)
        os.rmdir(folder)


def ours(instances, pid=r"\d+"):
    return [e for e in instances.iterdir() if re.fullmatch(rf"leakscope-\d+-{pid}-\d+", e.name)]


def test_ftrace_finds_the_same_and_removes_its_instance():
    with load("leak") as leaky, tracefs() as instances:
        done = kernel_trace(
            *("--for", "5s", "--every", "0.4s", "--pid", str(leaky), "--sample", "1", "--ftrace"),
            "--json",
        )
        left = ours(instances)
    grown = [f for f in findings_of(done) if f["verdict"] in {"growing", "leaking"}]
    assert any("create_pipe_files" in functions(f) for f in grown)
    assert processes(grown) == {leaky}
    assert left == []


def test_an_instance_of_ftrace_does_not_outlive_its_owner():
    command = [COMMAND, "kernel", "trace", "--for", "60s", "--ftrace"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tracefs() as instances:
        with subprocess.Popen(command, **quiet) as process:
            assert soon(lambda: ours(instances, process.pid), 30)
            process.kill()
        assert soon(lambda: not ours(instances, process.pid)), "the guardian did not remove it"
        # When the guardian is killed as well, the next start does.
        (instances / f"leakscope-{os.stat('/proc/self/ns/pid').st_ino}-{process.pid}-1").mkdir()
        assert ours(instances)
        kernel_trace("--for", "0.5s", "--ftrace")
        assert ours(instances) == []


# -- what cannot be -----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pid", "4194303"], "there is no process 4194303"),
        (["--cache", "filpp"], "Did you mean 'filp'?"),
        (["--cgroup", "/no/such"], "there is no cgroup"),
        (["--size", "9-1"], "no range of sizes"),
        (["--kinds", "slab"], "none of kmalloc"),
        (["--blocks", "1"], "--blocks may be"),
        (["--sample", "1GiB"], "--sample"),
        (["--every", "0.001s"], "too short"),
        (["--ftrace", "--cgroup", "/"], "cgroup"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(options, words):
    done = kernel_trace("--for", "1s", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_rights_one_sentence_says_so():
    assert shutil.which("unshare")
    done = kernel_trace("--for", "1s", "--bpf", before=("unshare", "-U"))
    assert done.returncode == 2
    assert "BPF" in done.stderr
    assert "Traceback" not in done.stderr


LOCKED = (
    "mount -t tmpfs none /sys/kernel/security"
    " && echo 'none integrity [confidentiality]' >/sys/kernel/security/lockdown"
    ' && exec unshare -U "$@"'
)


@pytest.mark.parametrize("options", [(), ("--bpf",)])
def test_a_kernel_that_is_locked_down_is_named_as_such(options):
    done = kernel_trace(
        "--for", "1s", *options, before=("unshare", "-m", "sh", "-c", LOCKED, "sh")
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("leakscope: the kernel is locked down (confidentiality)")
    assert "boot without lockdown" in done.stderr.lower()
    assert "CONFIG_FTRACE" not in done.stderr
