# SPDX-License-Identifier: Apache-2.0
import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from leakscope.errors import TargetError
from leakscope.trace._spawn import Child


def child(script, *extra):
    started = Child("/bin/sh", ["sh", "-c", script], extra)
    started.start(os.environ)
    return started


def nothing():
    return None


def test_the_exit_status_is_returned():
    assert child("exit 42").wait(nothing) == 42


def test_a_killed_program_returns_minus_the_signal():
    assert child("kill -KILL $$").wait(nothing) == -signal.SIGKILL


def test_the_program_keeps_our_group_and_streams(capfd):
    parent = f"{os.getpid()} {os.getpgid(0)} {os.getsid(0)}"

    child("read a b c d e f < /proc/self/stat; ps -o ppid=,pgid=,sid= -p $$").wait(nothing)

    assert capfd.readouterr().out.split() == parent.split()


def test_the_program_starts_with_no_signal_blocked_or_ignored(capfd):
    child("grep -E 'SigBlk|SigIgn' /proc/self/status").wait(nothing)

    _, blocked, _, ignored = capfd.readouterr().out.split()
    assert int(blocked, 16) == 0
    # glibc's posix_spawn leaves its internal signals 32 and 33 ignored.
    assert int(ignored, 16) & ~(3 << 31) == 0


def test_our_own_mask_is_back_afterwards():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    child("exit").wait(nothing)

    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_file_that_the_kernel_does_not_know(tmp_path):
    path = tmp_path / "x"
    path.write_text("no format\n")
    path.chmod(0o755)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with pytest.raises(TargetError, match=f"cannot start {path}: the kernel does not know"):
        Child(str(path), ["x"], ()).start({})

    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_a_signal_sent_to_us_reaches_the_program(name, tmp_path):
    ready = tmp_path / "ready"
    started = child(f"trap 'exit 7' {name}; touch {ready}; while :; do sleep 0.05; done")
    number = getattr(signal, f"SIG{name}")

    def tick():
        if ready.exists() and number not in started.received:
            # To this thread: a test runner may have others, which do not block it.
            signal.pthread_kill(threading.get_ident(), number)

    assert started.wait(tick) == 7
    assert number in started.received


def test_a_signal_of_our_own_choice_is_passed_on_too(tmp_path):
    ready = tmp_path / "ready"
    number = int(signal.SIGRTMIN) + 3
    # dash and bash know no real-time names alike, but both know numbers.
    started = child(f"trap 'exit 9' {number}; touch {ready}; while :; do sleep 0.05; done", number)

    def tick():
        if ready.exists() and number not in started.received:
            # To this thread: a test runner may have others, which do not block it.
            signal.pthread_kill(threading.get_ident(), number)

    assert started.wait(tick) == 9


def test_ticks_come_while_the_program_runs():
    ticks = []

    child("sleep 0.7").wait(lambda: ticks.append(time.monotonic()))

    assert 3 <= len(ticks) <= 6


def test_the_end_is_noticed_at_once():
    begin = time.monotonic()

    child("exit").wait(nothing)

    assert time.monotonic() - begin < 0.15


def test_it_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(child("exit 5").wait(nothing)))
    thread.start()
    thread.join()

    assert found == [5]


# -- on a terminal ---------------------------------------------------------------

WAITING = textwrap.dedent(
    """
    import os, sys
    from leakscope.trace._spawn import Child
    started = Child(sys.argv[1], sys.argv[1:], ())
    started.start(os.environ)
    status = started.wait(lambda: None)
    print("status", status, "received", started.received, "leader", os.tcgetpgrp(0) == os.getpgid(0))
    """
)
COUNTING = textwrap.dedent(
    """
    import signal, sys, time
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    print("ready", flush=True)
    time.sleep(float(sys.argv[1]))
    time.sleep(0.5)
    sys.exit(len(seen))
    """
)


def read_until(descriptor, wanted, seconds=20):
    text = ""
    deadline = time.monotonic() + seconds
    while wanted not in text:
        if not select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
            pytest.fail(f"no {wanted!r} in {text!r}")
        text += os.read(descriptor, 4096).decode()
    return text


@pytest.fixture
def terminal():
    """Start a command as the foreground job of a new terminal."""
    started = []

    def start(*command):
        main, side = pty.openpty()
        process = subprocess.Popen(
            command,
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
            # Make the pty the controlling terminal, as a login would.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # noqa: PLW1509
        )
        os.close(side)
        started.append((process, main))
        return process, main

    yield start
    for process, main in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(main)


def test_ctrl_c_reaches_the_program_exactly_once(terminal):
    process, main = terminal(sys.executable, "-c", WAITING, sys.executable, "-c", COUNTING, "5")
    read_until(main, "ready")

    os.write(main, b"\x03")

    # The program counts one signal, and we stay to tell its status.
    assert "status 1 received [2] leader True" in read_until(main, "leader True")
    assert process.wait() == 0


def test_ctrl_z_stops_both_and_continuing_goes_on_with_both(terminal):
    process, main = terminal(sys.executable, "-c", WAITING, sys.executable, "-c", COUNTING, "1")
    read_until(main, "ready")

    # The session leader's own group is orphaned, where the kernel ignores SIGTSTP; SIGSTOP
    # to the group does the same to both.
    os.killpg(process.pid, signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.killpg(process.pid, signal.SIGCONT)

    assert "status 0 received []" in read_until(main, "leader True")
    assert process.wait() == 0
