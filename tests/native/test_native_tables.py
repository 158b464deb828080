# SPDX-License-Identifier: Apache-2.0
"""Parts of the agent, each alone beside a plain model of what it is to hold."""

import subprocess

import pytest

from conftest import ROOT

NATIVE = ROOT / "native"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("depot", ("depot", "str")),
        ("kept", ("kept", "str")),
        ("ranges", ("ranges", "str")),
        ("timeline", ("timeline", "str", "sys")),
    ],
)
def test_a_part_beside_a_plain_model(name, parts, tmp_path):
    command = ["gcc", "-std=gnu11", "-g", "-O2", "-Wall", "-Wextra", "-fno-builtin", "-fno-lto"]
    command += ["-pthread", "-I", NATIVE / "agent", "-I", NATIVE / "include"]
    command += [NATIVE / "tests" / f"test_{name}.c"]
    command += [NATIVE / "agent" / f"{part}.c" for part in parts]
    subprocess.run([*command, "-o", tmp_path / name], check=True)
    done = subprocess.run(
        [tmp_path / name], capture_output=True, text=True, check=False, timeout=100
    )
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr
