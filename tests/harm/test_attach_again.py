# SPDX-License-Identifier: Apache-2.0
"""Several attaches to the same process: one after another, whatever became of the first one."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from harm.attaching import MAX_PAUSE_S, build, started
from harm.conftest import LEAKSCOPE, environment
from leakscope.trace.attach.beat import is_heard
from leakscope.trace.attach.island import find_attached

PATIENCE_S = 60


@pytest.fixture
def leaky(tmp_path):
    with started([str(build("leaky", tmp_path))], tmp_path) as process:
        yield process


@pytest.fixture
def attach(leaky, tmp_path):
    """Start an attach to the program; all of them are gone at the end."""
    begun = []

    def start(*more, **how):
        pause = ["--max-pause", str(MAX_PAUSE_S)]
        command = [*LEAKSCOPE, "attach", str(leaky.pid), *pause, "-o", f"{tmp_path}/", *more]
        how = how or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen(command, cwd=tmp_path, env=environment(), **how))
        return begun[-1]

    yield start
    for each in begun:
        each.kill()
        each.communicate()


def wait(pid, wanted):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = find_attached(pid)
        if found is not None and found.patches and wanted(found):
            return found
        time.sleep(0.05)
    raise AssertionError("that never came")


def test_the_next_attach_clears_away_what_a_killed_one_left(leaky, attach):
    first = attach()
    wait(leaky.pid, is_heard)
    first.kill()
    first.communicate()
    wait(leaky.pid, lambda found: not is_heard(found))
    out, told = attach("--for", "2s").communicate(timeout=PATIENCE_S)
    assert "what an earlier attach had left in it was taken out" in told
    assert "nothing of leakscope is left in it" in told
    assert "leaky.c" in out
    assert find_attached(leaky.pid) is None


def test_one_that_was_away_leaves_the_next_one_alone(leaky, attach):
    first = attach()
    wait(leaky.pid, is_heard)
    first.send_signal(signal.SIGSTOP)
    try:
        wait(leaky.pid, lambda found: not is_heard(found))
        second = attach()
        wait(leaky.pid, is_heard)
    finally:
        first.send_signal(signal.SIGCONT)
    first.send_signal(signal.SIGINT)
    _, told = first.communicate(timeout=PATIENCE_S)
    assert "detached by somebody else" in told
    assert wait(leaky.pid, is_heard).tracer == second.pid
    second.send_signal(signal.SIGINT)
    _, told = second.communicate(timeout=PATIENCE_S)
    assert "nothing of leakscope is left in it" in told
    assert find_attached(leaky.pid) is None


def test_a_terminal_that_goes_away_takes_no_recording_with_it(leaky, attach, tmp_path):
    ours, theirs = pty.openpty()
    first = attach(
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    wait(leaky.pid, is_heard)
    time.sleep(2)
    os.close(ours)  # the kernel sends SIGHUP
    first.wait(PATIENCE_S)
    assert find_attached(leaky.pid) is None
    assert list(tmp_path.glob("*.leakscope"))


SUSPENDED = """
import os, signal, sys, time
from leakscope.scan.cancel import cancellable
from leakscope.target.frozen import Frozen, apart

def hold():
    with Frozen(int(sys.argv[1])):
        os.kill(os.getpid(), signal.SIGTSTP)  # as Ctrl-Z sends it
        time.sleep(0.2)

{}(hold)
print("went on", flush=True)
"""


@pytest.mark.parametrize("way", ["apart", "cancellable"])
def test_ctrl_z_in_a_pause_stops_leakscope_and_not_the_process(way):
    def state(pid):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    with subprocess.Popen(["sleep", "1000"]) as sleep:
        command = [sys.executable, "-c", SUSPENDED.format(way), str(sleep.pid)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            try:
                end = time.monotonic() + 60
                while state(holder.pid) != "T" and time.monotonic() < end:
                    time.sleep(0.02)
                assert state(holder.pid) == "T"  # it obeys,
                assert state(sleep.pid) == "S"  # and holds nobody meanwhile
                assert "TracerPid:\t0" in Path(f"/proc/{sleep.pid}/status").read_text()
                holder.send_signal(signal.SIGCONT)
                assert holder.communicate(timeout=60)[0] == "went on\n"
                assert holder.returncode == 0
            finally:
                holder.kill()
                sleep.kill()
