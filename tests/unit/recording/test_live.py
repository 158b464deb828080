# SPDX-License-Identifier: Apache-2.0
"""What the agent wrote about real programs is what the reader finds."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from leakscope.errors import RecordingError
from leakscope.model.recordings import Kind
from leakscope.recording import live, load
from unit.recording.recordings import environment, line_of, marked_line


def site_at(recording, place: str) -> int:
    (found,) = (
        site
        for site in range(1, len(recording.sites))
        if recording.sites["live_count"][site] and line_of(recording, site) == place
    )
    return found


def test_a_leak_in_a_loop(trace):
    (path,) = trace("leak_loop")
    before, start = time.time_ns(), time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    recording = live.read(path)
    site = site_at(recording, marked_line("leak_loop", "LEAK"))
    found = recording.sites[site]
    assert (found["allocs"], found["alloc_bytes"]) == (500, 50_000)
    assert (found["live_count"], found["live_bytes"]) == (500, 50_000)
    assert (found["frees"], found["freed_bytes"]) == (0, 0)
    assert found["kind"] == Kind.MALLOC
    assert found["peak_bytes"] == 50_000
    assert recording.deaths[site].sum() == 0

    mine = recording.blocks[recording.blocks["site"] == site]
    assert (mine["size"] == 100).all()
    assert (np.diff(mine["address"].astype(np.int64)) > 0).all()
    # 500 naps of a millisecond: births spread over the run and end with it.
    assert found["first_birth_ns"] == mine["birth_ns"].min()
    assert found["last_birth_ns"] == mine["birth_ns"].max()
    assert 0.4e9 < found["last_birth_ns"] - found["first_birth_ns"] < recording.duration_ns < 60e9

    process = recording.process
    assert process.ended == "exited"
    assert Path(process.exe).name == "leak_loop"
    assert process.pid == int(path.name.split(".")[0])
    assert process.uid == os.getuid()
    assert process.arch == os.uname().machine
    assert process.forked_from is None
    assert process.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert 0 < before - process.started_unix_ns < 60e9
    assert start > recording.duration_ns == process.duration_ns
    assert "libc" in Path(process.allocator).name

    coverage = recording.coverage
    assert (coverage.mode, coverage.sample_bytes) == ("exact", None)
    assert (
        coverage.alloc_events == recording.sites["allocs"].sum() == 500 + 1
    )  # and stdout's buffer
    assert (coverage.dropped, coverage.troubles, coverage.notes) == ({}, (), ())
    assert (coverage.min_size, coverage.max_size) == (None, None)

    timeline = recording.timeline
    assert len(timeline.times_ns) >= 3
    assert (np.diff(timeline.times_ns) > 0).all()
    assert (np.diff(timeline.site_counts[:, site].astype(np.int64)) >= 0).all()
    assert 0.4e9 < timeline.times_ns[-1] - timeline.times_ns[0] < recording.duration_ns
    assert timeline.site_counts[-1, site] == 500
    assert timeline.site_bytes[-1, site] == 50_000
    assert timeline.site_bytes.sum(axis=1) == pytest.approx(timeline.live_bytes)
    assert (timeline.rss_bytes > 0).all()  # what the program itself has in memory
    assert timeline.rss_bytes[-1] - timeline.rss_bytes[0] >= 40_000


def test_modules_and_stacks_reach_from_main_to_the_start(trace):
    (path,) = trace("leak_loop")
    recording = load(path)
    stack = recording.stack(site_at(recording, marked_line("leak_loop", "LEAK")))
    names = [Path(recording.modules[frame.module].path).name for frame in stack]
    assert names[:2] == ["leak_loop", "leak_loop"]
    assert names[2].startswith("libc")
    assert names[-1] == "leak_loop"  # _start
    program = recording.modules[stack[0].module]
    notes = subprocess.run(
        ["readelf", "-n", program.path], capture_output=True, text=True, check=True
    ).stdout
    assert f"Build ID: {program.build_id}\n" in notes
    assert program.start < program.end
    assert not program.unloaded


def test_threads_that_come_and_go_are_all_counted(trace):
    (path,) = trace("threads_churn")
    recording = live.read(path)
    (busy,) = np.flatnonzero(recording.sites["allocs"] == 30_000)  # 3000 threads, ten blocks each
    assert recording.sites["frees"][busy] == 30_000
    assert recording.sites["freed_bytes"][busy] == 30_000 * 64
    assert recording.deaths[busy].sum() == 30_000
    assert recording.deaths[busy][:4].sum() > 29_000  # they die at once
    assert recording.sites["live_count"][busy] == 0


def test_every_live_block_is_found(agent, programs, tmp_path):
    program = subprocess.Popen(
        [programs("million_live")], env=environment(agent, tmp_path), stdout=subprocess.DEVNULL
    )
    best = 0
    try:
        while program.poll() is None:
            for path in tmp_path.glob("*.live"):
                try:
                    recording = live.read(path)
                except RecordingError:  # not started yet
                    continue
                assert recording.coverage.notes == ()
                assert len(recording.blocks) == recording.sites["live_count"].sum()
                assert (recording.blocks["site"] < len(recording.sites)).all()
                assert (np.diff(recording.blocks["address"].astype(np.int64)) > 0).all()
                best = max(best, len(recording.blocks))
    finally:
        program.wait()
    assert program.returncode == 0
    assert best > 1000  # caught it at work at least once
    (path,) = tmp_path.glob("*.live")
    recording = live.read(path)
    (site,) = np.flatnonzero(recording.sites["allocs"] == 1_000_000)
    assert recording.sites["frees"][site] == 1_000_000
    assert len(recording.blocks) < 10


def test_the_programs_own_mappings(trace):
    (path,) = trace("mmap_leak")
    recording = live.read(path)
    site = site_at(recording, marked_line("mmap_leak", "LEAK"))
    found = recording.sites[site]
    assert found["kind"] == Kind.MMAP
    # 300 mappings of 16 pages, each with four pages cut out of its middle.
    assert found["live_bytes"] == 300 * 12 * 4096
    assert found["live_count"] == 600
    mine = recording.ranges[recording.ranges["site"] == site]
    assert mine["length"].sum() == found["live_bytes"]
    assert sorted(set(mine["length"].tolist())) == [4 * 4096, 8 * 4096]
    assert mine["birth_ns"].max() == found["last_birth_ns"]
    others = recording.sites["live_bytes"][recording.sites["kind"] == Kind.MMAP].sum()
    assert others == found["live_bytes"]


KEEPER = """
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
  for (int i = 0; i < 20000; i++)
    if (!malloc(10 + i % 1000)) return 1;
  puts("ready"); fflush(stdout);
  pause();
  return argc + !argv;
}
"""


@pytest.fixture(scope="session")
def keeper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keeper")
    source = folder / "keeper.c"
    source.write_text(KEEPER)
    subprocess.run(["gcc", "-g", "-O0", source, "-o", folder / "keeper"], check=True)
    return folder / "keeper"


@pytest.fixture
def kept(keeper, agent, tmp_path):
    """A process that has allocated and now sleeps, and its live recording."""
    program = subprocess.Popen(
        [keeper], env=environment(agent, tmp_path), stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    (path,) = tmp_path.glob("*.live")
    yield program, path
    program.kill()
    program.wait()
    program.stdout.close()


def test_the_time_that_reading_takes_is_not_the_programs(kept, monkeypatch):
    _, path = kept
    quick = live.read(path).duration_ns

    def slow(*arguments):
        time.sleep(3)
        return read_table(*arguments)

    read_table = live.read_table
    monkeypatch.setattr(live, "read_table", slow)
    assert 0 <= live.read(path).duration_ns - quick < 2e9


def test_killed_loses_nothing(kept):
    program, path = kept
    before = live.read(path)
    assert before.process.ended == "running"
    program.send_signal(signal.SIGKILL)
    program.wait()
    after = live.read(path)
    assert after.process.ended is None
    for name in ("blocks", "sites", "nodes", "deaths"):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
    assert after.modules == before.modules
    assert after.sites["live_count"].sum() == 20_001
    # Its end was seen by nobody; the last thing it did was.
    assert after.sites["last_birth_ns"].max() <= after.duration_ns <= before.duration_ns


def test_a_pid_that_another_process_has_by_now_is_not_running(kept, tmp_path):
    _, path = kept
    copy = tmp_path / "copy"
    subprocess.run(["cp", "--sparse=always", path, copy], check=True)
    assert live.read(path).process.ended == "running"
    assert live.read(copy).process.ended is None


def test_reading_asks_nothing_of_the_process(kept):
    program, path = kept
    program.send_signal(signal.SIGSTOP)
    assert len(live.read(path).blocks) == 20_001


def test_exec_leaves_a_recording_of_what_was_before(trace):
    paths = trace("exec_self")
    found = {int(path.name.split(".")[1]): live.read(path).process.ended for path in paths}
    last = max(found)
    assert found == dict.fromkeys(range(last), "replaced by exec") | {last: "exited"}
    assert last >= 1


def test_filters_and_pauses_are_told(trace):
    (path,) = trace("leak_loop", LEAKSCOPE_MIN_SIZE="200", LEAKSCOPE_MAX_SIZE="1000000")
    coverage = live.read(path).coverage
    assert coverage.dropped == {"filtered": 500}
    assert (coverage.min_size, coverage.max_size) == (200, 1_000_000)
    assert coverage.alloc_events == 501


def test_recording_that_never_began_says_so(trace):
    (path,) = trace("leak_loop", LEAKSCOPE_START_AFTER="1000")
    recording = live.read(path)
    assert recording.coverage.dropped == {"paused": 501}
    assert recording.coverage.notes == ("recording was switched off at the end",)
    assert recording.sites["allocs"].sum() == 0


SAMPLED = """
#include <stdlib.h>
int main(void) {
  for (int i = 0; i < 200000; i++) {
    if (!malloc(100)) return 1;
    free(malloc(50));
    if (i % 10 == 0 && !malloc(3000)) return 1;
  }
  return 0;
}
"""


def test_sampled_estimates_are_unbiased(agent, tmp_path):
    source, program, folder = tmp_path / "s.c", tmp_path / "s", tmp_path / "live"
    source.write_text(SAMPLED)
    subprocess.run(["gcc", "-O0", source, "-o", program], check=True)
    folder.mkdir(mode=0o700)
    subprocess.run([program], env=environment(agent, folder, LEAKSCOPE_SAMPLE="4096"), check=True)
    (path,) = folder.glob("*.live")
    recording = live.read(path)
    assert recording.coverage.mode == "sampled"
    assert recording.coverage.sample_bytes == 4096
    by_size = {}
    for site in range(1, len(recording.sites)):
        found = recording.sites[site]
        if found["allocs"]:
            by_size[round(found["alloc_bytes"] / found["allocs"])] = found
    # (size, allocated, freed); six standard deviations of a Poisson sample.
    for size, allocs, frees in ((100, 200_000, 0), (50, 200_000, 200_000), (3000, 20_000, 0)):
        found = by_size[size]
        chance = 1 - np.exp(-size / 4096)
        spread = 6 * np.sqrt(allocs * chance * (1 - chance)) / chance
        assert abs(int(found["allocs"]) - allocs) < spread
        assert abs(int(found["alloc_bytes"]) - allocs * size) < spread * size
        assert abs(int(found["live_count"]) - (allocs - frees)) < spread
        assert abs(int(found["live_bytes"]) - (allocs - frees) * size) < spread * size
        assert abs(int(found["frees"]) - frees) < spread
    # Deaths and blocks are what was recorded, not estimates: about one in 82 of the small.
    assert recording.deaths.sum() < 200_000 / 40
    assert recording.coverage.alloc_events == len(recording.blocks) + recording.deaths.sum()


def test_python_with_threads_while_it_runs(agent, tmp_path):
    """A busy, growing, multi-threaded process, read over and over, never looks damaged."""
    code = """
import threading, time
def work(n):
    kept = []
    for i in range(40000):
        kept.append(bytearray(600 + (i * n) % 3000))
        if i % 3 == 0: kept.pop()
threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
[t.start() for t in threads]; [t.join() for t in threads]
"""
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(agent, tmp_path, PYTHONMALLOC="malloc"),
    )
    reads, most, refusals = 0, 0, []
    try:
        while program.poll() is None:
            for path in tmp_path.glob("*.live"):
                try:
                    recording = live.read(path)
                except RecordingError as error:  # not started yet
                    refusals.append(str(error))
                    continue
                assert recording.coverage.notes == ()
                assert recording.process.ended in {"running", "exited"}
                sites = recording.sites
                assert (sites["node"] < len(recording.nodes)).all()
                assert (np.diff(recording.timeline.times_ns) > 0).all()
                most = max(most, len(recording.blocks))
                reads += 1
    finally:
        program.wait()
    assert program.returncode == 0
    assert all("nothing yet" in each or "not a recording" in each for each in refusals)
    assert reads > 3
    assert most > 1000
