# SPDX-License-Identifier: Apache-2.0
"""Attach and detach again and again: programs that check themselves, and a server's clients, see nothing.

The long form is benchmarks/attach/soak.py.
"""

import os
import random
import signal
import subprocess
import time

import pytest

from harm.attaching import (
    MAX_PAUSE_S,
    PLACES,
    PRELOADS,
    build,
    in_place,
    java,
    python,
    settled,
    soak_program,
    soak_server,
    started,
)
from harm.conftest import LEAKSCOPE, environment
from harm.killing import (
    CHECK_EVERY,
    kill_before_it_is_noted,
    kill_targets,
    kill_tracers,
    stray,
)
from harm.servers import SERVERS
from leakscope.errors import TargetError
from leakscope.trace.attach import hands, inject
from leakscope.trace.attach.detach import remove
from leakscope.trace.attach.island import find_attached
from leakscope.trace.attach.plan import make_plan
from leakscope.trace.attach.session import Session

CYCLES, HOLD_S = 2, 0.15


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("attach")


def check(result):
    assert result.refused == []
    assert result.kept == []
    before, after = result.before, result.after
    # Threads come and go, and with them their stacks; heaps grow.
    assert abs(after.mappings - before.mappings) <= 12
    assert abs(after.threads - before.threads) <= 1
    # A server's are its clients' too.
    assert after.descriptors <= before.descriptors + (2 if result.requests else 0)
    assert after.tracer == "0"
    assert after.code <= before.code + 8


@pytest.mark.parametrize(
    "name", ["leaky", "static", "static-pie", "musl", "musl-static", "forks", "busy"]
)
def test_a_program_that_checks_itself_goes_on(name, folder):
    result = soak_program(name, [str(build(name, folder))], folder, CYCLES, HOLD_S)
    check(result)
    assert result.events > 0


@pytest.mark.parametrize("allocator", PRELOADS)
def test_other_allocators_go_on(allocator, folder):
    program = [str(build("busy", folder))]
    result = soak_program(allocator, program, folder, CYCLES, HOLD_S, PRELOADS[allocator])
    check(result)
    assert result.events > 1000


def test_python_goes_on(folder):
    result = soak_program("python", python(), folder, CYCLES, HOLD_S)
    check(result)
    assert result.events > 1000


@pytest.mark.parametrize("name", ["redis", "nginx"])
def test_clients_get_the_right_answers(name, folder):
    folder.chmod(0o755)
    server = SERVERS[name](folder / name, [], environment())
    result = soak_server(server, CYCLES, 0.3)
    check(result)
    assert result.requests > 50
    assert result.events > 0


@pytest.mark.parametrize("name", ["leaky", "busy"])
def test_whoever_attached_is_killed_at_any_moment(name, folder, tmp_path):
    """The process goes on, and can be detached and attached to again."""
    moments = random.Random(7)
    with started([str(build(name, folder))], tmp_path) as process:
        before = settled(process.pid)
        found = 0
        for _ in range(4):
            command = [
                *LEAKSCOPE,
                "attach",
                str(process.pid),
                "-q",
                "--max-pause",
                str(MAX_PAUSE_S),
            ]
            attaching = subprocess.Popen(
                command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
            )
            end = time.monotonic() + 60
            # From the first sign of it on, at once or a little later.
            while find_attached(process.pid) is None and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(moments.choice((0.0, 0.002, 0.01, 0.05, 0.5)))
            attaching.kill()
            attaching.wait()
            time.sleep(0.05)
            assert process.poll() is None
            left = find_attached(process.pid)
            if left is not None:
                found += 1
                assert remove(left, max_pause_s=MAX_PAUSE_S).unmapped
            assert find_attached(process.pid) is None
        assert found >= 2
        with Session(make_plan(process.pid), max_pause_s=MAX_PAUSE_S) as session:
            time.sleep(0.3)
        assert session.removed.unmapped
        time.sleep(0.1)
        after = settled(process.pid)
        assert abs(after.mappings - before.mappings) <= 12
        assert after.tracer == "0"


def test_children_forked_meanwhile_are_detached(folder, tmp_path):
    with started([str(build("forks", folder))], tmp_path) as process:
        with Session(make_plan(process.pid), max_pause_s=MAX_PAUSE_S) as session:
            time.sleep(2.5)
        assert session.removed.unmapped
        assert session.children
        assert all(child.unmapped for child in session.children)


def test_a_stopped_tracer_is_noticed(folder, tmp_path):
    """Nothing is recorded for nobody; when it goes on, it says so."""
    with started([str(build("leaky", folder))], tmp_path) as process:
        command = [*LEAKSCOPE, "attach", str(process.pid), "--for", "20s", "--max-pause", "2"]
        attaching = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            left = find_attached(process.pid)
            if left is not None and left.patches:
                break
            time.sleep(0.05)
        time.sleep(1.5)
        os.kill(attaching.pid, signal.SIGSTOP)
        time.sleep(16)
        os.kill(attaching.pid, signal.SIGCONT)
        os.kill(attaching.pid, signal.SIGINT)
        _, told = attaching.communicate(timeout=60)
        assert "heard nothing from leakscope" in told
        assert "nothing of leakscope is left in it" in told


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_needed_in_the_place_of_the_process(place, folder, tmp_path):
    """Other namespaces, a root without its files: nothing is loaded from there."""
    result = soak_program(place, in_place(place, tmp_path), tmp_path, CYCLES, HOLD_S)
    check(result)
    assert result.events > 1000


def test_a_java_machine_goes_on(folder, tmp_path):
    result = soak_program("java", java(tmp_path), tmp_path, CYCLES, HOLD_S)
    assert (result.refused, result.kept) == ([], [])
    assert result.after.tracer == "0"
    assert result.events > 1000


def test_whoever_attaches_is_killed_in_the_middle(folder, tmp_path):
    """The long form is benchmarks/attach/soak.py --kill tracer."""
    with started([str(build("leaky", folder))], tmp_path) as process:

        def is_there():
            assert process.poll() is None

        result = kill_tracers("leaky", process.pid, CHECK_EVERY, is_there)
        assert result.events > 0 or result.refused
        assert result.moments.keys() & {"mapped", "patched", "nothing there"}
        assert abs(result.after.descriptors - result.before.descriptors) <= 1


def test_a_process_that_is_killed_in_the_middle_ends_the_attach_well(folder, tmp_path):
    """The long form is benchmarks/attach/soak.py --kill target."""
    result = kill_targets("leaky", [str(build("leaky", folder))], tmp_path, 4)
    assert result.cycles == 4
    assert sum(result.moments.values()) == 4


@pytest.mark.parametrize("name", ["leaky", "musl"])
def test_a_kill_after_the_first_mapping_leaves_nothing(name, folder, tmp_path):
    """What is not written there yet nobody could find: the thread itself unmaps it."""
    with started([str(build(name, folder))], tmp_path) as process:
        code = stray(process.pid)
        for _ in range(5):
            kill_before_it_is_noted(process.pid)
            time.sleep(0.05)
            assert process.poll() is None
            assert find_attached(process.pid) is None
            assert stray(process.pid) == code
        with Session(make_plan(process.pid), max_pause_s=MAX_PAUSE_S) as session:
            time.sleep(0.3)
        assert session.removed.unmapped
        assert stray(process.pid) == code


@pytest.mark.parametrize("phase", ["_map", "_write", "_patch"])
def test_a_process_that_ends_before_a_phase_is_said_to_have_ended(
    phase, folder, tmp_path, monkeypatch
):
    whole = getattr(inject, phase)
    with subprocess.Popen([build("leaky", folder)], cwd=tmp_path) as process:
        time.sleep(1.2)

        def killed(*arguments):
            process.kill()
            process.wait()
            return whole(*arguments)

        monkeypatch.setattr(inject, phase, killed)
        plan = make_plan(process.pid)
        with (
            pytest.raises(TargetError, match=r"ended|there is no process"),
            Session(plan, max_pause_s=MAX_PAUSE_S),
        ):
            pass


@pytest.mark.parametrize("least", [0, 1 << 14])
def test_a_process_that_ends_while_it_is_written_to_is_said_to_have_ended(
    least, folder, tmp_path, monkeypatch
):
    whole = hands.Writer.write
    with subprocess.Popen([build("leaky", folder)], cwd=tmp_path) as process:
        time.sleep(1.2)

        def killed(memory, address, data):
            if len(data) >= least and memory.pid == process.pid:
                process.kill()
                process.wait()
            whole(memory, address, data)

        monkeypatch.setattr(hands.Writer, "write", killed)
        plan = make_plan(process.pid)
        with (
            pytest.raises(TargetError, match=r"ended|there is no process"),
            Session(plan, max_pause_s=MAX_PAUSE_S),
        ):
            pass


def test_a_process_that_ends_after_the_plan_is_said_to_have_ended(folder, tmp_path):
    with subprocess.Popen([build("leaky", folder)], cwd=tmp_path) as process:
        time.sleep(1.2)
        plan = make_plan(process.pid)
        process.kill()
        process.wait()
        with pytest.raises(TargetError, match="there is no process"), Session(plan):
            pass
