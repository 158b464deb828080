# SPDX-License-Identifier: Apache-2.0
"""Each block's stack is the one that the C library's unwinder sees at the same moment.

The program is made up of random functions: with and without frame pointer, with frames whose size
changes from call to call, with very large frames, with the frame pointer's register full of other
data, and with several calls of one function from another, so that stacks begin alike and differ further out. It takes
some hundred ways down again and again in random order, the case for which stacks are kept instead
of being unwound.
"""

import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest

from leakscope.recording import live
from leakscope.recording.own import own_ranges

FUNCTIONS = 150
HEAD = r"""
#define _GNU_SOURCE
#include <alloca.h>
#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define NOINLINE __attribute__((noinline, noclone))
#define KEEP(x) __asm__ volatile("" : : "r"(x) : "memory")
struct entry { uint64_t address, count; void *pc[120]; };
static __thread uint64_t way, noise;
static __thread FILE *out;
static __thread int wanted; /* blocks of this turn whose stack is written down */
static inline unsigned turn(unsigned n) {
  way = way * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)(way >> 33) % n;
}
static inline unsigned jitter(unsigned n) {
  noise = noise * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)(noise >> 33) % n;
}
static NOINLINE void note(void *block, void **pc, int count) {
  struct entry entry = {.address = (uintptr_t)block, .count = (uint64_t)count};
  memcpy(entry.pc, pc, (size_t)count * sizeof *pc);
  fwrite(&entry, 16 + (size_t)count * sizeof *pc, 1, out);
}
typedef void fn(int left);
"""
WRAPPER = r"""
static NOINLINE void *wrap%(n)d(size_t size) {
  void *pc[120];
  void *block = %(call)s;
  int count = backtrace(pc, 120);
  if (wanted) note(block, pc, count);
  else { %(free)s; }
  KEEP(pc);
  return block;
}
"""
TAIL = r"""
static int first_bias(struct dl_phdr_info *info, size_t size, void *context) {
  (void)size;
  *(uint64_t *)context = info->dlpi_addr;
  return 1;
}
static void *work(void *argument) {
  int number = (int)(intptr_t)argument;
  char name[4096];
  snprintf(name, sizeof name, "%s/%d", getenv("ORACLE"), number);
  out = fopen(name, "w");
  setvbuf(out, malloc(1 << 16), _IOFBF, 1 << 16);
  noise = (uint64_t)number + 1;
  for (int i = 0; i < TURNS; i++) {
    unsigned which = jitter(WAYS);
    way = which * 7919u + 1;
    wanted = jitter(4) == 0;
    f0(5 + (int)(which % 40));
  }
  fclose(out);
  return NULL;
}
int main(void) {
  void *pc[4];
  backtrace(pc, 4); /* loads its library */
  uint64_t bias = 0;
  dl_iterate_phdr(first_bias, &bias);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 64 << 20);
  pthread_t threads[2];
  for (intptr_t i = 0; i < 2; i++)
    pthread_create(&threads[i], &attributes, work, (void *)i);
  for (int i = 0; i < 2; i++)
    pthread_join(threads[i], NULL);
  printf("%lu\n", (unsigned long)bias);
  fflush(stdout);
  raise(SIGKILL); /* nothing of this is freed */
}
"""
CALLS = ["malloc(size)", "calloc(size, 1)", "realloc(NULL, size)", "aligned_alloc(32, size)"]


def program(seed: int, turns: int, ways: int) -> str:
    """Return C code; the same for the same seed."""
    pick = random.Random(seed)
    text = [HEAD]
    free = "free(block), block = NULL"
    text += [WRAPPER % {"n": n, "call": CALLS[n], "free": free} for n in range(4)]
    text += [  # wrappers of wrappers: stacks that begin alike for three frames
        f"static NOINLINE void *wrap{n}(size_t size) {{ void *p = wrap{n % 4}(size + 1);"
        " KEEP(p); return p; }\n"
        for n in range(4, 8)
    ]
    text += [f"static fn f{n};\n" for n in range(FUNCTIONS)]
    for n in range(FUNCTIONS):
        kind = "far" if n % 15 == 0 else pick.choice(["plain", "alloca", "pointer", "register"])
        frame = '__attribute__((optimize("no-omit-frame-pointer")))' if kind == "pointer" else ""
        body = [f"static NOINLINE {frame} void f{n}(int left) {{"]
        body.append(f"volatile uint64_t body[{pick.randrange(1, 24)}]; body[0] = {n};")
        if kind == "alloca":
            body.append("volatile char *more = alloca(16 + 16 * jitter(3)); more[0] = 1;")
        if kind == "far":
            body.append("volatile char much[300000]; much[0] = 1;")
        if kind == "register":
            body.append(
                '#if defined __x86_64__ && defined __OPTIMIZE__\n__asm__ volatile("mov %0, %%rbp" : : "r"(noise | 1) : "rbp");\n#endif\n'
            )
        body.append("if (left <= 0) {")
        body.append("switch (turn(4)) {")
        for case in range(4):
            size = pick.randrange(16, 400)
            body.append(
                f"case {case}: {{ void *p = wrap{pick.randrange(8)}({size}); KEEP(p); break; }}"
            )
        body.append("}} else switch (turn(3)) {")
        same = pick.randrange(FUNCTIONS)
        for case in range(3):  # two calls of one function, one of another
            to = same if case < 2 else pick.randrange(FUNCTIONS)
            body.append(f"case {case}: f{to}(left - 1); body[0] += {case}; break;")
        body.append(f"}} KEEP(&body); if (body[0] == {1 << 30}) abort(); }}\n")
        text.append("\n".join(body))
    text.append(TAIL.replace("TURNS", str(turns)).replace("WAYS", str(ways)))
    return "".join(text)


def oracle(path: Path, bias: int, low: int, high: int) -> dict[int, list[int]]:
    """Return the stack of each block, as offsets into the program, the allocating frame left out."""
    words = np.fromfile(path, dtype="<u8")
    found: dict[int, list[int]] = {}
    at = 0
    while at < len(words):
        address, count = int(words[at]), int(words[at + 1])
        pcs = [int(pc) for pc in words[at + 3 : at + 2 + count]]
        found[address] = [pc - bias for pc in pcs if low <= pc < high]
        at += 2 + count
    return found


@pytest.mark.parametrize(("seed", "ways"), [(1, 60), (2, 700), (3, 5000)])
@pytest.mark.parametrize("flags", ["-O2 -fomit-frame-pointer", "-O0"])
def test_stacks_are_those_of_another_unwinder(agent, tmp_path, seed, ways, flags):
    (tmp_path / "p.c").write_text(program(seed, 12000, ways))
    subprocess.run(
        ["gcc", *flags.split(), "-g", "-w", "-pthread", tmp_path / "p.c", "-o", tmp_path / "p"],
        check=True,
    )
    folder = tmp_path / "live"
    folder.mkdir(mode=0o700)
    environment = os.environ | {
        "LD_PRELOAD": str(agent),
        "LEAKSCOPE_DIR": str(folder),
        "ORACLE": str(tmp_path),
    }
    done = subprocess.run(
        [tmp_path / "p"], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    bias = int(done.stdout)

    (path,) = folder.glob("*.live")
    recording = live.read(path)
    main = next(i for i, m in enumerate(recording.modules) if m.path == str(tmp_path / "p"))
    low, high = recording.modules[main].start, recording.modules[main].end
    expected = {}
    for thread in ("0", "1"):
        expected |= oracle(tmp_path / thread, bias, low, high)
    stacks = {
        site: [a.offset for a in recording.stack(site) if a.module == main][1:]
        for site in range(len(recording.sites))
    }
    blocks = {int(b["address"]): int(b["site"]) for b in recording.blocks}
    wrong = [a for a, stack in expected.items() if stacks[blocks[a]] != stack]
    assert len(expected) > 4000
    assert len({tuple(s) for s in expected.values()}) > ways / 4
    assert not wrong, (len(wrong), stacks[blocks[wrong[0]]], expected[wrong[0]])


# The function without unwind information is left by the frame pointer: from code that nobody
# knows, that leads nowhere; from C, at the same stack pointer, to all of the callers.
LOST = r"""
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#define NOINLINE __attribute__((noinline, noclone))
void *nocfi(size_t);
__asm__(".text\n.skip 4096, 0x90\n.globl nocfi\n.type nocfi, @function\n"
        "nocfi: subq $8, %rsp\n call malloc@PLT\n addq $8, %rsp\n ret\n.size nocfi, . - nocfi\n");
static size_t size;
static void *volatile kept;
NOINLINE static void allocate(void) { kept = nocfi(size); __asm__ volatile("" : : : "memory"); }
NOINLINE __attribute__((optimize("omit-frame-pointer"))) static void from_c(void) { allocate(); __asm__ volatile("" : : : "memory"); }
NOINLINE static void other(void) { free(malloc(9)); __asm__ volatile("" : : : "memory"); }
int main(void) {
  unsigned char code[] = {0x48, 0x83, 0xec, 8, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0,
                          0xff, 0xd0, 0x48, 0x83, 0xc4, 8, 0xc3};
  void *page = mmap(NULL, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *function = allocate;
  memcpy(code + 6, &function, 8);
  memcpy(page, code, sizeof code);
  void (*volatile ways[2])(void) = {(void (*)(void))page, from_c};
  for (int i = 0; i < 1000; i++) {
    size = i & 1 ? 5555 : 5556;
    other();
    ways[i & 1]();
  }
  raise(SIGKILL);
}
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the function is in its language")
def test_a_stack_that_was_lost_is_not_taken_for_a_whole_one(agent, tmp_path):
    (tmp_path / "lost.c").write_text(LOST)
    command = ["gcc", "-O2", "-fno-omit-frame-pointer", "-w", tmp_path / "lost.c"]
    subprocess.run([*command, "-o", tmp_path / "lost"], check=True)
    folder = tmp_path / "live"
    folder.mkdir(mode=0o700)
    environment = os.environ | {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(folder)}
    subprocess.run([tmp_path / "lost"], env=environment, check=False)
    (path,) = folder.glob("*.live")
    recording = live.read(path)
    depths = [
        len(recording.stack(int(block["site"])))
        for block in recording.blocks
        if block["size"] == 5555
    ]
    assert len(depths) == 500
    assert min(depths) >= 4  # main, its two callers in the C library and this one's, at least


def test_a_scan_is_told_of_all_memory_that_many_threads_need(agent, tmp_path):
    """Stale copies of the program's stacks in it would hide leaks."""
    threads = Path(__file__).parents[1] / "programs" / "threads_200.c"
    subprocess.run(["gcc", "-O2", "-pthread", threads, "-o", tmp_path / "threads"], check=True)
    folder = tmp_path / "live"
    folder.mkdir(mode=0o700)
    environment = os.environ | {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(folder)}
    subprocess.run([tmp_path / "threads"], env=environment, check=True, stdout=subprocess.DEVNULL)
    (path,) = folder.glob("*.live")
    assert len(own_ranges(path)) < 48  # there is room for 64
