# SPDX-License-Identifier: Apache-2.0
"""The agent's unwind rules against two independent readers: libgcc's unwinder and readelf."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

NATIVE = ROOT / "native"
PARTS = (
    "apart",
    "epilogue",
    "image",
    "loaded",
    "modules",
    "peek",
    "resolve",
    "rules",
    "str",
    "sys",
)
OPTIONS = (
    *("-g", "-O2", "-fomit-frame-pointer", "-fasynchronous-unwind-tables", "-pthread"),
    *("-I", str(NATIVE / "agent"), "-I", str(NATIVE / "include")),
)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The test program, linked with the agent's own sources, and its plugin."""
    for tool in ("gcc", "g++", "readelf", "objdump"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; tools/setup-debian --test does it")
    folder = tmp_path_factory.mktemp("rules")
    objects = []
    for name in PARTS:
        objects.append(folder / f"{name}.o")
        run(
            *("gcc", "-std=gnu11", "-fno-builtin", "-fno-stack-protector", *OPTIONS, "-c"),
            *(NATIVE / "agent" / f"{name}.c", "-o", objects[-1]),
        )
    tests = NATIVE / "tests"
    run(
        *("gcc", "-std=gnu11", "-fexceptions", *OPTIONS, "-c"),
        *(tests / "test_rules.c", "-o", folder / "test_rules.o"),
    )
    run(
        *("g++", "-std=c++17", *OPTIONS, tests / "test_rules_cxx.cc", folder / "test_rules.o"),
        *(*objects, "-ldl", "-o", folder / "test_rules"),
    )
    plugin = folder / "plugin.so"
    run("gcc", "-shared", "-fPIC", "-O2", tests / "test_rules_plugin.c", "-o", plugin)
    return folder


@pytest.mark.timeout(300)
def test_frames_are_those_of_the_compilers_unwinder(built):
    run(built / "test_rules", built / "plugin.so")


@pytest.mark.timeout(300)
def test_no_rule_contradicts_readelf(built):
    """Over a program of ours, whose rows include C++ frames, landing pads and signal frames."""
    done = run(
        *(sys.executable, NATIVE / "tests" / "check_rules.py"),
        *(built / "test_rules", built / "test_rules", built / "plugin.so"),
    )
    assert "return addresses: " in done.stdout
    assert " of 0 equal" not in done.stdout
