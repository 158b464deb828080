# SPDX-License-Identifier: Apache-2.0
"""One browser for all tests of the page, and pages of real programs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from browser import Browser
from conftest import ROOT

LEAKSCOPE = (sys.executable, "-m", "leakscope")


@pytest.fixture(scope="session")
def browser():
    """A browser of the width of a laptop's screen."""
    with Browser() as started:
        started.size(1280, 900)
        yield started


@pytest.fixture
def screen(browser):
    """The same, as it was at first."""
    browser.size(1280, 900)
    browser.scheme("light")
    browser.scripts(allowed=True)
    return browser


def leakscope(*arguments, cwd) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LEAKSCOPE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "DEBUGINFOD_URLS": ""},
    )


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    """A folder with a program that loses blocks, its recording, and page and text of the report."""
    folder = tmp_path_factory.mktemp("page")
    source = ROOT / "tests" / "programs" / "page" / "shop.c"
    subprocess.run(["gcc", "-g", "-O1", "-fno-builtin", "-o", folder / "shop", source], check=True)
    done = leakscope(
        "run", "-o", "shop.leakscope", "--html", "run.html", "--", "./shop", "20", cwd=folder
    )
    assert done.returncode == 1, done.stderr
    (folder / "run.txt").write_text(done.stderr)
    done = leakscope(
        "run", "-q", "-o", "later.leakscope", "--no-report", "--", "./shop", "40", cwd=folder
    )
    assert (folder / "later.leakscope").exists(), done.stderr
    return folder
