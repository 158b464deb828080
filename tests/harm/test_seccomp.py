# SPDX-License-Identifier: Apache-2.0
"""Programs under a system call filter end as they do alone, and what they lose is told."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harm.conftest import LEAKSCOPE, LEVELS, PROGRAMS, environment

JAIL2 = PROGRAMS.parent / "cases" / "seccomp" / "jail2.c"


@pytest.fixture(scope="module")
def jail2(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("jail2")

    def run(level: str, *flags: str) -> Path:
        program = folder / "-".join(["jail2", level, *flags])
        if not program.exists():
            command = ["gcc", "-g", "-w", *LEVELS[level], *flags, str(JAIL2), "-o", str(program)]
            subprocess.run(command, check=True)
        return program

    return run


def traced(leakscope, tmp_path, *command):
    """Run it under leakscope; return what it printed, its status as a shell says it, the report."""
    report = tmp_path / "report.json"
    report.unlink(missing_ok=True)
    done = leakscope(
        *("run", "-q", "--json", "--report-file", report, "-o", tmp_path / "r.leakscope", "--"),
        *command,
    )
    assert report.exists(), done.stderr
    (found,) = json.loads(report.read_text())["processes"][:1]
    return done.stdout, found


def ended(found):
    process = found["process"]
    if process["ended"].startswith("killed by "):
        return process["ended"].removeprefix("killed by ")
    return process["exit_status"]


def lost(found):
    """Blocks by the function that lost them."""
    return {
        finding["stack"][0]["function"]: finding["live_count"]
        for finding in found["findings"]
        if finding["verdict"] == "lost"
    }


@pytest.mark.parametrize("level", ["O0", "O2"])
@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ((), ("kill", "300")),
        (("-DTYPICAL",), ("kill", "300")),
        ((), ("errno", "300")),
        ((), ("strict", "30")),
    ],
)
def test_a_jail_is_not_broken_and_its_leak_is_told(
    jail2, leakscope, alone, tmp_path, level, flags, arguments
):
    program = jail2(level, *flags)
    plain = alone(program, *arguments)
    assert plain.status == 4
    stdout, found = traced(leakscope, tmp_path, program, *arguments)
    assert (stdout, ended(found)) == (plain.stdout, 4)
    assert lost(found) == {"main": int(arguments[1])}
    assert "sealed" in found["coverage"]["troubles"]


# Of `secc`: threads, exit by a bare call, abort, deep stacks; from 5 on with errors in place of death.
@pytest.mark.parametrize("mode", [0, 2, 3, 4, 7, 8, 9])
def test_an_allow_list_of_usual_calls(build, leakscope, alone, tmp_path, mode):
    program = build("secc", "O2")
    plain = alone(program, mode)
    stdout, found = traced(leakscope, tmp_path, program, mode)
    names = {-31: "SIGSYS", -11: "SIGSEGV", -9: "SIGKILL", -6: "SIGABRT"}
    assert (stdout, ended(found)) == (plain.stdout, names.get(plain.status, plain.status))


@pytest.mark.parametrize(
    ("mode", "what"),
    [
        ("prctl", "kill"),
        ("prctl", "errno"),
        ("prctl", "trap"),  # the program counts what it is sent
        ("prctl", "trace"),
        ("prctl", "log"),
        ("syscall", "kill"),
        ("unseen", "kill"),  # by a bare instruction, after a PR_SET_NO_NEW_PRIVS that is seen
        ("asked", "kill"),  # is refused three times first
        ("twice", "kill"),
        ("threads", "kill"),
        ("tsync", "kill"),  # another thread does it for all
        ("fork", "kill"),
    ],
)
def test_every_way_to_a_filter(build, leakscope, alone, tmp_path, mode, what):
    program = build("jail3", "O2")
    plain = alone(program, mode, what)
    assert plain.status == 4
    stdout, found = traced(leakscope, tmp_path, program, mode, what)
    assert (stdout, ended(found)) == (plain.stdout, 4)
    assert lost(found) == {"work": 200}


@pytest.mark.parametrize("way", ["seen", "bare"])
def test_a_program_that_begins_under_a_filter(build, leakscope, alone, tmp_path, way):
    command = (build("jailer", "O2"), way, build("plainleak", "O2"))
    plain = alone(*command)
    assert plain.status == 4
    done = leakscope("run", "-o", tmp_path, "--no-report", "--", *command)
    assert done.stdout == plain.stdout
    assert "exited with status 4" in done.stderr
    assert "seccomp" in done.stderr  # why it was not traced


@pytest.mark.parametrize("action", ["errno", "kill"])
def test_leakscope_itself_under_a_filter(build, agent, alone, tmp_path, action):
    """As in a container; a filter that would punish the agent is found out first."""
    command = (sys.executable, *LEAKSCOPE[1:], "run", "-o", tmp_path, "--")
    program = build("plainleak", "O2")
    done = alone(build("jailer", "O2"), action, *command, program, env=environment())
    assert done.stdout == "plain done\n"
    assert "exited with status 4" in done.stderr
    if action == "errno":
        assert "All 200 blocks from here are lost" in done.stderr
    else:
        assert "system call filter" in done.stderr


@pytest.mark.parametrize("how", ["exit", "call", "segv", "abort", "term", "self"])
def test_ends_with_threads_under_a_filter(build, agent, leakscope, alone, tmp_path, how):
    """Neither holding the other threads nor handing on a signal is tried where it is punished."""
    program = build("sealend", "O2")
    plain = alone(program, how)
    assert plain.status != -31
    done = leakscope("run", "-o", tmp_path, "--no-report", "--", program, how)
    assert done.stdout == plain.stdout
    name = signal.Signals(-plain.status).name if plain.status < 0 else str(plain.status)
    assert done.stderr.splitlines()[0].endswith(name)
