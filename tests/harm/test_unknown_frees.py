# SPDX-License-Identifier: Apache-2.0
"""Frees of blocks that the recording does not know cost the same whatever else there is."""

import pytest

from allocators import library

THREADS = 1000  # before: 19 s


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("allocator", ["glibc", "libjemalloc"])
def test_beside_a_thousand_threads(build, leakscope, allocator):
    program = build("oldfrees", "O2")
    preload = "" if allocator == "glibc" else f"LD_PRELOAD={library(allocator)}"
    done = leakscope(
        *("run", "-q", "--no-report", "--no-scan", "--start-signal", "USR1", "--"),
        *(("env", preload) if preload else ()),
        *(program, THREADS, "record"),
    )
    assert (done.status, done.stdout) == (0, "fast\n"), done.stderr
