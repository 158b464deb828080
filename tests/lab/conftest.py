# SPDX-License-Identifier: Apache-2.0
"""The lab: kernels of our own making, booted in QEMU, with leakscope inside.

Minutes of work, and a kernel to build where no cache has one: run by the last stage of
tools/test, or with LEAKSCOPE_LAB=1.
"""

import os
import subprocess
from pathlib import Path

import pytest

collect_ignore_glob = [] if os.environ.get("LEAKSCOPE_LAB") == "1" else ["test_*.py"]

HERE = Path(__file__).parent
BUILD_S = 2400  # a quarter of an hour on two idle processors


def made(script, seconds):
    done = subprocess.run([HERE / script], capture_output=True, text=True, timeout=seconds, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split("\n")[-2])


@pytest.fixture(scope="session")
def lab_kernel():
    """The directory of a kernel that tells all, and of its module `leaks`."""
    return made("build", BUILD_S)


@pytest.fixture(scope="session")
def debian_kernel():
    """The directory of Debian's own kernel."""
    return made("debian-kernel", BUILD_S)
