# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import pytest

from leakscope.trace import _survivors

SLEEP = [sys.executable, "-I", "-S", "-c", "print(flush=True); input()"]


@pytest.fixture
def start():
    started = []

    def begin(environment):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(SLEEP, env=environment, **pipes))
        started[-1].stdout.readline()
        return started[-1]

    yield begin
    for each in started:
        each.kill()
        each.communicate()


@pytest.fixture
def survives(monkeypatch, tmp_path):
    """Ask about one process alone: what others start on the machine meanwhile tells nothing."""

    def ask(child, directory=tmp_path, before=frozenset()):
        monkeypatch.setattr(_survivors, "running_processes", lambda: frozenset({child.pid}))
        return _survivors.may_survive(before, directory)

    return ask


def test_a_process_whose_environment_names_the_directory_may_be_of_the_run(
    start, survives, tmp_path
):
    child = start({"LEAKSCOPE_DIR": str(tmp_path)})

    assert survives(child)
    assert not survives(child, tmp_path / "another")


def test_one_that_was_there_before_is_not(start, survives, tmp_path):
    child = start({"LEAKSCOPE_DIR": str(tmp_path)})

    assert not survives(child, before=frozenset({child.pid}))


def test_one_that_has_ended_is_not(start, survives, tmp_path):
    child = start({"LEAKSCOPE_DIR": str(tmp_path)})
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie until it is waited for

    assert not survives(child)


def test_without_a_list_nobody_is_ruled_out(tmp_path):
    assert _survivors.may_survive(None, tmp_path)


def test_this_process_is_listed():
    assert os.getpid() in _survivors.running_processes()
