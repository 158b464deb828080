# SPDX-License-Identifier: Apache-2.0
"""Programs of tests/programs, built once and traced by the preloaded agent alone."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from unit.recording.recordings import build, environment


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("programs")

    def program(name: str) -> Path:
        found = folder / name
        return found if found.exists() else build(name, folder)

    return program


@pytest.fixture
def trace(agent, programs, tmp_path) -> Callable[..., list[Path]]:
    """Run a program to its end and return its live recordings."""

    def run(name: str, *, status: int = 0, **settings: str) -> list[Path]:
        folder = tmp_path / "live"
        folder.mkdir(mode=0o700, exist_ok=True)
        done = subprocess.run(
            [programs(name)],
            env=environment(agent, folder, **settings),
            stdout=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == status
        return sorted(folder.glob("*.live"), key=lambda path: path.stat().st_mtime_ns)

    return run
