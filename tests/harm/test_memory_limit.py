# SPDX-License-Identifier: Apache-2.0
"""A memory limit, or a small file system, that the program and its recording share."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harm.conftest import LEAKSCOPE, environment
from leakscope.proc import cgroup
from leakscope.recording import live, packed

LIMIT = 120 << 20
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/sys/fs/cgroup", os.W_OK), reason="cgroups may not be made"
)


@pytest.fixture
def group() -> Iterator[Path]:
    """A memory cgroup of 120 MiB."""
    hierarchy = cgroup.find_hierarchy()
    assert hierarchy is not None
    path = Path(hierarchy.root) / f"leakscope-harm-{os.getpid()}-{time.monotonic_ns()}"
    path.mkdir()
    if hierarchy.version == 1:
        (path / "memory.limit_in_bytes").write_text(str(LIMIT))
    else:
        (path / "memory.max").write_text(str(LIMIT))
        with contextlib.suppress(OSError):
            (path / "memory.swap.max").write_text("0")
    yield path
    for _ in range(100):
        try:
            path.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return


def inside(group: Path, *command: object, **variables: str) -> tuple[int, float, str]:
    """Run a command in the group; returns its status, seconds, and what it printed."""
    script = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
    begun = time.monotonic()
    done = subprocess.run(
        ["sh", "-c", script, group, *map(str, command)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, time.monotonic() - begun, done.stdout + done.stderr


def test_with_the_recording_on_a_disk_it_is_killed_as_promptly(build, group, agent, tmp_path):
    program = build("oomt")
    live_folder = Path("/var/tmp") / tmp_path.parent.parent.name / tmp_path.name
    live_folder.mkdir(parents=True)
    try:
        for _ in range(3):
            status, _, _ = inside(group, program)
            assert status == -9
            status, seconds, _ = inside(
                group, program, LD_PRELOAD=str(agent), LEAKSCOPE_DIR=str(live_folder)
            )
            assert status == -9
            assert seconds < 20  # it spun for ten minutes; a second on an idle machine
        newest = max(live_folder.glob("*.live"), key=lambda path: path.stat().st_blocks)
        recording = live.read(newest)
        assert len(recording.blocks) > 10_000
        assert recording.process.ended is None
    finally:
        for path in live_folder.iterdir():
            path.unlink()
        live_folder.rmdir()


def test_the_report_says_that_it_was_killed(build, group, tmp_path):
    status, _, text = inside(group, *LEAKSCOPE, "run", "-q", "-o", tmp_path, "--", build("oomt"))
    assert "killed by SIGKILL" in text, (status, text)
    assert "oomt.c:" in text


def test_the_recording_takes_an_eighth_of_the_limit(build, group, agent, tmp_path):
    status, _, text = inside(
        group, build("lim"), "grow", "700000", LD_PRELOAD=str(agent), LEAKSCOPE_DIR=str(tmp_path)
    )
    assert (status, text.split("\n")[0]) == (0, "blocks 700000 thread 0")
    path = max(tmp_path.glob("*.live"), key=lambda path: path.stat().st_blocks)  # not the shell's
    assert path.stat().st_blocks * 512 <= LIMIT // 8 + (1 << 20)
    recording = live.read(path)
    assert recording.coverage.dropped["no_space"] > 0
    assert recording.coverage.dropped["table_full"] > 0
    assert any("held to 15.0 MiB" in note for note in recording.coverage.notes)


SLOW = """
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void *table[100];
__attribute__((noinline)) static void drop(void) {
  char *volatile lost = malloc(100000);
  memset(lost, 1, 100000);
}
__attribute__((noinline)) static void keep(int i) {
  table[i % 100] = memset(malloc(5000), 2, 5000);
}
// Drops 80 MB at once and then 3 MB a second, until it is killed or has dropped 300 MB.
int main(void) {
  for (int i = 0; i < 3000; i++) {
    drop();
    if (i < 100) keep(i);
    usleep(i < 800 ? 1000 : 33000);
  }
  return table[3] == 0;
}
"""


def test_before_it_is_killed_it_is_scanned(group, tmp_path):
    (tmp_path / "slow.c").write_text(SLOW)
    subprocess.run(["gcc", "-g", "-o", tmp_path / "slow", tmp_path / "slow.c"], check=True)
    enter = f"echo $$ > {group}/cgroup.procs && exec {tmp_path}/slow"
    options = ["--json", "--report-file", tmp_path / "r", "-o", f"{tmp_path}/out/"]
    done = subprocess.run(
        [*LEAKSCOPE, "run", *options, "--", "sh", "-c", enter],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert f"its cgroup /{group.name} reached its memory limit of 120 MiB" in done.stderr
    assert f"of the memory limit of its cgroup /{group.name} (120 MiB) is used" in done.stderr
    slow = next(
        process
        for process in json.loads((tmp_path / "r").read_text())["processes"]
        if process["process"]["executable"].endswith("/slow")
    )
    assert slow["process"]["ended"] == "killed by SIGKILL"
    verdicts = {each["source"]["function"]: each["verdict"] for each in slow["findings"]}
    assert verdicts["drop"] == "lost", done.stderr
    assert verdicts.get("keep") not in ("lost", "leaking")
    # The snapshot of then is beside it, for the case that leakscope is killed as well.
    (snapshot,) = (tmp_path / "out").glob("slow.*.dump*.leakscope")
    assert packed.read(snapshot).reachability is not None


def test_a_limit_that_nobody_comes_near_costs_nothing(group, tmp_path):
    enter = f"echo $$ > {group}/cgroup.procs && exec sleep 1"
    done = subprocess.run(
        [*LEAKSCOPE, "run", "-o", f"{tmp_path}/out/", "--", "sh", "-c", enter],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert "memory limit" not in done.stderr
    assert not list((tmp_path / "out").glob("*.dump*"))


SMALL = """
mount -t tmpfs -o size=64m tmpfs /dev/shm && mkdir /dev/shm/live || exit 99
"$@"
echo "status $?"
cat /dev/shm/live/*.live > /dev/null && du -k /dev/shm/live/*.live && df --output=avail -k /dev/shm
"""


@pytest.mark.parametrize("filled", ["0", "30", "62", "64"])
def test_a_full_shared_memory_is_a_loss_of_detail(filled, build, agent, tmp_path):
    done = subprocess.run(
        [
            *("unshare", "-m", "sh", "-c", SMALL, "sh", "sh", "-c"),
            (
                f"head -c {filled}M /dev/zero > /dev/shm/fill; LD_PRELOAD={agent}"
                f" LEAKSCOPE_DIR=/dev/shm/live exec {build('lim')} grow 3000000"
            ),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("blocks 3000000 thread 0\nstatus 0\n"), done
    if filled == "0":  # the program may want to use the rest
        assert int(done.stdout.split()[-1]) > 40 << 10


@pytest.mark.parametrize("more", [(), ("--follow",)])
def test_an_attached_process_is_scanned_before_it_is_killed(group, tmp_path, more):
    (tmp_path / "slow.c").write_text(SLOW)
    subprocess.run(["gcc", "-g", "-o", tmp_path / "slow", tmp_path / "slow.c"], check=True)
    enter = f"echo $$ > {group}/cgroup.procs && exec {tmp_path}/slow"
    with subprocess.Popen(["sh", "-c", enter]) as slow:
        try:
            time.sleep(0.3)
            options = ["--max-pause", "2", "--json", "-o", f"{tmp_path}/out/", *more]
            done = subprocess.run(
                [*LEAKSCOPE, "attach", str(slow.pid), *options],
                env=environment(),
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert slow.wait(10) == -9
        finally:
            slow.kill()
    # Whether it was near the limit, and what became of it.
    assert f"of the memory limit of its cgroup /{group.name} (120 MiB) is used" in done.stderr
    assert "snapshot with a scan written" in done.stderr
    (process,) = json.loads(done.stdout)["processes"]
    killed = f"its cgroup /{group.name} reached its memory limit of 120 MiB"
    assert any(killed in note for note in process["coverage"]["notes"]), done.stderr
    # The last state is there, with what the last scan said.
    drop = next(f for f in process["findings"] if f["source"] and f["source"]["function"] == "drop")
    assert drop["verdict"] == "lost"
    assert drop["live_bytes"] > 20 << 20
    assert drop["lost_bytes"] < drop["live_bytes"]  # some came after the scan
    (snapshot,) = (tmp_path / "out").glob("*.dump?.leakscope")
    assert packed.read(snapshot).reachability is not None
