# SPDX-License-Identifier: Apache-2.0
"""Signals are for the traced program what its parent left them, and what the kernel makes of them."""

import sys
from pathlib import Path

import pytest

from harm.conftest import LEAKSCOPE, environment

COMMAND = (str(Path(sys.executable).with_name("leakscope")),)
BOTH = pytest.mark.parametrize("start", [COMMAND, LEAKSCOPE], ids=["command", "module"])


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch, agent):
    assert agent.exists()
    monkeypatch.chdir(tmp_path)


def run(alone, before, start, *command, quiet=("-q", "--no-report")):
    # The shell stays the parent, as a service manager would.
    words = [*start, "run", *quiet, "--program-exit-code", "--", *command] if start else command
    script = f'{before}\n"$@"\nstatus=$?; exit $status'
    return alone("bash", "-c", script, "bash", *words, env=environment())


@BOTH
@pytest.mark.parametrize("before", ["trap '' PIPE", ":"])
def test_a_broken_pipe_is_what_the_parent_made_it(build, alone, start, before):
    program = build("pipew")
    expected = run(alone, before, (), program)

    done = run(alone, before, start, program)

    assert (done.status, done.stdout) == (expected.status, expected.stdout)
    assert expected.status == (0 if "trap" in before else 141)


@pytest.mark.parametrize(
    "signals", ["", "PIPE", "CHLD", "XFSZ,HUP", "INT,QUIT,PIPE,TERM", "CHLD,PIPE,USR1,RTMIN+3"]
)
def test_the_program_finds_every_signal_as_it_would_alone(alone, signals):
    words = [f"--ignore-signal={name}" for name in signals.split(",") if name]
    show = ["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"]
    expected = alone("env", *words, *show)

    done = alone("env", *words, *COMMAND, "run", "--no-report", "--", *show, env=environment())

    assert done.stdout == expected.stdout
    assert "grep exited with status 0" in done.stderr


def test_nothing_of_it_is_in_the_programs_environment(alone):
    done = alone(*COMMAND, "run", "-q", "--no-report", "--", "env", env=environment())

    assert "PATH=" in done.stdout
    assert "LEAKSCOPE_IGNORED" not in done.stdout


def test_the_first_process_of_a_namespace_keeps_its_immunity(build, alone, leakscope):
    command = ["unshare", "-pf", build("init1")]
    expected = alone(*command)

    done = leakscope("run", "-q", "--no-report", "--", *command)

    assert done.stdout == expected.stdout
    assert "eintr 0 waited full" in done.stdout
