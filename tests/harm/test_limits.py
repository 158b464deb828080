# SPDX-License-Identifier: Apache-2.0
"""Limits of address space, of locked memory and of files, set before, by the program, or from outside."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harm.conftest import Done, environment

OWN_KB = 16 << 10  # address space that the agent may take of a small program's, in KiB
LEVELS = ("O0", "O2")


@pytest.fixture
def recorded(agent: Path, alone: Callable[..., Done], tmp_path: Path) -> Callable[..., Done]:
    """Run a command with the agent preloaded, as a deployed service is; it must record."""

    def run(*command: object) -> Done:
        folder = tmp_path / "live"
        folder.mkdir(exist_ok=True)
        variables = environment(LD_PRELOAD=str(agent), LEAKSCOPE_DIR=str(folder))
        done = alone(*command, env=variables)
        assert list(folder.glob("*.live")), done
        return done

    return run


def field(done: Done, name: str) -> int:
    found = re.search(rf"{name}:?\s+(\d+)", done.stderr)
    assert found, done
    return int(found[1])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("who", ["root", "user"])
@pytest.mark.parametrize("mode", ["cur", "fut", "both"])
def test_locked_memory_counts_what_it_counts_alone(mode, who, level, build, alone, recorded):
    words = [build("mlk", level), mode, *(["u"] if who == "user" else [])]
    plain, traced = alone(*words), recorded(*words)
    assert (traced.status, traced.stdout) == (plain.status, plain.stdout)
    assert field(traced, "VmLck") <= field(plain, "VmLck") + 256


@pytest.mark.parametrize("mode", ["raw", "onfault"])
def test_memory_that_is_locked_by_a_raw_call_leaves_room(mode, build, alone, recorded):
    program = build("lim")
    plain, traced = alone(program, mode), recorded(program, mode)
    assert (traced.status, traced.stdout) == (plain.status, plain.stdout)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mode", ["0", "1", "2", "3"])
def test_an_address_space_limit_leaves_what_it_leaves_alone(mode, level, build, alone, recorded):
    program = build("as", level)
    plain, traced = alone(program, mode), recorded(program, mode)
    assert (traced.status, traced.stdout) == (plain.status, plain.stdout)


def test_a_limit_before_exec_leaves_room_and_a_recording(build, alone, recorded):
    for option in ("--as=100000000", "--data=3000000", "--memlock=65536", "--fsize=1000000000"):
        words = ["prlimit", option, build("lim"), "grow", "20000"]
        plain, traced = alone(*words), recorded(*words)
        assert (traced.status, traced.stdout) == (plain.status, plain.stdout), option


def test_address_space_follows_what_is_recorded(build, alone, recorded):
    program = build("lim")
    for blocks, room in (("1000", OWN_KB), ("1000000", OWN_KB + 64 * 1024)):
        plain, traced = alone(program, "grow", blocks), recorded(program, "grow", blocks)
        assert traced.stdout == plain.stdout
        assert field(traced, "VmSize") < field(plain, "VmSize") + room


def test_a_forked_generation_does_not_keep_the_recordings_before(build, alone, recorded):
    program = build("lim")
    plain, traced = alone(program, "gens"), recorded(program, "gens")
    assert traced.status == plain.status == 0
    assert field(traced, "VmSize") < field(plain, "VmSize") + OWN_KB


def test_the_command_line_says_what_it_would_alone(build, alone, leakscope, tmp_path):
    for name, words in (("mlk", ["both", "u"]), ("as", ["2"])):
        program = build(name)
        plain = alone(program, *words)
        traced = leakscope("run", "-q", "-o", tmp_path, "--", program, *words, cwd=os.sep)
        assert traced.stdout.startswith(plain.stdout), traced
