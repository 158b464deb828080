# SPDX-License-Identifier: Apache-2.0
"""A server that forks for ever, and recordings that nobody reads."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from harm.conftest import environment
from leakscope.trace.live_files import list_live_files, removed_unread


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "live"
    path.mkdir()
    return path


def variables(agent: Path, folder: Path, **more: str) -> dict[str, str]:
    return environment(LD_PRELOAD=str(agent), LEAKSCOPE_DIR=str(folder), **more)


def test_the_directory_stays_bounded(build, alone, agent, folder):
    more = variables(agent, folder, LEAKSCOPE_KEEP="40")
    done = alone(build("forkd"), "600", "0", env=more)
    assert (done.status, done.stdout) == (0, "done\n")
    left = list_live_files(folder)
    assert 8 <= len(left) < 200
    assert removed_unread(folder) + len(left) == 601
    assert sum(file.path.stat().st_blocks for file in left) * 512 / len(left) < 128 << 10


def test_the_bytes_are_bounded_too(build, alone, agent, folder):
    more = variables(agent, folder, LEAKSCOPE_KEEP="80", LEAKSCOPE_KEEP_BYTES="1m")
    alone(build("forkd"), "500", "0", env=more)
    left = list_live_files(folder)
    assert removed_unread(folder) + len(left) == 501
    assert sum(file.path.stat().st_blocks * 512 for file in left) < 20 << 20


def test_what_is_not_ours_or_in_use_stays(build, alone, agent, folder):
    server = subprocess.Popen(
        [build("forkd"), "1", "60"],
        env=variables(agent, folder, LEAKSCOPE_KEEP="0"),
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        (running,) = [file for file in list_live_files(folder) if file.pid == server.pid]
        os.utime(running.path, (1, 1))  # the oldest of all
        strangers = [folder / "notes.live", folder / "1.live", folder / "99999999.0.live.gz"]
        foreign = folder / "2147483000.0.live"  # looks like one, and is none
        for path in (*strangers, foreign):
            path.write_bytes(b"keep me")
            os.utime(path, (1, 1))
        target = folder.parent / "target"
        target.write_bytes(b"keep me")
        link = folder / "2147483001.0.live"
        link.symlink_to(target)
        alone(build("forkd"), "300", "0", env=variables(agent, folder, LEAKSCOPE_KEEP="20"))
        assert removed_unread(folder) > 0
        assert running.path.exists()
        assert all(path.read_bytes() == b"keep me" for path in (*strangers, foreign, target))
        assert link.is_symlink()
    finally:
        server.kill()
        server.communicate()


def test_run_gives_a_file_to_each_of_the_first_and_counts_the_rest(build, leakscope, tmp_path):
    begun = time.monotonic()
    run = ("run", "--keep-all", "-o", tmp_path)
    done = leakscope(*run, "--", build("forkd"), "400", "0", timeout=90)
    assert done.status == 0, done.stderr[-2000:]
    files = list(tmp_path.glob("*.leakscope"))
    assert 200 <= len(files) <= 260, time.monotonic() - begun
    assert "more forked processes freed every block" in done.stdout + done.stderr
