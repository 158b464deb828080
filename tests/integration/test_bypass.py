# SPDX-License-Identifier: Apache-2.0
"""Allocations and frees that the loader lets past a preloaded library are seen all the same."""

import subprocess
import sys
from pathlib import Path

import pytest

from integration.conftest import describe, place

CASES = Path(__file__).parents[1] / "programs" / "cases"
LEVELS = [("-O0",), ("-O2", "-fno-builtin-malloc")]


def sh(folder, *command):
    subprocess.run([str(word) for word in command], cwd=folder, check=True)


@pytest.mark.parametrize("level", LEVELS, ids=["O0", "O2"])
@pytest.mark.parametrize("sealed", [(), ("-Wl,-z,now,-z,relro",)], ids=["lazy", "relro"])
def test_a_plugin_that_binds_to_the_c_library_first(trace, tmp_path, level, sealed):
    case = CASES / "deepbind"
    sh(
        tmp_path,
        "gcc",
        "-g",
        *level,
        *sealed,
        "-shared",
        "-fPIC",
        case / "plugin.c",
        "-o",
        "plugin.so",
    )
    sh(tmp_path, "gcc", "-g", *level, case / "host.c", "-o", "host", "-ldl")
    traced = trace([tmp_path / "host", "deep"], cwd=tmp_path)
    assert traced.returncode == 1, describe(traced)
    # With optimisation the plugin jumps to malloc: the frame that returns is its caller's.
    line = ("plugin.c", 7) if level == ("-O0",) else ("host.c", 19)
    assert [(place(f), f["live_count"], f["live_bytes"]) for f in traced.leaks] == [
        (line, 100, 33_300)
    ]
    assert traced.program["process"]["exit_status"] == 7
    assert traced.program["coverage"]["dropped"].get("duplicate", 0) == 0


def test_functions_of_the_c_library_asked_for_by_handle(trace, tmp_path):
    case = CASES / "ctypes_free"
    sh(tmp_path, "gcc", "-g", "-shared", "-fPIC", case / "make.c", "-o", "libmake.so")
    python = Path(sys.executable).resolve()  # the venv's is a link that may start another
    traced = trace([python, "-I", case / "use.py"], cwd=tmp_path)
    assert "python done" in traced.stdout, describe(traced)
    assert not any(place(f) == ("make.c", 5) for f in traced.leaks), describe(traced)
    lost = [f for f in traced.leaks if f["live_bytes"] == 300 * 4321]
    assert [f["live_count"] for f in lost] == [300], describe(traced)


CALLER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
int open_sibling(void) {          /* found by the RUNPATH of this library, not of the program */
  void *h = dlopen("libsibling.so", RTLD_NOW);
  return h ? ((int (*)(void))dlsym(h, "sibling"))() : -1;
}
int next_of_me(void) {            /* the definition after this library */
  int (*f)(void) = (int (*)(void))dlsym(RTLD_NEXT, "twice_defined");
  return f ? f() : -1;
}
int twice_defined(void) { return 1; }
"""
PROGRAM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
int open_sibling(void), next_of_me(void), twice_defined(void);
int main(void) {
  void *libc = dlopen("libc.so.6", RTLD_NOW);
  void *(*make)(size_t) = (void *(*)(size_t))dlsym(libc, "malloc");
  void *(*other)(size_t) = (void *(*)(size_t))dlvsym(libc, "malloc", "GLIBC_2.2.5");
  char *p = make(10), *q = other(20);
  free(p); free(q);
  void *none = dlsym(RTLD_DEFAULT, "no such symbol");
  const char *said = dlerror();
  printf("%d %d %d %d %d %s\\n", open_sibling(), next_of_me(), twice_defined(), make == malloc,
         none == NULL, said ? "error kept" : "error lost");
}
"""


def test_who_asks_the_loader_is_not_mistaken(trace, tmp_path):
    (tmp_path / "dir").mkdir()
    for name, text in (("caller", CALLER), ("program", PROGRAM)):
        (tmp_path / f"{name}.c").write_text(text)
    (tmp_path / "sibling.c").write_text("int sibling(void) { return 42; }")
    (tmp_path / "after.c").write_text("int twice_defined(void) { return 2; }")
    shared = ("gcc", "-shared", "-fPIC")
    sh(tmp_path, *shared, "sibling.c", "-o", "dir/libsibling.so")
    sh(tmp_path, *shared, "after.c", "-o", "libafter.so")
    path = f"-Wl,-rpath,{tmp_path}/dir"
    sh(tmp_path, *shared, "caller.c", "-o", "libcaller.so", path, "-Wl,--enable-new-dtags", "-ldl")
    own = f"-Wl,-rpath,{tmp_path}"
    libraries = ("-Wl,--no-as-needed", "-lcaller", "-lafter", "-ldl")
    sh(tmp_path, "gcc", "program.c", "-o", "program", "-L.", own, *libraries)
    traced = trace([tmp_path / "program"])
    assert traced.stdout == "42 2 1 1 1 error kept\n", describe(traced)
    assert traced.leaks == []


OWN = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
static void *(*under)(size_t);
static void (*under_free)(void *);
static __thread int inside;
static char early[65536];
static size_t used;
void *malloc(size_t n) {
  if (!under && !inside) {
    inside = 1;
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    under_free = (void (*)(void *))dlsym(libc, "free");
    under = (void *(*)(size_t))dlsym(libc, "malloc");
    inside = 0;
  }
  if (!under) { void *p = early + used; used += (n + 15) & ~15UL; return p; }
  return under(n);
}
void free(void *p) {
  if ((char *)p >= early && (char *)p < early + sizeof early) return;
  if (under_free) under_free(p);
}
"""


def test_a_malloc_of_the_programs_own_that_asks_for_the_c_librarys(trace, tmp_path):
    (tmp_path / "own.c").write_text(OWN)
    (tmp_path / "program.c").write_text(
        '#include <stdio.h>\n#include <stdlib.h>\nint main(void) { free(malloc(9)); puts("done"); }'
    )
    sh(tmp_path, "gcc", "-shared", "-fPIC", "own.c", "-o", "libown.so", "-ldl")
    sh(
        tmp_path,
        "gcc",
        "-fno-builtin",
        "program.c",
        "-o",
        "program",
        "-L.",
        f"-Wl,-rpath,{tmp_path}",
        "-Wl,--no-as-needed",
        "-lown",
    )
    traced = trace([tmp_path / "program"])
    assert traced.stdout == "done\n"


PAST = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
void *__libc_malloc(size_t);
void __libc_free(void *);
__attribute__((noinline)) static void made_here(void) {
  for (int i = 0; i < 200; i++) { char *p = malloc(300 + i * 40); memset(p, 1, 300); __libc_free(p); }
  for (int i = 0; i < 40; i++) __libc_free(malloc(200000));
}
__attribute__((noinline)) static void lost_there(void) {
  for (int i = 0; i < 50; i++) { char *volatile p = __libc_malloc(77); memset(p, 2, 77); p = 0; }
}
__attribute__((noinline)) static void wipe(void) { volatile char b[8192]; memset((void *)b, 0, sizeof b); }
int main(void) { char *kept = malloc(10); made_here(); lost_there(); wipe(); puts("done"); free(kept); }
"""


@pytest.mark.parametrize("level", LEVELS, ids=["O0", "O2"])
def test_the_allocators_own_state_tells_what_went_past_the_hooks(trace, tmp_path, level):
    (tmp_path / "past.c").write_text(PAST)
    sh(tmp_path, "gcc", "-g", *level, "past.c", "-o", "past")
    traced = trace([tmp_path / "past"])
    assert traced.returncode == 1, describe(traced)
    (finding,) = traced.leaks
    assert (place(finding), finding["lost_count"]) == (None, 50), describe(traced)
    assert 50 * 77 <= finding["lost_bytes"] <= 50 * 96
    assert not any(
        f["live_bytes"] and f["source"] and f["source"]["function"] == "made_here"
        for f in traced.findings
    )
    notes = " ".join(traced.program["scan"]["notes"])
    assert "were freed by a way past the agent" in notes
    assert "50 lost blocks" in notes


APART = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
  void *object = dlmopen(LM_ID_NEWLM, "./apart.so", RTLD_NOW);
  void *(*make)(int) = (void *(*)(int))dlsym(object, "make");
  for (int i = 0; i < 100; i++)
    make(321);
  puts("done");
}
"""


def test_a_c_library_in_a_namespace_of_its_own_is_told_of(trace, tmp_path):
    (tmp_path / "main.c").write_text(APART)
    (tmp_path / "apart.c").write_text(
        "#include <stdlib.h>\nvoid *make(int n) { return malloc(n); }\n"
    )
    sh(tmp_path, "gcc", "-g", "-shared", "-fPIC", "apart.c", "-o", "apart.so")
    sh(tmp_path, "gcc", "-g", "main.c", "-o", "main")
    traced = trace(["./main"], cwd=tmp_path)
    assert traced.stdout == "done\n", describe(traced)
    assert "namespace" in traced.program["coverage"]["troubles"], describe(traced)
