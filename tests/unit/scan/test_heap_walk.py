# SPDX-License-Identifier: Apache-2.0
"""The heap of each allocator, walked from outside, is what the program says it holds."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest

from allocators import NAMES, library
from leakscope.errors import TargetError
from leakscope.model.reachability import Reachability
from leakscope.proc.maps import Mapping
from leakscope.scan import scan_untraced
from leakscope.scan.allocators import glibc, walk
from leakscope.target.frozen import Frozen

# Prints the address and size of each block it holds, from several arenas, then waits.
PROGRAM = r"""
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
enum { SLOTS = 3000, THREADS = 3 };
static char *slot[THREADS][SLOTS];
static size_t size[THREADS][SLOTS];
static pthread_barrier_t done;
static void *work(void *argument) {
  long id = (long)argument;
  unsigned seed = id * 77 + 1;
  for (int i = 0; i < 40000; i++) {
    seed = seed * 1103515245u + 12345u;
    unsigned k = (seed >> 8) % SLOTS;
    free(slot[id][k]);
    slot[id][k] = NULL;
    seed = seed * 1103515245u + 12345u;
    if ((seed >> 9) % 3) {
      size[id][k] = (seed >> 20) % 40 == 0 ? 200000 + (seed >> 12) % 100000 : (seed >> 12) % 700;
      slot[id][k] = malloc(size[id][k]);
      memset(slot[id][k], 0, malloc_usable_size(slot[id][k]));  // what free left points to others
    }
  }
  pthread_barrier_wait(&done);
  if (id) pause();
  return NULL;
}
int main(void) {
  pthread_barrier_init(&done, NULL, THREADS);
  pthread_t thread;
  for (long i = 1; i < THREADS; i++) pthread_create(&thread, NULL, work, (void *)i);
  work(NULL);
  static char *volatile lost;
  for (int i = 0; i < 25; i++) lost = calloc(1, 2345);
  printf("%p\n", (void *)0);
  for (int t = 0; t < THREADS; t++)
    for (int i = 0; i < SLOTS; i++)
      if (slot[t][i]) printf("%p %zu\n", (void *)slot[t][i], size[t][i]);
  puts("end");
  fflush(stdout);
  pause();
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    (folder / "walk.c").write_text(PROGRAM)
    command = ["gcc", "-O1", "-g", "-pthread", folder / "walk.c", "-o", folder / "walk"]
    subprocess.run(command, check=True)
    return folder / "walk"


@pytest.fixture(scope="module", params=["glibc", *NAMES])
def program(request, built):
    own = request.param == "glibc"
    extra = {} if own else {"LD_PRELOAD": str(library(request.param))}
    process = subprocess.Popen([built], stdout=subprocess.PIPE, text=True, env=os.environ | extra)
    truth = {}
    for line in process.stdout:
        if line == "end\n":
            break
        if " " in line:
            address, size = line.split()
            truth[int(address, 16)] = int(size)
    yield process.pid, truth, request.param.removeprefix("lib").removesuffix("_minimal")
    process.kill()
    process.communicate()


def test_every_block_is_found_and_no_free_one(program):
    pid, truth, name = program
    with Frozen(pid) as frozen:
        heap = walk(frozen)
    assert heap.allocator.startswith(name)
    assert heap.arenas >= 2
    starts = {int(start): int(size) for start, size in zip(heap.starts, heap.sizes, strict=True)}
    assert truth.keys() <= starts.keys()
    assert all(starts[address] >= size for address, size in truth.items())
    # The C library's own: tcaches, thread stacks' tables, stdout's buffer; and the lost ones.
    assert len(starts) - len(truth) <= 25 + 20
    assert heap.enumerated_share == 1.0
    total = heap.live_bytes + heap.free_bytes + heap.top_bytes + heap.overhead_bytes
    assert total == heap.mapped_bytes
    assert list(heap.regions) == sorted(heap.regions)
    assert np.all(heap.starts[1:] >= heap.starts[:-1] + heap.sizes[:-1])


def test_lost_blocks_of_an_untraced_process(program):
    pid, _, name = program
    scan = scan_untraced(pid)
    lost = {each.size: each.definite for each in scan.sizes}
    # glibc leaves what is too small for another block with the one before.
    sizes = {"glibc": range(2360, 2392), "jemalloc": [2560], "tcmalloc": [2560]}[name]
    count = sum(lost.pop(size, 0) for size in sizes)
    # tcmalloc has lost a block of its own, of which it may have a disguised pointer.
    own = int(name == "tcmalloc")
    # 25, and the last one is still in `lost`.
    assert count + scan.counts[Reachability.POSSIBLY_LOST] + lost.pop(8, 0) * own == 24 + own
    assert lost == {}
    assert scan.account.resident > 0
    assert scan.facts.pause_ms > 0


def test_where_the_arena_of_another_process_was_is_only_a_guess(program, monkeypatch):
    pid, _, name = program
    if name != "glibc":
        return
    with Frozen(pid) as frozen:
        found = walk(frozen)
        assert glibc._arena_places
        for libc, place in glibc._arena_places.items():
            monkeypatch.setitem(glibc._arena_places, libc, place - 4096)
        again = walk(frozen)
    assert np.array_equal(again.starts, found.starts)
    assert np.array_equal(again.sizes, found.sizes)


def test_the_process_goes_on(program):
    pid, *_ = program
    with Frozen(pid) as frozen:
        assert len(frozen.threads) == 3
        assert state(pid) == "t"
    assert state(pid) in "SR"


def test_an_error_inside_lets_the_process_go_on(program):
    pid, *_ = program
    with pytest.raises(KeyError), Frozen(pid):
        raise KeyError
    assert state(pid) in "SR"


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_no_such_process():
    with pytest.raises(TargetError, match="there is no process 4194304"), Frozen(4194304):
        pass


class Copy:
    """The memory of a process, which can be damaged."""

    def __init__(self, pid: int) -> None:
        with Frozen(pid) as frozen:
            self.mappings, self.threads = frozen.mappings, frozen.threads
            self.parts = {
                m.start: bytearray(frozen.read(m.start, m.end - m.start))
                for m in frozen.mappings
                if "w" in m.permissions or glibc._is_libc(m)
            }

    def read(self, address: int, size: int) -> bytes:
        for start, part in self.parts.items():
            if start <= address < start + len(part):
                return bytes(part[address - start : address - start + size])
        return b""


@pytest.mark.parametrize("seed", range(12))
def test_damage_is_bounded_and_said(program, seed):
    pid, _, name = program
    copy = Copy(pid)
    generator = np.random.default_rng(seed)
    if name == "glibc":
        parts = [copy.parts[next(m for m in copy.mappings if m.path == "[heap]").start]]
    else:
        parts = [part for part in copy.parts.values() if len(part) < 64 << 20]
    for part in parts:
        words = np.flatnonzero(np.frombuffer(part[: len(part) // 8 * 8], np.uint64))
        for at in generator.choice(words, min(50, len(words)), replace=False).tolist():
            part[8 * at : 8 * at + 8] = generator.bytes(8)
    found = walk(copy)
    if found is None:  # the root of its tree was hit
        assert name != "glibc"
        return
    assert len(found.starts) < 100_000
    assert found.enumerated_share <= 1.0
    if found.enumerated_share < 0.999:
        assert found.notes


@pytest.mark.parametrize("program", ["glibc"], indirect=True)
def test_a_size_of_nonsense_ends_the_walk_with_a_note(program):
    pid, truth, _ = program
    copy = Copy(pid)
    heap = next(m for m in copy.mappings if m.path == "[heap]")
    part = copy.parts[heap.start]
    block = sorted(address for address in truth if heap.start <= address < heap.end)[100]
    at = block - heap.start - 8
    part[at : at + 8] = (0x7777_0000_0001).to_bytes(8, "little")
    found = walk(copy)
    assert any("damaged at" in note for note in found.notes)
    assert found.enumerated_share < 0.999


def test_a_process_without_glibc_has_no_heap():
    class Nothing:
        threads = ()
        mappings = (Mapping(0x1000, 0x2000, "rw-p", 0, (0, 0), 0, "", deleted=False),)

        def read(self, address, size):
            return b""

    assert walk(Nothing()) is None
    assert os.getpid()


class Sparse:
    """Memory that is zero but for some words."""

    mappings = ()

    def __init__(self, words):
        self.words = words

    def read(self, address, size):
        raw = np.zeros((size + 7) // 8, np.uint64)
        for at, word in self.words.items():
            if address <= at < address + size:
                raw[(at - address) // 8] = word
        return raw.tobytes()[:size]


def test_chunks_larger_than_what_is_read_at_a_time():
    sizes = [64, 5 << 30, 32, 1 << 20, 2 << 20, 48]  # the fourth is free
    base, words, at = 0x10_0000_0000, {}, 0x10_0000_0000
    for number, size in enumerate(sizes):
        words[at + 8] = size | (number != 4)  # says whether the one before is in use
        at += size
    work = glibc._Walk(Sparse(words))
    work.runs.append(glibc._Run(base, at, at, "the heap"))
    work.runs.append(glibc._Run(base - 8192, base - 4096, base - 4096, "", mapped=True))
    starts, found, _ = glibc._chunks(work)
    ends = np.cumsum(sizes)
    used = [(base + int(end) - size + 16, size - 8) for size, end in zip(sizes, ends, strict=True)]
    del used[3]
    listed = list(zip(starts.tolist(), found.tolist(), strict=True))
    assert listed == [(base - 8192 + 16, 4096 - 16), *used]
    assert found.dtype == np.uint64
    assert work.free_bytes == (1 << 20) - 8
    assert (work.enumerated, work.chunks, work.notes) == (at - base, len(sizes), [])
