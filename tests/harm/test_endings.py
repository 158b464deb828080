# SPDX-License-Identifier: Apache-2.0
"""Programs end under leakscope as they do alone, whatever has become of leakscope."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harm.conftest import LEAKSCOPE, environment
from leakscope.recording import packed


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def traced(agent):
    """Start `leakscope run` on a command in the background; it is killed afterwards."""
    assert agent.exists()
    started = []

    def begin(*command):
        process = subprocess.Popen(
            [*LEAKSCOPE, "run", "--no-report", "--", *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def child_of(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return wait_for(lambda: [int(pid) for pid in path.read_text().split()])[0]


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


def is_waiting_to_end(pid):
    """Whether the agent has its socket, which is open at the end alone."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(link).startswith("socket:"):
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize("how", ["t", "s", "a"])
def test_after_a_fatal_signal_no_thread_works_on(build, leakscope, alone, how):
    program = build("sigout")
    expected = alone(program, how, 20)

    done = leakscope("run", "-q", "--no-report", "--program-exit-code", "--", program, how, 20)

    assert done.stdout == expected.stdout == ""
    assert done.status == 128 - expected.status


def test_the_threads_of_a_killed_program_are_examined_all_the_same(build, leakscope):
    done = leakscope("run", "-o", "it", "--", build("endout"), "kill", 1)

    assert "not scanned" not in done.stderr
    assert packed.read(Path("it")).scan is not None


@pytest.mark.parametrize(("how", "status"), [("_exit", 3), ("kill", -signal.SIGTERM)])
def test_a_thread_gets_nothing_done_after_the_end(build, leakscope, alone, how, status):
    program = build("endout")
    expected = alone(program, how, 20)

    done = leakscope("run", "-q", "--no-report", "--program-exit-code", "--", program, how, 20)

    assert expected.status == status
    assert done.stdout == expected.stdout == ""
    assert done.status == (status if status > 0 else 128 - status)


def test_exit_is_not_drawn_out_for_the_other_threads(build, leakscope):
    done = leakscope("run", "--no-report", "--", build("endout"), "exit", 20)

    assert done.stdout.count("worked on") < 60  # of 5 ms each; a scan takes longer
    assert "exited with status 3" in done.stderr


@pytest.mark.parametrize("how", ["null", "bus", "fpe", "abort", "queue"])
def test_a_crash_keeps_what_the_kernel_said_about_it(build, leakscope, alone, how):
    program = build("crashinfo", "O0", "-no-pie")

    done = leakscope("run", "--no-report", "-q", "--", program, how)

    assert done.stdout == alone(program, how).stdout
    assert "signal 0" not in done.stdout


def test_while_leakscope_is_stopped_programs_wait_once(build, traced):
    script = f"read line; for i in 1 2 3 4 5 6 7 8 9 10; do {build('pipew')}; done; echo end"
    process = traced("sh", "-c", f"trap '' PIPE; {script}")
    child_of(process)
    process.send_signal(signal.SIGSTOP)
    try:
        process.stdin.write("go\n")
        process.stdin.flush()
        began = time.monotonic()
        while process.stdout.readline() != "end\n":
            continue
        took = time.monotonic() - began
    finally:
        process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=60)

    assert took < 10  # 2 seconds for all of them; it was 5 for each
    assert "leakscope was stopped or had no time" in errors
    assert "sh exited with status 0" in errors


def test_a_program_that_waits_for_its_examination_can_be_terminated(build, traced):
    process = traced("sh", "-c", f"read line; exec {build('burst')} 0")
    pid = child_of(process)
    process.send_signal(signal.SIGSTOP)
    try:
        process.stdin.write("go\n")
        process.stdin.flush()
        wait_for(lambda: Path(f"/proc/{pid}/comm").read_text().startswith("burst"))
        wait_for(lambda: is_waiting_to_end(pid), 10)
        os.kill(pid, signal.SIGTERM)
    finally:
        process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=60)

    assert "was killed by SIGTERM" in errors


def test_when_leakscope_is_killed_its_programs_go_on(build, traced):
    script = "read line; " + f"{build('pipew')}; " * 5 + "echo end"
    process = traced("sh", "-c", f"trap '' PIPE; {script}")
    child_of(process)
    process.kill()
    process.stdin.write("go\n")
    process.stdin.flush()
    began = time.monotonic()
    output = ""
    while not output.endswith("end\n"):
        output += process.stdout.readline()

    assert output.endswith("end\n")
    assert output.count("served on") == 5
    assert time.monotonic() - began < 5


def test_children_that_end_together_do_not_queue(build, leakscope, alone):
    program = build("burst")
    expected = float(alone(program, 300).stdout)

    done = leakscope("run", "--no-report", "--", program, 300)

    assert float(done.stdout) < 8000 + 10 * expected  # one after the other: a minute


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_the_bare_call_that_ends_all_threads_ends_them(build, leakscope, level):
    program = build("exitgroup", level)

    done = leakscope("run", "-q", "--program-exit-code", "--", program, timeout=30)

    assert done.status == 17, done
