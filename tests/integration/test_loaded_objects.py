# SPDX-License-Identifier: Apache-2.0
"""Each frame is named by the object it lies in, however that object came into the program."""

import os
import subprocess
from pathlib import Path

import pytest

from leakscope.recording import live

LIBRARY = """
#ifdef BEFORE
int before(int n) { return n * n + 1; }
#endif
void *keep;
int g(void *(*m)(unsigned long), unsigned long n) { keep = m(n); return 1; }
"""
PROGRAM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
typedef int function(void *(*)(unsigned long), unsigned long);
static void need(int ok, const char *what) { if (!ok) { fprintf(stderr, "%s: %s\n", what, dlerror()); exit(3); } }
static void call(void *library, unsigned long n) {
  need(library != NULL, "open");
  function *g = (function *)dlsym(library, "g");
  for (int i = 0; i < 3; i++) g(malloc, n);
}
/* As a loader of somebody else's would: no list knows it. */
static void by_hand(const char *path, unsigned long offset, unsigned long n) {
  int fd = open(path, O_RDONLY);
  Elf64_Ehdr ehdr;
  Elf64_Phdr ph[16];
  pread(fd, &ehdr, sizeof ehdr, 0);
  pread(fd, ph, sizeof ph, ehdr.e_phoff);
  char *base = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < ehdr.e_phnum; i++)
    if (ph[i].p_type == PT_LOAD && !(ph[i].p_flags & PF_W))
      mmap(base + (ph[i].p_vaddr & ~4095ul), ph[i].p_filesz + (ph[i].p_vaddr & 4095),
           (ph[i].p_flags & PF_X ? PROT_EXEC : 0) | PROT_READ, MAP_PRIVATE | MAP_FIXED, fd,
           ph[i].p_offset & ~4095ul);
  mmap(base + 65536, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
  close(fd);
  for (int i = 0; i < 3; i++) ((function *)(base + offset))(malloc, n);
}
int main(int c, char **v) {
  chdir("sub");
  call(dlopen("./relative.so", RTLD_NOW), 1001);
  chdir("..");
  void *gone = dlopen("./deleted.so", RTLD_NOW);
  unlink("deleted.so");
  call(gone, 1002);
#ifdef __GLIBC__
  call(dlmopen(LM_ID_NEWLM, "./namespace.so", RTLD_NOW), 1003);
  void *first = dlmopen(LM_ID_NEWLM, "./other.so", RTLD_NOW);
  call(dlopen("./later.so", RTLD_NOW), 1004);
  call(first, 1005);
#endif
  /* Closed behind our back by turns: the next one comes to lie at the same place. */
  int (*closes)(void *) = (int (*)(void *))dlsym(dlopen("libc.so.6", RTLD_NOW), "dlclose");
  for (int i = 0; i < 6 && closes; i++) {
    char name[] = "./turn0.so";
    name[6] += i;
    void *library = dlopen(name, RTLD_NOW);
    call(library, 1010 + i);
    if (i & 1) dlclose(library); else closes(library);
  }
  by_hand("by_hand.so", strtoul(v[1], NULL, 16), 1006);
  raise(SIGKILL);
}
"""


def build(folder: Path, compiler: str) -> str:
    """Build the program and its libraries; returns the offset of g in them, in hex."""
    (folder / "g.c").write_text(LIBRARY)
    (folder / "p.c").write_text(PROGRAM)
    (folder / "sub").mkdir()
    shared = ["-shared", "-fPIC", "-O1", "-nostdlib", "-funwind-tables"]
    names = ["sub/relative", "deleted", "namespace", "other", "later"]
    for name in [*names, *(f"turn{i}" for i in range(6))]:
        # Alike in all but their build-id and where g lies.
        build_id = f"-Wl,--build-id=0x{name.encode().hex():0<40.40}"
        before = [] if name[-1] not in "135" else ["-DBEFORE"]
        command = ["gcc", *shared, build_id, *before, "g.c", "-o", f"{name}.so"]
        subprocess.run(command, cwd=folder, check=True)
    # No relocations are made there: it may not write.
    (folder / "h.c").write_text(LIBRARY.replace("keep = m(n)", "m(n)"))
    subprocess.run(["gcc", *shared, "h.c", "-o", "by_hand.so"], cwd=folder, check=True)
    command = [compiler, "-O1", "-w", "-fno-builtin", "p.c", "-o", "p", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    symbols = subprocess.run(
        ["nm", "-D", "by_hand.so"], cwd=folder, check=True, capture_output=True, text=True
    )
    return next(line.split()[0] for line in symbols.stdout.splitlines() if line.endswith(" g"))


@pytest.mark.parametrize("compiler", ["gcc", pytest.param("musl-gcc", marks=pytest.mark.musl)])
def test_frames_are_named_by_their_object(agent, tmp_path, compiler):
    offset = build(tmp_path, compiler)
    folder = tmp_path / "live"
    folder.mkdir(mode=0o700)
    environment = os.environ | {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(folder)}
    done = subprocess.run(
        [tmp_path / "p", offset], cwd=tmp_path, env=environment, check=False, capture_output=True
    )
    assert done.returncode == -9, done.stderr
    (path,) = folder.glob("*.live")
    recording = live.read(path)
    found: dict[int, list[str]] = {}
    for block in recording.blocks:
        if 1000 < block["size"] < 1100:
            frame = recording.stack(int(block["site"]))[0]
            name = "" if frame.module is None else recording.modules[frame.module].path
            found.setdefault(int(block["size"]), []).append(name)
    names = {1001: "sub/relative.so", 1002: "deleted.so", 1006: "by_hand.so"}
    if compiler == "gcc":
        names |= {1003: "namespace.so", 1004: "later.so", 1005: "other.so"}
    names |= {1010 + i: f"turn{i}.so" for i in range(6)}
    assert found == {size: [f"{tmp_path}/{name}"] * 3 for size, name in names.items()}
    assert any(module.path == f"{tmp_path}/p" for module in recording.modules)


def test_a_forked_child_knows_what_was_unloaded_and_loaded_before_it(agent, tmp_path):
    source = Path(__file__).parents[1] / "programs/harm/children.c"
    subprocess.run(["gcc", "-g", "-w", source, "-o", tmp_path / "children"], check=True)
    libraries = []
    for name in ("first", "second"):
        text = f"void *malloc(unsigned long); void *keep_{name};\n"
        text += f"void *{name}(int n) {{ return keep_{name} = malloc(n); }}\n"
        text += f"void *lose(int n) {{ void *p = {name}(n); return p; }}\n"
        (tmp_path / f"{name}.c").write_text(text)
        libraries.append(f"./{name}.so")
        command = ["gcc", "-g", "-shared", "-fPIC", f"{name}.c", "-o", libraries[-1]]
        subprocess.run(command, cwd=tmp_path, check=True)
    folder = tmp_path / "live"
    folder.mkdir()

    subprocess.run(
        ["./children", *libraries],
        cwd=tmp_path,
        env=dict(os.environ) | {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(folder)},
        check=True,
        timeout=100,
        stdout=subprocess.DEVNULL,
    )

    children = 0
    for path in folder.glob("*.live"):
        recording = live.read(path)
        if not recording.process.forked_from:
            continue
        children += 1
        table = recording.sites
        (site,) = (i for i in range(len(table)) if table["live_bytes"][i] == 333)
        modules = []
        node = int(table["node"][site])
        while node:
            module = recording.modules[int(recording.nodes["module"][node]) - 1]
            assert not module.unloaded
            modules.append(Path(module.path).name)
            node = int(recording.nodes["parent"][node])
        assert modules[:3] == ["second.so", "second.so", "children"], modules
    assert children == 40
