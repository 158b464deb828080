# SPDX-License-Identifier: Apache-2.0
"""The wheel installs into a clean environment and works without a compiler there."""

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from conftest import ROOT
from integration.claims import claim

pytestmark = [pytest.mark.wheel, pytest.mark.xdist_group("wheel"), pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    # A copy: building must not write into the tree under test.
    shutil.copytree(
        ROOT,
        sources,
        ignore=shutil.ignore_patterns(
            ".git", ".venv", "build", "dist", "node_modules", "__pycache__", ".*_cache"
        ),
    )
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, sources],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LEAKSCOPE_PAGE": "ON"},  # a wheel has the page, or is not made
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean_environment(wheel, tmp_path_factory) -> Path:
    """The bin folder of a new virtual environment that holds the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    done = subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "-q", "--only-binary=:all:", wheel],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture
def installed(clean_environment, tmp_path):
    """Run the installed command where PATH has no compiler and nothing of this tree."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("true", "sh"):
        (tools / name).symlink_to(Path("/bin") / name)
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("LEAKSCOPE", "PYTHON", "CMAKE", "CC", "CXX"))
    } | {"PATH": str(tools)}
    assert not any(shutil.which(name, path=str(tools)) for name in ("gcc", "cc", "clang", "cmake"))

    def run(*arguments):
        return subprocess.run(
            [clean_environment / "leakscope", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    return run


def test_wheel_serves_every_python_and_holds_only_the_package(wheel):
    assert "-py3-none-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(archive.read(metadata).decode())
    folders = {name.split("/")[0] for name in names}
    data = Path(metadata).parent.with_suffix(".data").name
    assert {"leakscope", Path(metadata).parent.name, data} == folders
    assert f"{data}/scripts/leakscope" in names  # native: it asks before Python starts
    assert "leakscope/_native/leakscope-exec" in names
    assert "leakscope/_native/libleakscope-agent.so" in names
    page = {"page.js", "page.css", "page-licences.txt"}
    assert {f"leakscope/_native/{name}" for name in page} <= set(names)
    assert "leakscope/py.typed" in names
    assert "leakscope/include/leakscope.h" in names
    assert "leakscope/_native/libleakscope-beside.so" in names
    assert fields["License-Expression"] == "Apache-2.0"


def test_installed_command_tells_its_version(installed, wheel):
    done = installed("--version")
    assert done.stderr == ""
    assert done.stdout == f"leakscope {wheel.name.split('-')[1]}\n"
    assert done.returncode == 0


def test_installed_command_traces_a_clean_program(installed):
    done = installed("run", "--", "/bin/true")
    assert done.returncode == 0, done.stderr


def test_installed_command_names_the_leaking_line(installed, tmp_path):
    leaky = claim("leak_loop")
    program = leaky.build(tmp_path, "O2")
    done = installed("run", "--", program)
    ((name, line),) = leaky.leaks
    assert done.returncode == 1, done.stderr
    assert f"{name}:{line}" in done.stderr
    assert done.stdout == leaky.stdout
