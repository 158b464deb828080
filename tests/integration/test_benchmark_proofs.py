# SPDX-License-Identifier: Apache-2.0
"""A benchmark of a tool that is not there must fail, and not print the best numbers of all."""

import dataclasses
import subprocess
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import tools

TOOLS = tools.tools()
OURS = ["leakscope", "leakscope sampled"]
# Without what tells them to, these do not look at anything.
SWITCHED_ON = [n for n in TOOLS if n.endswith(("sampled", "profile")) and n not in OURS]


@pytest.mark.parametrize("name", TOOLS)
def test_each_tool_that_is_installed_is_seen_at_work(name):
    tools.prove([TOOLS[name]])


@pytest.mark.parametrize("name", OURS)
def test_an_agent_that_is_not_there_ends_the_benchmark(name, tmp_path):
    missing = dataclasses.replace(TOOLS[name], preload=str(tmp_path / "agent.so"))
    with pytest.raises(tools.IdleToolError, match="cannot be preloaded"):
        tools.prove([missing])


@pytest.mark.parametrize("name", OURS)
def test_a_library_that_does_nothing_is_not_taken_for_the_agent(name, tmp_path):
    library = tmp_path / "nothing.so"
    subprocess.run(
        ["gcc", "-shared", "-x", "c", "-", "-o", library], input=b"int nothing;", check=True
    )
    idle = dataclasses.replace(TOOLS[name], preload=str(library))
    with pytest.raises(tools.IdleToolError, match="no sign"):
        tools.prove([idle])


def test_profilers_that_nobody_switched_on_are_no_peers():
    for name in SWITCHED_ON:
        with pytest.raises(tools.IdleToolError, match="no sign"):
            tools.prove([dataclasses.replace(TOOLS[name], environment={})])
