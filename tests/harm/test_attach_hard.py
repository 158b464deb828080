# SPDX-License-Identifier: Apache-2.0
"""Programs that make attaching hard: each goes on as if nothing had been, or is refused with a reason."""

import signal
import subprocess
import time
from pathlib import Path
from unittest import mock

import pytest

from harm.attaching import MAX_PAUSE_S, build, settled, started
from harm.conftest import LEAKSCOPE, environment
from leakscope.errors import LeakscopeError, TargetError
from leakscope.target.frozen import Frozen
from leakscope.trace.attach.island import find_attached
from leakscope.trace.attach.plan import make_plan
from leakscope.trace.attach.session import Session

PAUSE_S = 0.3


def attach(pid, hold_s):
    with Session(make_plan(pid), max_pause_s=MAX_PAUSE_S) as session:
        time.sleep(hold_s)
    return session


def test_a_thread_that_the_kernel_holds_makes_no_other_one_wait(tmp_path):
    """The threads are not held up together with one that waits for the child of its vfork."""
    with started([str(build("vforks", tmp_path))], tmp_path) as process:
        done = 0
        for _ in range(6):
            try:
                with Session(make_plan(process.pid), max_pause_s=PAUSE_S) as session:
                    time.sleep(0.7)
            except LeakscopeError as error:
                assert "inside the kernel" in str(error)  # noqa: PT017 - it need not come
                time.sleep(0.4)
                continue
            done += 1
            assert session.removed.unmapped
            assert session.removed.pause_ms < 1500
        assert done
        assert find_attached(process.pid) is None


def test_a_filter_that_forbids_what_a_stop_makes_the_kernel_do(tmp_path):
    """A process under a filter is read from outside: its sleeps go on by themselves."""
    with started([str(build("no_restart", tmp_path))], tmp_path) as process:
        for _ in range(8):
            time.sleep(0.07)
            with Frozen(process.pid):
                pass
        done = subprocess.run(
            [*LEAKSCOPE, "scan", str(process.pid)], env=environment(), check=False,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "Scan: " in done.stdout, done.stderr
        time.sleep(0.5)


def test_memory_that_would_be_locked_is_not_mapped(tmp_path):
    with started([str(build("locks", tmp_path)), "future"], tmp_path) as process:
        with pytest.raises(TargetError, match="locks all memory that it maps"):
            attach(process.pid, 0.1)
        time.sleep(0.5)
        assert find_attached(process.pid) is None


def test_a_program_that_locks_its_memory_meanwhile_locks_none_of_ours(tmp_path):
    with started([str(build("locks", tmp_path)), "later"], tmp_path) as process:
        with Session(make_plan(process.pid), max_pause_s=MAX_PAUSE_S) as session:
            time.sleep(0.5)
            process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            session.detach()
            recording = session.recording()
        assert session.removed.unmapped
        assert recording.coverage.alloc_events > 100
        assert "left" in recording.coverage.troubles
        time.sleep(0.5)
        assert process.stdout.read1() == b"locked\n"


def test_a_filter_that_comes_by_syscall_kills_nothing(tmp_path):
    with started([str(build("jailed", tmp_path))], tmp_path) as process:
        with Session(make_plan(process.pid), max_pause_s=MAX_PAUSE_S) as session:
            time.sleep(0.5)
            process.send_signal(signal.SIGUSR1)
            assert process.stdout.readline() == b"done\n"
            session.detach()
        assert not session.removed.unmapped
        assert "seccomp" in session.removed.reason


def test_a_process_that_shares_its_memory_is_refused(tmp_path):
    with started([str(build("shares", tmp_path))], tmp_path) as process:
        plan = make_plan(process.pid)
        assert "runs in its memory, too" in (plan.refusal or "")


def test_a_process_that_came_to_share_its_memory_finds_the_code_in_place(tmp_path):
    """Attached before the other one was there, or where nobody could tell."""
    with started([str(build("shares", tmp_path))], tmp_path) as process:
        with mock.patch("leakscope.trace.attach.plan.sharers", return_value=iter(())):
            plan = make_plan(process.pid)
        for _ in range(3):
            with Session(plan, max_pause_s=MAX_PAUSE_S) as session:
                time.sleep(0.3)
            assert not session.removed.unmapped
            assert "runs in its memory" in session.removed.reason


@pytest.mark.parametrize("name", ["stacks", "stacks-static"])
@pytest.mark.parametrize("arguments", [(), ("thread",)])
def test_what_lies_below_a_small_stack_is_not_touched(name, arguments, tmp_path):
    """In a static program, the first thread's control block is in the heap with everything else."""
    with started([str(build(name, tmp_path)), *arguments], tmp_path) as process:
        for _ in range(4):
            assert attach(process.pid, 0.1).removed.unmapped
            time.sleep(0.1)


def test_a_restartable_sequence_is_begun_anew(tmp_path):
    """Where a thread is borrowed in the middle of one, the kernel would not begin it anew."""
    with started([str(build("restarts", tmp_path))], tmp_path) as process:
        before = settled(process.pid).mappings
        for _ in range(4):
            assert attach(process.pid, 0.1).removed.unmapped
            time.sleep(0.3)
        assert settled(process.pid).mappings == before


def test_of_children_is_said_what_stays_in_them(tmp_path):
    """One lives under a filter, and one is held by a debugger."""
    with started([str(build("strict", tmp_path))], tmp_path) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        before = set(children.read_text().split())
        command = [*LEAKSCOPE, "attach", str(process.pid), "--max-pause", str(MAX_PAUSE_S)]
        attaching = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                one = find_attached(process.pid)
                if one is not None and one.patches:
                    break
                time.sleep(0.05)
            known = set(children.read_text().split()) | before
            while len(set(children.read_text().split()) - known) < 2 and time.monotonic() < end:
                time.sleep(0.05)
            held, *_ = sorted(set(children.read_text().split()) - known, key=int)
            with Frozen(int(held)):
                attaching.send_signal(signal.SIGINT)
                _, told = attaching.communicate(timeout=120)
        finally:
            attaching.kill()
            attaching.communicate()
        assert f"its child {held} is not detached: " in told
        assert "the agent's memory stays in it, unused, because it lives under" in told
        assert subprocess.run(
            [*LEAKSCOPE, "detach", held], env=environment(), check=False, capture_output=True
        ).returncode in (0, 3)
