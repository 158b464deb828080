# SPDX-License-Identifier: Apache-2.0
"""Tools of Debian's packages, run on one program: what they write is read as they mean it."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from leakscope.formats import read_foreign

PROGRAM = """
#include <mcheck.h>
#include <stdlib.h>
static void *kept;
static void __attribute__((noinline)) lose(void) {
    for (int i = 0; i < 3; i++) {
        char *volatile p = malloc(100);
        p[0] = 1;
    }
}
static void __attribute__((noinline)) clear(void) {
    volatile char room[4096];
    for (unsigned i = 0; i < sizeof room; i++) room[i] = 0;
}
int main(void) {
    mtrace();
    kept = malloc(7);
    lose();
    clear();
    free(malloc(9));
    return 0;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("producers")
    (folder / "p.c").write_text(PROGRAM)
    for name, option in (
        ("plain", "-O0"),
        ("lsan", "-fsanitize=leak"),
        ("asan", "-fsanitize=address"),
    ):
        command = ["gcc", "-g", "-O0", option, "-o", str(folder / name), str(folder / "p.c")]
        subprocess.run(command, check=True)
    return folder


def lost(recording):
    reach = recording.site_reach
    return int(reach["definite_bytes"].sum()), int(reach["definite_count"].sum())


def run(folder, *command, **environment):
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, check=False
    )
    path = Path(folder / "stderr")
    path.write_bytes(done.stderr)
    return path


@pytest.mark.parametrize("name", ["lsan", "asan"])
@pytest.mark.parametrize("options", ["symbolize=1", "symbolize=0", "color=always:max_leaks=1"])
def test_sanitizers(folder, name, options):
    path = run(folder, f"./{name}", LSAN_OPTIONS=options, ASAN_OPTIONS=options)
    (recording,) = read_foreign(path)
    # A pointer that was left in a register can hide a block from it: its own sum is the measure.
    told = re.search(r"(\d+) byte\(s\) leaked in (\d+) alloc", path.read_text())
    assert lost(recording) == (int(told[1]), int(told[2]))
    assert lost(recording)[0] >= 200


@pytest.mark.parametrize(
    "options", [["--leak-check=full"], ["--leak-check=summary", "--time-stamp=yes"]]
)
def test_valgrind(folder, options):
    (recording,) = read_foreign(run(folder, "valgrind", *options, "./plain"))
    assert lost(recording) == (300, 3)
    assert int(recording.site_reach["reachable_bytes"].sum()) == 7


def test_mtrace(folder):
    library = "libc_malloc_debug.so.0"
    run(folder, "./plain", LD_PRELOAD=library, MALLOC_TRACE=str(folder / "log"))
    (recording,) = read_foreign(folder / "log")
    assert int(recording.sites["live_bytes"].sum()) == 307
    assert recording.coverage.free_events == 1
