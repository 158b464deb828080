# SPDX-License-Identifier: Apache-2.0
"""A process whose first thread has ended is there like any other, for every command."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

LEADER = Path(__file__).parents[1] / "programs/cases/main_thread_ends/leader.c"
LEAKSCOPE = (sys.executable, "-m", "leakscope")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
LEVELS = {"O0": ["-O0"], "O2": ["-O2", "-fno-builtin-malloc"]}


@pytest.fixture(params=LEVELS)
def program(request, tmp_path):
    path = tmp_path / "leader"
    command = ["gcc", "-g", *LEVELS[request.param], "-pthread", LEADER, "-o", path]
    subprocess.run(command, check=True)
    return path


def start(command, **how):
    """Start a process, and return it and the pid of the program in it, its first thread gone."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for pid in (process.pid, *children(process.pid)):
            stat = Path(f"/proc/{pid}/stat").read_text()
            if "(leader)" in stat and stat.rpartition(")")[2].split()[0] == "Z":
                return process, pid
        time.sleep(0.05)
    process.kill()
    raise AssertionError(process.communicate())


def children(pid):
    return map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_all_commands_work_on_it_while_it_is_traced(leakscope, program, tmp_path):
    again = leakscope("run", "--no-report", "-o", tmp_path / "short", "--", program, "300")
    assert again.returncode == 5, again.stderr
    command = [*LEAKSCOPE, "run", "-o", f"{tmp_path}/", "--", program, "60000"]
    process, pid = start(command, env=ENVIRONMENT)
    try:
        time.sleep(2)
        for words, expected in (
            (["report", pid], f"leader (pid {pid})"),
            (["control", pid, "status"], f"process {pid}: recording"),
            (["control", pid, "dump", "-o", tmp_path / "dumped"], "dumped"),
            (["doctor", pid], f"process {pid} is being traced"),
            (["scan", pid], "LOST"),
            (["watch", pid, "--heap", "--for", "0.3s"], "heap of glibc"),
        ):
            done = leakscope(*words)
            assert done.returncode in (0, 1, 3), f"{words} {done.stderr}"
            assert expected in done.stdout + done.stderr, words
        assert "still running" in leakscope("report", pid).stdout
    finally:
        subprocess.run(["kill", "-TERM", str(pid)], check=True)
        output, errors = process.communicate(timeout=60)
    assert "killed by SIGTERM" in errors, output


def test_scan_and_doctor_work_on_it_untraced(leakscope, program):
    process, pid = start([program, "60000"])
    try:
        time.sleep(1)
        scan, doctor = leakscope("scan", pid), leakscope("doctor", pid)
    finally:
        process.kill()
        process.communicate()
    assert scan.returncode == 1, scan.stderr
    assert "definitely lost" in scan.stdout
    assert "Memory: 0 B resident" not in scan.stdout
    assert "its allocator  that of glibc" in doctor.stdout


def test_a_program_that_never_called_malloc_has_an_answer(leakscope, tmp_path):
    source = tmp_path / "none.c"
    source.write_text("#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
    subprocess.run(["gcc", source, "-o", tmp_path / "none"], check=True)
    with subprocess.Popen([tmp_path / "none"]) as process:
        try:
            time.sleep(0.3)
            done = leakscope("scan", process.pid)
        finally:
            process.kill()
    assert (done.returncode, done.stderr) == (0, "")
    assert "no block is lost" in done.stdout
    assert "malloc was never called" in done.stdout
