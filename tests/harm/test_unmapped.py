# SPDX-License-Identifier: Apache-2.0
"""A program that unmaps, protects or replaces memory that it does not know goes on as alone."""

import json

import pytest

from leakscope.recording import layout

OWN = (layout.HEADER_DTYPE.fields or {})["own_count"][1]


@pytest.mark.parametrize("level", ["O0", "O2"])
@pytest.mark.parametrize("how", ["unmap", "prot", "replace"])
def test_mappings_of_files_it_does_not_know(build, leakscope, alone, tmp_path, level, how):
    program, report = build("mapfix", level), tmp_path / "report.json"
    expected = "unknown mappings handled\nalive\n"
    # One start in fifty, alone too, lies so low in memory that it takes its own C library's data.
    assert any(alone(program, how).stdout == expected for _ in range(4))
    arguments = ("run", "-q", "--json", "--report-file", report, "-o", tmp_path, "--", program, how)
    assert any(leakscope(*arguments).stdout == expected for _ in range(4))
    (process,) = json.loads(report.read_text())["processes"]
    assert process["process"]["exit_status"] == 0
    assert process["coverage"]["troubles"] == ["left"]


@pytest.mark.parametrize("what", ["file", str(OWN)])
@pytest.mark.parametrize(
    "how", ["unmap", "protect", "replace", "move", "discard", "childless", "call"]
)
def test_while_four_threads_are_in_the_agent(build, alone, agent, tmp_path, how, what):
    """The recording, or the agent's private memory; a child is forked afterwards."""
    env = {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(tmp_path)}
    done = alone(build("takeaway", "O2"), how, what, env=env)
    assert (done.status, done.stdout, done.stderr) == (0, "alive\n", "")
