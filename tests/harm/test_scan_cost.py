# SPDX-License-Identifier: Apache-2.0
"""A scan costs what there is in memory, not what there is of address space, and can be ended."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from leakscope.scan import cancellable
from leakscope.scan.mark import Marker
from leakscope.scan.roots import Root
from leakscope.target.memory import Segment

ROOT = Path(__file__).parents[2]
CASES, PROGRAMS = ROOT / "tests/programs/cases", ROOT / "tests/programs/harm"
KINDS = ("private", "shared", "memfd", "elsewhere", "reserve", "sealed", "malloc", "calloc", "brk")
LEVEL = {"O0": ["-O0"], "O2": ["-O2", "-fno-builtin-malloc"]}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The programs of this file, by name and level: `programs["mm", "O2"]`."""
    folder = tmp_path_factory.mktemp("programs")
    sources = {
        "mm": CASES / "sparse_mapping/mm.c",
        "freekeep": CASES / "many_freed/freekeep.c",
        "free_order": PROGRAMS / "free_order.c",
        "sparse_kinds": PROGRAMS / "sparse_kinds.c",
    }
    built = {}
    for (name, source), level in itertools.product(sources.items(), LEVEL):
        built[name, level] = folder / f"{name}-{level}"
        command = ["gcc", "-g", "-w", *LEVEL[level], source, "-o", built[name, level]]
        subprocess.run(command, check=True)
    return built


def run(leakscope, folder: Path, *command: object) -> tuple[int, dict[str, object]]:
    """Trace a program; returns the exit status and what the report says of its process."""
    report = folder / "report.json"
    out = folder / "out.leakscope"
    done = leakscope("run", "--json", "--report-file", report, "-o", out, "--", *command)
    return done.status, json.loads(report.read_text())["processes"][0]


class Waiting:
    """A program that has printed "ready" and waits."""

    def __init__(self, *command: object) -> None:
        self._process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> int:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def status_kib(pid: int) -> dict[str, int]:
    """What /proc/PID/status counts in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}


@pytest.mark.parametrize("kind", KINDS)
def test_memory_that_was_never_touched_is_not_touched_by_a_scan(programs, kind, leakscope):
    with Waiting(programs["sparse_kinds", "O0"], kind, "wait") as pid:
        before = status_kib(pid)
        done = leakscope("scan", pid, "--json", timeout=60)
        after = status_kib(pid)
    found = json.loads(done.stdout)
    assert found["counts"]["definitely_lost"] == 1, found
    assert found["counts"]["indirectly_lost"] == 0
    assert found["facts"]["scanned_bytes"] < 64 << 20
    for name in ("VmPTE", "VmRSS", "RssShmem"):
        # Pages of libraries and of the stack may be looked at for the first time.
        assert after[name] <= before[name] + 1024, (name, before, after)


@pytest.mark.parametrize("level", LEVEL)
@pytest.mark.parametrize("kind", KINDS)
def test_nor_at_the_end_of_a_traced_program(programs, kind, level, leakscope, tmp_path):
    _, process = run(leakscope, tmp_path, programs["sparse_kinds", level], kind)
    lost = {f["live_bytes"]: f["lost_count"] for f in process["findings"] if f["lost_count"]}
    assert lost == {999: 1}, process["findings"]
    assert process["scan"]["scanned_bytes"] < 64 << 20


@pytest.mark.parametrize("level", LEVEL)
@pytest.mark.parametrize("arguments", [("sparse", "64"), ("sparse", "8192"), ("reserve",)])
def test_a_reservation_is_no_memory(programs, arguments, level, leakscope, tmp_path):
    status, process = run(leakscope, tmp_path, programs["mm", level], *arguments)
    assert (status, process["leak_count"]) == (0, 0)
    assert process["totals"]["live_bytes"] < 1 << 20
    assert not any(finding["lost_count"] for finding in process["findings"])


def test_mappings_that_are_touched_still_leak(programs, leakscope, tmp_path):
    status, process = run(leakscope, tmp_path, programs["mm", "O0"], "leak")
    assert status == 1
    assert process["totals"]["live_bytes"] >= 40 << 20


def cpu_seconds() -> float:
    """Of all children so far; unlike time that passes, it hardly depends on what else runs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("name", ["freekeep", "free_order"])
def test_lists_of_free_blocks_are_followed_quickly(programs, name, leakscope, tmp_path):
    """Word by word in Python this was four seconds and more for 400,000 blocks."""
    began = cpu_seconds()
    run(leakscope, tmp_path, programs[name, "O2"], 1000)
    few = cpu_seconds() - began
    _, process = run(leakscope, tmp_path, programs[name, "O2"], 1_000_000)
    assert process["totals"]["live_count"] == 1
    assert not any(finding["lost_count"] for finding in process["findings"])
    assert cpu_seconds() - began - 2 * few < 6  # the program itself takes a part of it


def test_many_mappings_cost_little(programs, leakscope, tmp_path):
    began = cpu_seconds()
    _, process = run(leakscope, tmp_path, programs["sparse_kinds", "O2"], "many")
    lost = [finding["live_bytes"] for finding in process["findings"] if finding["lost_count"]]
    assert lost == [999]
    assert cpu_seconds() - began < 10


def endless():
    """Mark an amount of memory that takes minutes."""
    words = np.zeros(8 << 20, np.uint64)
    count, place = 10_000, words.ctypes.data
    segments = [Segment(n * words.nbytes, (n + 1) * words.nbytes, place) for n in range(1, count)]
    starts, sizes = np.array([64], np.uint64), np.array([8], np.uint32)
    with Marker(starts, sizes, segments=segments) as marker:
        marker.mark([Root(words.nbytes, count * words.nbytes, "much")])
        return marker.sweep()


def test_ctrl_c_ends_marking():
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        cancellable(endless)
    assert time.monotonic() - began < 20
    # The next one is not told to end.
    assert cancellable(lambda: 7) == 7


def test_ctrl_c_ends_a_scan_and_the_program_goes_on(programs):
    with Waiting(programs["sparse_kinds", "O0"], "private", "wait") as pid:
        for delay in (0.05, 0.3, 0.5):
            scan = subprocess.Popen(
                [sys.executable, "-m", "leakscope", "scan", str(pid)],
                env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(delay)
            scan.send_signal(signal.SIGINT)
            scan.communicate(timeout=20)
            assert scan.returncode in {1, 130, -signal.SIGINT}
            assert status_kib(pid)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            assert state == "S"
