# SPDX-License-Identifier: Apache-2.0
"""The agent on another machine: cross-compiled, run under qemu-user, reported here."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT, build_agent
from integration.claims import CLAIMS, Claim
from integration.conftest import Traced, describe, place

pytestmark = pytest.mark.aarch64

TOOLCHAIN = ROOT / "native" / "cmake" / "aarch64-linux-gnu.cmake"
SYSROOT = "/usr/aarch64-linux-gnu"


@pytest.fixture(scope="session")
def foreign_agent() -> Path:
    for tool in ("aarch64-linux-gnu-gcc", "qemu-aarch64"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; tools/setup-debian --test does it")
    return build_agent(ROOT / "build" / "aarch64", f"-DCMAKE_TOOLCHAIN_FILE={TOOLCHAIN}")


@pytest.mark.parametrize(
    "claim", [each for each in CLAIMS if "aarch64" in each.variants], ids=lambda each: each.name
)
def test_foreign_program_gets_its_verdict(claim: Claim, foreign_agent, leakscope, tmp_path):
    program = claim.build(tmp_path, "aarch64")
    live = tmp_path / "live"
    live.mkdir(mode=0o700)

    # The launcher does not look through the emulator: this is the way without it.
    ran = subprocess.run(
        [
            "qemu-aarch64",
            "-L",
            SYSROOT,
            "-E",
            f"LD_PRELOAD={foreign_agent}",
            program,
        ],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        # The agent reads /proc/self/environ, and the emulator shows its own there.
        env=os.environ | {"LEAKSCOPE_DIR": str(live)},
        timeout=100,
    )
    assert ran.stdout == claim.stdout, ran.stderr
    assert ran.returncode == claim.status, ran.stderr

    recordings = sorted(live.glob("*.live"))
    assert len(recordings) == 1
    reported = leakscope("report", "--json", "--no-debuginfod", recordings[0])
    document = json.loads(reported.stdout or "{}")
    traced = Traced(reported.returncode, ran.stdout, reported.stderr, document, live)
    why = describe(traced)
    assert traced.report, why
    assert traced.program["process"]["architecture"] == "aarch64", why
    # Nobody searches memory here: what would be lost on x86-64 may only be seen to grow.
    leaks = {place(each) for each in traced.leaks}
    growing = {place(each) for each in traced.findings if each["verdict"] == "growing"}
    assert leaks <= claim.leaks <= leaks | growing, why
    for expected in claim.expectations:
        seen = {each["verdict"] for each in traced.findings if place(each) == expected.place}
        wanted = expected.verdicts | ({"growing"} if "lost" in expected.verdicts else set())
        assert seen & wanted, why
    assert traced.returncode == (1 if leaks else 0), why
