# SPDX-License-Identifier: Apache-2.0
"""Whoever is stopped for a moment goes on, whatever it does meanwhile, and whatever becomes of us."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from harm.attaching import MAX_PAUSE_S
from harm.conftest import environment
from leakscope.errors import LeakscopeError, TargetError
from leakscope.target import restart
from leakscope.target.frozen import Frozen
from leakscope.trace.attach import inject
from leakscope.trace.attach.island import find_attached
from leakscope.trace.attach.plan import make_plan
from leakscope.trace.attach.session import Session

WAITER = (sys.executable, "-c", "print('ready', flush=True); input()")
SLOW_S = 60.0  # more than anything takes on a busy machine
# Stops the process again and again, for some seconds.
STOPS = """
import sys, time
from leakscope.errors import LeakscopeError
from leakscope.target.frozen import Frozen, apart
pid, end, done = int(sys.argv[1]), time.monotonic() + float(sys.argv[2]), 0
def stop():
    with Frozen(pid, patience_s=0.3):
        pass
while time.monotonic() < end:
    try:
        apart(stop)
        done += 1
    except LeakscopeError as error:
        assert "may not be" not in str(error), error
print(done)
"""


@contextlib.contextmanager
def running(*command):
    """Start a program, and yield it when it has said its first line."""
    process = subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def python(code, *arguments, **how):
    """Start a Python with the sources under test."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment(), **how,
    )  # fmt: skip


def field(pid, name):
    text = Path(f"/proc/{pid}/status").read_text()
    return text.partition(f"\n{name}:\t")[2].partition("\n")[0]


def until(true):
    end = time.monotonic() + SLOW_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def line(process, seconds=SLOW_S):
    assert select.select([process.stdout], [], [], seconds)[0], "nothing is said"
    return process.stdout.readline()


def test_an_exec_by_a_thread_and_who_stops_it_do_not_wait_for_each_other(build):
    """It waits for the ends of the others, which their tracer has to hear of."""
    with running(build("thread_execs"), 8) as process:
        stopping = python(STOPS, process.pid, 6)
        try:
            out, told = stopping.communicate(timeout=SLOW_S)
        finally:
            stopping.kill()
            stopping.wait()
        assert stopping.returncode == 0, told
        assert int(out) > 10
        assert float(process.communicate(timeout=SLOW_S)[0].split()[-1]) < 5
        assert process.returncode == 7


def test_a_supervisor_is_asked_once_for_each_call(build):
    """A stop in the middle of the answer would have the call asked for again (seccomp(2)).

    It still may where the thread is not asleep yet when it is looked at, as on a busy machine.
    """
    with running(build("supervised"), 60000) as process:
        done = 0
        while done < 40:
            with contextlib.suppress(LeakscopeError):  # it may be asked just then
                with Frozen(process.pid, patience_s=MAX_PAUSE_S):
                    pass
                done += 1
            time.sleep(0.011)
        process.send_signal(signal.SIGUSR1)
        assert int(process.communicate(timeout=SLOW_S)[0].split()[0]) < done // 4


def test_one_that_is_answered_late_is_not_stopped(build, leakscope):
    with running(build("supervised"), 60_000_000) as process:
        done = leakscope("scan", process.pid)
        assert done.status == 2
        assert "a supervisor answers a system call" in done.stderr
        assert len(done.stderr.splitlines()) == 2


def test_threads_that_the_kernel_has_made_are_none_of_the_programs(build):
    with running(build("workers")) as process:
        tasks = list(Path(f"/proc/{process.pid}/task").iterdir())
        assert len(tasks) > 1
        for _ in range(5):
            with Frozen(process.pid, patience_s=MAX_PAUSE_S) as frozen:
                assert frozen.tids == (process.pid,)
                assert [each.tid for each in frozen.threads] == [process.pid]
            with Session(make_plan(process.pid), max_pause_s=MAX_PAUSE_S) as session:
                time.sleep(0.1)
            assert session.removed.unmapped
        process.send_signal(signal.SIGUSR1)
        assert process.communicate(timeout=SLOW_S)[0] == "0 wrong\n"
        assert process.returncode == 7


PARENT = """
import subprocess
child = subprocess.Popen(["sleep", "1000"])
print("ready", child.pid, flush=True)
input()
child.kill()
print(child.wait(), flush=True)
"""


def test_a_parent_hears_of_the_end_of_one_that_was_killed_in_a_stop():
    """At once, although its tracer goes on."""
    process = python(PARENT)
    try:
        child = int(line(process).split()[1])
        until(lambda: field(child, "State")[0] == "S")
        with Frozen(child):
            process.stdin.write("\n")
            process.stdin.flush()
            until(lambda: field(child, "State")[0] in "ZX")
        assert line(process) == "-9\n"
    finally:
        process.kill()
        process.communicate()


def test_how_a_child_of_our_own_ended_is_left_to_who_started_it():
    for _ in range(10):
        child = subprocess.Popen(["sleep", "1000"])
        with contextlib.suppress(LeakscopeError), Frozen(child.pid):
            child.kill()
            time.sleep(0.01)
        assert child.wait() == -signal.SIGKILL


HOLDER = """
import os, signal, sys, time
from leakscope.target.frozen import Frozen
with Frozen(int(sys.argv[1]), limit_s=1):
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)  # it may come to another thread first
"""
INJECTOR = """
import os, signal, sys, time
from leakscope.trace.attach import inject
from leakscope.trace.attach.plan import make_plan
from leakscope.trace.attach.session import Session
inject.HELD_UP_S = 0.5
usual = inject._map_recording
def stop(*arguments):
    usual(*arguments)
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)  # it may come to another thread first
inject._map_recording = stop
with Session(make_plan(int(sys.argv[1])), max_pause_s=0.5):
    pass
"""


@pytest.mark.parametrize("code", [HOLDER, INJECTOR], ids=["held", "borrowed"])
def test_whoever_is_stopped_in_a_stop_lets_go(code):
    """The kernel ends the hold of a leakscope that has got SIGSTOP."""
    with running(*WAITER) as process:
        holder = python(code, process.pid)
        try:
            assert line(holder) == "held\n"
            until(lambda: field(holder.pid, "State")[0] in "TZX")
            until(lambda: field(process.pid, "TracerPid") == "0")
            holder.communicate(timeout=SLOW_S)
            assert holder.returncode == -signal.SIGKILL
        finally:
            holder.kill()
            holder.communicate()
        assert process.poll() is None
        assert field(process.pid, "State")[0] in "SR"


def test_who_takes_an_image_is_bound_as_well():
    """Also where who asked for it is gone."""
    code = (
        "import os, signal, time\n"
        "from leakscope.target import imager\n"
        "def stop(*_): os.kill(os.getpid(), signal.SIGSTOP), time.sleep(60)\n"
        "imager.HELD_UP_S, imager._list = 0.5, stop\n"
        "imager._speed = lambda *_: 1e9\n"
        "imager.main()\n"
    )
    asked = '{"pid": %d, "max_pause": 0.5, "own": [], "memory": %d, "only": "copied"}'
    with running(*WAITER) as process:
        memory = os.memfd_create("image")
        imager = python(code, asked % (process.pid, memory), pass_fds=[memory])
        try:
            assert line(imager) == "stopped\n"
            until(lambda: field(imager.pid, "State")[0] in "TZX")
            until(lambda: field(process.pid, "TracerPid") == "0")
            imager.communicate(timeout=SLOW_S)
            assert imager.returncode == -signal.SIGKILL
        finally:
            imager.kill()
            imager.communicate()
            os.close(memory)
        assert field(process.pid, "State")[0] in "SR"


PRESSED = """
import os, signal, sys, time
from leakscope.target.frozen import Frozen, apart
def stop():
    with Frozen(int(sys.argv[1]), limit_s=60):
        print("held", flush=True)
        os.kill(os.getpid(), signal.SIGTSTP)
        time.sleep(0.5)
        print("still", flush=True)
apart(stop)
print("done", flush=True)
"""


def test_ctrl_z_waits_until_the_process_goes_on():
    with running(*WAITER) as process:
        # A process group whose parent is in the same session, as a shell's: others are not stopped.
        holder = python(PRESSED, process.pid, preexec_fn=os.setpgrp)
        try:
            assert line(holder) == "held\n"
            assert line(holder) == "still\n"
            until(lambda: field(holder.pid, "State")[0] == "T")
            assert field(process.pid, "TracerPid") == "0"
            holder.send_signal(signal.SIGCONT)
            assert line(holder) == "done\n"
        finally:
            holder.kill()
            holder.communicate()


@pytest.mark.parametrize("before", ["_map_with", "_write", "_patch"])
def test_an_exec_in_the_middle_of_an_attach_leaves_the_next_program_alone(before, build):
    """What was found out about the first one is not done to it."""
    with running(build("execs")) as process:
        usual = getattr(inject, before)

        def exec_first(*arguments, **how):
            process.send_signal(signal.SIGUSR1)
            assert line(process) == "ready\n"
            return usual(*arguments, **how)

        plan = make_plan(process.pid)
        with (
            mock.patch.object(inject, before, exec_first),
            pytest.raises(TargetError, match=r"another program|was refused"),
            Session(plan, max_pause_s=MAX_PAUSE_S),
        ):
            pass
        assert find_attached(process.pid) is None
        time.sleep(0.2)
        process.send_signal(signal.SIGUSR2)
        assert process.wait(timeout=SLOW_S) == 7


def test_no_processor_is_waited_for_while_the_process_stands_still():
    """How long a thread has slept is told by the clock where it ran: perhaps a busy place."""
    asked = []
    usual = restart._clock_of
    with running("sh", "-c", "echo ready; exec sleep 1000") as process:
        until(lambda: field(process.pid, "State")[0] == "S")
        time.sleep(0.3)

        def clock_of(cpu):
            asked.append(field(process.pid, "TracerPid"))
            return usual(cpu)

        with mock.patch.object(restart, "_clock_of", clock_of):
            frozen = Frozen(process.pid, patience_s=MAX_PAUSE_S)
            with frozen:
                waited_ns = frozen.waited_ns(process.pid)
        assert asked
        assert set(asked) == {"0"}
        assert waited_ns == 0 or 100_000_000 < waited_ns < SLOW_S * 1e9


def test_a_program_near_its_memory_limit_is_not_attached_to(build):
    """The recording is charged to it, and the kernel would kill it."""
    group = Path(f"/sys/fs/cgroup/memory/leakscope-{os.getpid()}-{time.monotonic_ns()}")
    group.mkdir()
    try:
        with running(build("execs")) as process:
            (group / "cgroup.procs").write_text(str(process.pid))
            (group / "memory.limit_in_bytes").write_text(str(8 << 20))
            assert "its memory cgroup has room for" in (make_plan(process.pid).refusal or "")
            (group / "memory.limit_in_bytes").write_text(str(100 << 20))
            plan = make_plan(process.pid)
            assert plan.refusal is None
            assert plan.budget_bytes <= 50 << 20
    finally:
        until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
