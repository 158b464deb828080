# SPDX-License-Identifier: Apache-2.0
"""A core file says what the process said; a damaged one is refused or told, and never believed."""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from allocators import NAMES, library
from leakscope.errors import TargetError
from leakscope.model.reachability import Reachability
from leakscope.scan import scan_core
from leakscope.target.core import Core

# Eight lost blocks, a list of ten, a block that only a register holds, then the end.
PROGRAM = r"""
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
struct node { struct node *next; char pad[1000]; };
static struct node *list;
static __thread void *mine;
static void *work(void *unused) {
  mine = calloc(1, 777);
  register void *only asm("r12") = calloc(1, 5555);
  for (;;) asm volatile("pause" : "+r"(only));
}
int main(void) {
  for (int i = 0; i < 8; i++) { void *volatile lost = calloc(1, 3333); lost = NULL; }
  for (int i = 0; i < 10; i++) {
    struct node *node = calloc(1, sizeof *node);
    node->next = list;
    list = node;
  }
  pthread_t thread;
  pthread_create(&thread, NULL, work, NULL);
  struct timespec moment = {0, 200000000};
  nanosleep(&moment, NULL);
  abort();
}
"""


def limits() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def dumped(folder, **environment):
    if Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core":
        pytest.skip("kernel.core_pattern is not 'core': cores go elsewhere on this machine")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY and os.geteuid():
        pytest.skip("core files are limited on this machine")
    source = folder / "dies.c"
    source.write_text("#include <time.h>\n" + PROGRAM)
    subprocess.run(["gcc", "-O1", "-pthread", source, "-o", folder / "dies"], check=True)
    environment = os.environ | environment
    subprocess.run([folder / "dies"], cwd=folder, preexec_fn=limits, check=False, env=environment)
    return next(folder.glob("core*"))


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return dumped(tmp_path_factory.mktemp("core"))


@pytest.mark.parametrize("name", NAMES)
def test_the_heap_of_another_allocator_in_a_core(tmp_path, name):
    scan, _ = scan_core(dumped(tmp_path, LD_PRELOAD=str(library(name))))
    assert scan.allocator.startswith(name.removeprefix("lib").removesuffix("_minimal"))
    lost = {each.size: each.definite for each in scan.sizes}
    assert {size: count for size, count in lost.items() if count == 8}.keys() <= {3584, 4096}
    assert 8 in lost.values()
    assert scan.share == 1.0


def test_lost_blocks_and_kept_ones(core):
    scan, name = scan_core(core)
    assert name == "dies"
    assert scan.facts.method == "core"
    assert scan.facts.threads == 2
    lost = {each.size: each.definite for each in scan.sizes}
    assert lost[3336] == 8
    assert 5560 not in lost  # in a register
    assert 792 not in lost  # in thread-local storage
    assert 1016 not in lost  # in the list
    assert scan.share == 1.0


def test_threads_and_modules_are_known(core):
    with Core(core) as opened:
        assert len({thread.tid for thread in opened.threads}) == 2
        assert all(thread.sp and thread.pc and thread.tls for thread in opened.threads)
        assert any(Path(m.path).name == "dies" for m in opened.mappings)
        start = opened.segments[0].start
        assert opened.read(start, 4) == b"\x7fELF"
        assert opened.read(8, 8) == b""


def test_a_core_that_was_cut_off_calls_nothing_lost(core, tmp_path):
    data = core.read_bytes()
    short = tmp_path / "short"
    short.write_bytes(data[:-100])
    scan, _ = scan_core(short)
    assert scan.counts[Reachability.DEFINITELY_LOST] == 0
    assert any("cut off: 100 bytes" in note for note in scan.facts.notes)
    short.write_bytes(data[: len(data) // 2])
    with pytest.raises(TargetError, match="was cut off"):
        scan_core(short)


CUT = """
import os, sys
from leakscope.errors import TargetError
from leakscope.model.reachability import Reachability
from leakscope.scan import scan_core, untraced
original = untraced._scan
def cut(memory, *rest, **options):
    os.truncate(sys.argv[1], int(sys.argv[2]))
    return original(memory, *rest, **options)
untraced._scan = cut
try:
    scan, _ = scan_core(sys.argv[1])
    print(scan.counts[Reachability.DEFINITELY_LOST], *scan.facts.notes)
except TargetError as error:
    print(0, error)
"""


@pytest.mark.parametrize("part", [0.0, 0.3, 0.8, 0.99])
def test_a_core_that_is_cut_off_while_it_is_read(core, tmp_path, part):
    copy = tmp_path / "copy"
    copy.write_bytes(core.read_bytes())
    size = int(part * copy.stat().st_size)
    done = subprocess.run(
        [sys.executable, "-c", CUT, copy, str(size)],
        capture_output=True, text=True, check=False, timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0 ")
    assert part in {0.0, 0.3} or "was cut off while it was read" in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"hello" * 20, "is not a core file"),
        (lambda data: data[:40], "is not a core file: it has 40 bytes"),
        (lambda data: data[:70], "is a damaged core file"),
        (lambda data: data[:4] + b"\x01" + data[5:], "of another architecture"),
        (lambda data: data[:18] + b"\xf3\x00" + data[20:], "of another architecture"),
        (lambda data: data[:16] + b"\x03\x00" + data[18:], "an ELF file, but not a core file"),
        (lambda data: data[:56] + b"\xff\xff" + data[58:], "is a damaged core file"),
        (lambda data: data[:56] + b"\x00\x00" + data[58:], "it has no thread"),
    ],
)
def test_what_is_not_a_core_is_refused(core, tmp_path, change, message):
    other = tmp_path / "other"
    other.write_bytes(change(core.read_bytes()))
    with pytest.raises(TargetError, match=message):
        scan_core(other)


def test_places_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TargetError, match="not a regular file"):
        scan_core(tmp_path / "pipe")
    with pytest.raises(TargetError, match="No such file"):
        scan_core(tmp_path / "none")


def test_memory_that_is_claimed_and_not_there_costs_nothing(core, tmp_path):
    data = bytearray(core.read_bytes())
    table, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    starts = [struct.unpack_from("<Q", data, table + 56 * i + 16)[0] for i in range(count)]
    last = max(i for i, start in enumerate(starts) if start < 1 << 47)
    struct.pack_into("<Q", data, table + 56 * last + 40, 1 << 46)  # bytes in memory
    struct.pack_into("<I", data, table + 56 * last + 4, 6)
    (tmp_path / "big").write_bytes(data)
    began = time.monotonic()
    scan, _ = scan_core(tmp_path / "big")
    assert time.monotonic() - began < 20
    assert scan.counts[Reachability.DEFINITELY_LOST] == 0


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_an_error_or_an_answer(core, tmp_path, seed):
    generator = np.random.default_rng(seed)
    data = bytearray(core.read_bytes())
    reach = [len(data), 8192, 1 << 16][seed % 3]  # anywhere; the headers; the notes
    for _ in range(1 + seed % 20):
        at = int(generator.integers(0, reach - 8))
        data[at : at + 8] = generator.bytes(8)
    data = data[: len(data) if seed % 2 else int(generator.integers(64, len(data)))]
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data)
    began = time.monotonic()
    with contextlib.suppress(TargetError):
        scan, _ = scan_core(damaged)
        assert scan.blocks < 1_000_000
    assert time.monotonic() - began < 20
