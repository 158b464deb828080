# SPDX-License-Identifier: Apache-2.0
"""Frames without unwind information, read from the code that leaves them."""

import platform
import subprocess

import pytest

from conftest import ROOT

NATIVE = ROOT / "native"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the code in it is that of x86-64")
def test_code_of_several_versions_of_go_and_none_other_is_understood(tmp_path):
    command = ["gcc", "-std=gnu11", "-g", "-O1", "-Wall", "-Wextra"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I", NATIVE / "agent"]
    command += [NATIVE / "tests/test_epilogue.c", NATIVE / "agent/epilogue.c"]
    subprocess.run([*command, "-o", tmp_path / "test_epilogue"], check=True)
    done = subprocess.run(
        [tmp_path / "test_epilogue"], capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr
