# SPDX-License-Identifier: Apache-2.0
"""Programs that must be under leakscope what they are alone: built once a session, run with and without."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LEAKSCOPE = (sys.executable, "-m", "leakscope")
SOURCES = Path(__file__).parents[2] / "src"
PROGRAMS = Path(__file__).parents[1] / "programs" / "harm"

LEVELS = {"O0": ("-O0",), "O2": ("-O2", "-fno-builtin-malloc")}


@dataclass(frozen=True)
class Done:
    """How a program ended. A negative status is the signal's number, as in subprocess."""

    status: int
    stdout: str
    stderr: str


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, with the sources under test first for Python."""
    return os.environ | {"PYTHONPATH": str(SOURCES)} | more


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build `tests/programs/harm/NAME.c` at a level, once; returns the program."""
    folder = tmp_path_factory.mktemp("harm")

    def run(name: str, level: str = "O0", *flags: str) -> Path:
        program = folder / "-".join([name, level, *(f.strip("-").replace("/", "_") for f in flags)])
        if not program.exists():
            command = ["gcc", "-g", "-w", *LEVELS[level], "-pthread", str(PROGRAMS / f"{name}.c")]
            command += ["-o", str(program), *flags]
            subprocess.run(command, check=True, cwd=folder)
        return program

    return run


@pytest.fixture
def alone() -> Callable[..., Done]:
    """Run a command as it is; keyword arguments go to subprocess.run."""

    def run(*command: object, **how: Any) -> Done:
        how = {"timeout": 100, "stdin": subprocess.DEVNULL} | how
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False, **how
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def leakscope(agent: Path, alone: Callable[..., Done]) -> Callable[..., Done]:
    """Run the command line of the sources under test."""
    assert agent.exists()

    def run(*arguments: object, **how: Any) -> Done:
        how["env"] = environment() | how.get("env", {})
        return alone(*LEAKSCOPE, *arguments, **how)

    return run
