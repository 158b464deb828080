# SPDX-License-Identifier: Apache-2.0
"""The agent opens nothing that the program can meet, see or inherit."""

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harm.conftest import PROGRAMS

CLEAN = "asked 1, another number 0, inherited 0, shifted 0, lowest at the end 0\n"


def build_with_musl(name: str, folder: Path) -> Path:
    program = folder / name
    command = ["musl-gcc", "-w", "-O1", "-pthread", PROGRAMS / f"{name}.c", "-o", program]
    subprocess.run([str(word) for word in command], check=True)
    return program


def live_folder(folder: Path) -> Path:
    live = folder / "live"
    live.mkdir(mode=0o700)
    return live


@pytest.mark.parametrize("level", ["O0", "O2", pytest.param("musl", marks=pytest.mark.musl)])
def test_descriptor_numbers_are_those_of_the_program_alone(
    build, alone, leakscope, tmp_path, level
):
    program = build_with_musl("fds", tmp_path) if level == "musl" else build("fds", level)
    by_itself = alone(program, "0.5")
    traced = leakscope("run", "--", program, "0.8")
    assert by_itself.stdout == CLEAN
    assert traced.stdout == CLEAN, traced.stderr


@pytest.mark.parametrize("name", ["fdclose", "fdrace"])
def test_descriptors_are_left_alone(build, alone, agent, tmp_path, name):
    done = alone(
        build(name),
        "1",
        env=os.environ | {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(live_folder(tmp_path))},
    )
    assert done.status == 0, done.stderr


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_signal_handler_meets_no_descriptor_in_a_child(build, alone, agent, tmp_path, level):
    live = live_folder(tmp_path)
    environment = os.environ | {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(live)}
    done = alone(build("fdsignal", level), "30", env=environment)
    assert done.stdout == "0 of 30\n"
    assert len(list(live.glob("*.live"))) == 31


def test_child_without_a_free_number_is_recorded_all_the_same(build, alone, agent, tmp_path):
    live = live_folder(tmp_path)
    environment = os.environ | {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(live)}
    done = alone(build("fds"), "0", "full", env=environment)
    assert done.stdout == "child 0\n"
    assert len(list(live.glob("*.live"))) == 2


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_switched_on_by_the_config_file_while_it_runs(
    build: Callable[..., Path], alone, agent, tmp_path, level
):
    """Then the recording begins in a program that has threads, whose numbers it must not take."""
    live, config = live_folder(tmp_path), tmp_path / "leakscope.conf"
    program = build("fds", level)
    config.write_text("# nothing yet\n")

    def switch() -> None:
        time.sleep(0.7)
        config.write_text(f"trace {program.name} dir={live}\n")

    switching = threading.Thread(target=switch)
    switching.start()
    environment = os.environ | {"LD_PRELOAD": str(agent), "LEAKSCOPE_CONFIG": str(config)}
    done = alone(program, "3", env=environment)
    switching.join()
    assert done.stdout == CLEAN
    assert list(live.glob("*.live"))
