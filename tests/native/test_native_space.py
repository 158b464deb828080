# SPDX-License-Identifier: Apache-2.0
"""The agent's address space: growth in place and elsewhere, with nothing lost on the way."""

import subprocess

import pytest

from conftest import ROOT

NATIVE = ROOT / "native"


@pytest.mark.parametrize("way", ["free", "blocked"])
def test_what_was_written_is_in_the_file(way, tmp_path):
    sources = [NATIVE / "tests" / "test_space.c"]
    sources += [NATIVE / "agent" / name for name in ("space.c", "str.c", "sys.c")]
    command = [
        "gcc",
        "-std=gnu11",
        "-g",
        "-O2",
        "-Wall",
        "-Wextra",
        "-fno-builtin",
        "-D_GNU_SOURCE",
    ]
    command += ["-I", NATIVE / "agent", "-I", NATIVE / "include", *sources]
    subprocess.run([*command, "-o", tmp_path / "test_space"], check=True)
    done = subprocess.run(
        [tmp_path / "test_space", way],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.stdout, done.returncode) == ("ok\n", 0)
