# SPDX-License-Identifier: Apache-2.0
"""Stacks that a program makes, cuts anew and unmaps itself: nothing is read that may be gone."""

import json

import pytest

WAYS = ("unmap", "protect", "shrink", "replace", "call", "bare", "other")


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_coroutine_stacks_cut_anew_on_a_thread(build, leakscope, tmp_path, level):
    done = leakscope("run", "-q", "-o", tmp_path, "--", build("kept", level))
    assert (done.status, done.stdout) == (0, "fine\n")


@pytest.mark.parametrize("level", ["O0", "O2"])
@pytest.mark.parametrize("where", ["main", "worker", "fork", "given", "signal"])
def test_stacks_that_go(build, alone, agent, tmp_path, level, where):
    """By every call that takes memory away, also one that nobody sees, and by another thread."""
    program = build("recut", level)
    for way in WAYS:
        plain = alone(program, where, way)
        env = {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(tmp_path)}
        assert alone(program, where, way, env=env) == plain, way


def test_a_thread_whose_first_allocation_is_on_a_coroutine_has_whole_stacks_afterwards(
    build, leakscope, tmp_path
):
    report = tmp_path / "report.json"
    program = build("ownstack", "O2")
    done = leakscope("run", "-q", "--json", "--report-file", report, "-o", tmp_path, "--", program)
    assert done.stdout == "done\n"
    (process,) = json.loads(report.read_text())["processes"]
    (finding,) = (f for f in process["findings"] if f["verdict"] == "lost")
    names = [frame["function"] for frame in finding["stack"]]
    assert names[:2] == ["loses", "work"]
    # After a few, the thread's own stack is known: the kernel is asked no more.
    assert process["coverage"]["dropped"].get("foreign_stack", 0) < 20
