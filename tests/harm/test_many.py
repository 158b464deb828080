# SPDX-License-Identifier: Apache-2.0
"""Thousands of threads and of libraries: what the agent does grows with what happens only."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from leakscope.recording import live

LIBRARY = """
extern void *malloc(unsigned long);
void *kept[64];
int f(int c) { for (int i = 0; i < c; i++) kept[i & 63] = malloc(10); return c; }
"""


@dataclass(frozen=True)
class Run:
    """A run's status, and the processor seconds that it took."""

    status: int
    seconds: float


def run(folder: Path, agent: Path | None, *command: object) -> Run:
    recordings = folder / "live"
    shutil.rmtree(recordings, ignore_errors=True)
    recordings.mkdir(mode=0o700)
    environment = dict(os.environ)
    if agent:
        environment |= {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(recordings)}
    words = [str(word) for word in command]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=folder, env=environment, stdout=nowhere, stderr=nowhere)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(process.returncode, usage.ru_utime + usage.ru_stime)


def libraries(folder: Path, count: int) -> None:
    (folder / "one.c").write_text(LIBRARY)
    flags = ["-shared", "-fPIC", "-O1", "-fno-builtin", "-nostdlib", "-s", "-Wl,-z,noseparate-code"]
    subprocess.run(["gcc", *flags, "one.c", "-o", "one.so"], cwd=folder, check=True)
    (folder / "so").mkdir()
    for number in range(count):
        shutil.copyfile(folder / "one.so", folder / "so" / f"f{number}.so")


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_threads_cost_the_same_each(build, agent, tmp_path, level):
    program = build("thr", level)
    alone = run(tmp_path, None, program, 1500, 2)
    traced = run(tmp_path, agent, program, 1500, 2)
    assert alone.status == traced.status == 0
    assert traced.seconds < 4 * alone.seconds + 1


@pytest.mark.parametrize("closing", [(), ("close",)], ids=["kept", "closed"])
def test_libraries_cost_the_same_each(build, agent, tmp_path, closing):
    libraries(tmp_path, 1000)
    program = build("dl")
    alone = run(tmp_path, None, program, 1000, 2, *closing)
    traced = run(tmp_path, agent, program, 1000, 2, *closing)
    assert alone.status == traced.status == 0
    assert traced.seconds < 4 * alone.seconds + 1

    (path,) = (tmp_path / "live").glob("*.live")
    recording = live.read(path)
    known = {m.path: m.unloaded for m in recording.modules if m.path.startswith(f"{tmp_path}/so/")}
    assert len(known) == 1000
    assert set(known.values()) == {bool(closing)}
    # Each library's blocks are its own: f, called by main.
    places = {
        recording.modules[recording.stack(int(site))[0].module].path
        for site, size in zip(recording.blocks["site"], recording.blocks["size"], strict=True)
        if size == 10
    }
    assert places == set(known)


def test_more_libraries_than_there_is_room_for(build, agent, tmp_path):
    libraries(tmp_path, 4150)
    done = run(tmp_path, agent, build("dl"), 4150, 1)
    assert done.status == 0
    (path,) = (tmp_path / "live").glob("*.live")
    recording = live.read(path)
    assert recording.coverage.dropped["modules_full"] > 0
    assert len(recording.blocks[recording.blocks["size"] == 10]) == 3 * 4150
