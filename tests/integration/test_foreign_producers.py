# SPDX-License-Identifier: Apache-2.0
"""Tools of Debian's packages, run on one program: what they write is read as they mean it."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from leakscope._analysis import analyse
from leakscope.errors import RecordingError
from leakscope.formats import read_foreign, read_tables

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


@pytest.mark.parametrize("option", ["-pie", "-no-pie"])
def test_mtrace(folder, option):
    program = folder / f"traced{option}"
    subprocess.run(["gcc", "-g", "-O0", option, "-o", program, folder / "p.c"], check=True)
    library = "libc_malloc_debug.so.0"
    run(folder, program, LD_PRELOAD=library, MALLOC_TRACE=str(folder / "log"))
    (recording,) = read_foreign(folder / "log")
    assert int(recording.sites["live_bytes"].sum()) == 307
    assert recording.coverage.free_events == 1
    heaviest = analyse(recording, debuginfod=False).findings[0].stack[0]
    assert (heaviest.function, Path(heaviest.file).name) == ("lose", "p.c")


def held(recording):
    return int(recording.sites["live_bytes"].sum()), int(recording.sites["live_count"].sum())


def test_heaptrack(folder):
    run(folder, "heaptrack", "-o", str(folder / "ht"), "./plain")
    (path,) = folder.glob("ht.*")
    (recording,) = read_foreign(path)
    printed = subprocess.run(
        ["heaptrack_print", path], check=True, capture_output=True, text=True
    ).stdout
    calls = int(re.search(r"calls to allocation functions: (\d+)", printed)[1])
    assert recording.coverage.alloc_events == calls
    assert held(recording)[0] >= 307


@pytest.mark.parametrize("tool", ["massif", "dhat", "callgrind"])
def test_other_tools_of_valgrind(folder, tool):
    out = folder / f"{tool}.out"
    run(folder, "valgrind", f"--tool={tool}", f"--{tool}-out-file={out}", "./plain")
    if tool == "callgrind":
        with pytest.raises(RecordingError, match="callgrind"):
            read_foreign(out)
        return
    (recording,) = read_foreign(out)
    assert held(recording)[0] in {307, 316}  # massif's last snapshot can be before the last free


def test_valgrinds_trees(folder):
    """They hold memory, though they are of callgrind's format."""
    options = ["--leak-check=full", "--xtree-leak=yes", "--xtree-memory=full"]
    files = ["--xtree-leak-file=leak.kcg", "--xtree-memory-file=memory.kcg"]
    log = run(folder, "valgrind", *options, *files, "./plain")
    (told,), (tree,) = read_foreign(log), read_foreign(folder / "leak.kcg")
    names = ("definite", "indirect", "possible", "reachable")
    for column in [f"{name}_{what}" for name in names for what in ("bytes", "count")]:
        assert tree.site_reach[column].sum() == told.site_reach[column].sum()
    leak = next(f for f in analyse(tree, debuginfod=False).findings if f.lost_count == 3)
    assert [(f.function, f.line) for f in leak.stack[:1]] == [("lose", 7)]
    (memory,) = read_foreign(folder / "memory.kcg")
    assert int(memory.sites["live_bytes"].sum()) == int(told.sites["live_bytes"].sum())
    assert int(memory.sites["allocs"].sum()) == told.coverage.alloc_events
    assert "no_leak_check" in memory.coverage.troubles


@pytest.mark.parametrize("tool", ["drd", "none", "helgrind"])
def test_valgrinds_tools_that_look_for_no_leaks_are_named(folder, tool):
    (recording,) = read_foreign(run(folder, "valgrind", f"--tool={tool}", "./plain"))
    assert any("memcheck" in note and tool in note for note in recording.coverage.notes)


def test_valgrind_quiet(folder):
    (recording,) = read_foreign(run(folder, "valgrind", "-q", "--leak-check=full", "./plain"))
    assert lost(recording)[0] >= 200
    assert any("(-q)" in note for note in recording.coverage.notes)
    error = "==12== Invalid read of size 4\n==12==    at 0x1093DF: main (a.c:18)\n==12== \n"
    (folder / "quiet").write_text(error)
    (recording,) = read_foreign(folder / "quiet")
    assert recording.site_reach is None
    assert [each.kind for each in recording.errors] == ["invalid read"]


@pytest.mark.parametrize("mode", ["normal", "draconian"])
def test_gperftools_heap_checker(folder, mode):
    tcmalloc = "libtcmalloc.so.4"
    path = run(
        folder, "./plain", LD_PRELOAD=tcmalloc, HEAPCHECK=mode, HEAP_CHECK_DUMP_DIRECTORY="."
    )
    (recording,) = read_foreign(path)
    told = re.search(r"detected leaks of (\d+) bytes in (\d+) objects", path.read_text())
    if mode == "normal":
        assert lost(recording) == (int(told[1]), int(told[2]))
        assert lost(recording)[0] >= 200
    else:
        assert recording.site_reach is None
        assert int(recording.sites["live_bytes"].sum()) == int(told[1])


def test_electric_fence(folder):
    (folder / "bad.c").write_text(
        "#include <stdlib.h>\nint main(void) { char *p = malloc(8); free(p + 4); return 0; }\n"
    )
    subprocess.run(
        ["gcc", "-w", "-g", "-o", folder / "bad", folder / "bad.c", "-lefence"], check=True
    )
    (recording,) = read_foreign(run(folder, "./bad"))
    assert [error.kind for error in recording.errors] == ["invalid free"]


def test_dmalloc(folder):
    text = PROGRAM.replace("#include <stdlib.h>", "#include <stdlib.h>\n#include <dmalloc.h>")
    (folder / "dm.c").write_text(text)
    command = ["gcc", "-w", "-g", "-DDMALLOC", "-o", folder / "dm", folder / "dm.c", "-ldmalloc"]
    subprocess.run(command, check=True)
    settings = f"debug=0x4f48d03,log={folder}/dm.log"
    run(folder, "./dm", DMALLOC_OPTIONS=settings)
    (recording,) = read_foreign(folder / "dm.log")
    assert held(recording) == (307, 4)


def test_leaktracer(folder):
    (folder / "lt.cc").write_text("int main() { for (int i = 0; i < 3; i++) new int[10]; }\n")
    subprocess.run(["g++", "-g", "-O0", "-o", folder / "lt", folder / "lt.cc"], check=True)
    run(folder, "LeakCheck", "./lt")
    (recording,) = read_foreign(folder / "leak.out")
    assert held(recording) == (120, 3)


def test_jemalloc(folder):
    prefix = f"prof:true,lg_prof_sample:0,prof_final:true,prof_prefix:{folder}/je"
    library = "libjemalloc.so.2"
    run(folder, "./plain", LD_PRELOAD=library, MALLOC_CONF=prefix)
    (path,) = folder.glob("je*.heap")
    (recording,) = read_foreign(path)
    assert held(recording)[0] >= 307


def test_javas_tables(folder):
    (folder / "Sleeps.java").write_text(
        "public class Sleeps { public static void main(String[] a) throws Exception {"
        ' System.out.println("up"); Thread.sleep(60000); } }\n'
    )
    java = subprocess.Popen(
        ["java", "-Xshare:auto", "-Xmx64m", "-XX:+UseSerialGC", "-XX:NativeMemoryTracking=summary", "Sleeps.java"],
        cwd=folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert java.stdout.readline() == "up\n"
        for command in ("GC.class_histogram", "VM.native_memory"):
            done = subprocess.run(["jcmd", str(java.pid), command], check=True, capture_output=True)
            (folder / command).write_bytes(done.stdout)
    finally:
        java.kill()
        java.communicate()
    (classes,) = read_tables(folder / "GC.class_histogram")
    assert classes.total == sum(row.bytes for row in classes.rows)
    assert any(row.name == "java.lang.String" for row in classes.rows)
    (native,) = read_tables(folder / "VM.native_memory")
    assert native.subject.pid == java.pid
    assert native.total == sum(row.bytes for row in native.rows)


@pytest.mark.parametrize(
    "command",
    [["free"], ["free", "-hw"], ["free", "-s", "0.1", "-c", "3"], ["vmstat", "1", "2"], ["vmstat", "-wt", "1", "2"],
     ["pmap", "1"], ["pmap", "-x", "1"], ["pmap", "-X", "1"], ["pmap", "-XX", "1"], ["pmap", "-d", "1"],
     ["cat", "/proc/self/smaps"], ["cat", "/proc/self/maps"], ["cat", "/proc/self/smaps_rollup"],
     ["cat", "/proc/meminfo"], ["cat", "/proc/self/status"], ["cat", "/proc/buddyinfo"]],
)  # fmt: skip
def test_what_linux_and_procps_print(command, tmp_path):
    if command[0] == "pmap":
        command = [*command[:-1], str(os.getpid())]
    done = subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "saved").write_bytes(done.stdout)
    looks = read_tables(tmp_path / "saved")
    assert len(looks) == (3 if "-s" in command else 1)
    assert looks[0].measures
    assert not any("total is" in note for one in looks for note in one.notes)


def test_tables_that_root_may_read(tmp_path):
    for name in ("slabinfo", "vmallocinfo"):
        path = tmp_path / name
        try:
            path.write_bytes(Path(f"/proc/{name}").read_bytes())
        except PermissionError:
            continue
        (table,) = read_tables(path)
        assert len(table.rows) > 5
