# SPDX-License-Identifier: Apache-2.0
"""The agent's table of live blocks against a plain list."""

import shutil
import subprocess

import pytest

from conftest import ROOT

NATIVE = ROOT / "native"


def test_the_table_holds_what_was_put_into_it(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed; tools/setup-debian --test does it")
    subprocess.run(
        [
            *("gcc", "-std=gnu11", "-g", "-O2", "-Wall", "-Wextra", "-fno-builtin", "-fno-lto"),
            *("-I", NATIVE / "agent", "-I", NATIVE / "include"),
            *(NATIVE / "tests" / "test_blocks.c", NATIVE / "agent" / "blocks.c"),
            *(NATIVE / "agent" / "str.c", NATIVE / "agent" / "sys.c"),
            *("-o", tmp_path / "test_blocks"),
        ],
        check=True,
    )
    done = subprocess.run(
        [tmp_path / "test_blocks"], capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.stdout, done.returncode) == ("ok\n", 0)
