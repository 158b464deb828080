# SPDX-License-Identifier: Apache-2.0
"""`run --with TOOL`: Debian's tools, run by us on real programs, and what is said of them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT
from leakscope.drive import TOOLS

SOURCES = ROOT / "src"
PROGRAM = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static void *kept;
static void __attribute__((noinline)) lose(int n) {
    for (int i = 0; i < n; i++) { char *volatile p = malloc(100); p[0] = 1; }
}
static void __attribute__((noinline)) clear(void) {
    volatile char room[4096];
    for (unsigned i = 0; i < sizeof room; i++) room[i] = 0;
}
int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    char line[64] = "";
    if (strchr(what, 'i') && fgets(line, sizeof line, stdin) == NULL) return 8;
    if (!strchr(what, 'n')) { kept = malloc(7000); lose(3); }
    clear();
    free(malloc(9));
    printf("out %s%d\n", line, isatty(1)); fflush(stdout); fprintf(stderr, "err\n");
    if (strchr(what, 'f')) { int s; if (fork() == 0) { lose(2); clear(); exit(0); } wait(&s); }
    if (strchr(what, 'e')) {
        int s;
        if (fork() == 0) { execl(argv[0], argv[0], "", (char *)0); _exit(9); }
        wait(&s);
    }
    if (strchr(what, 'c')) raise(SIGSEGV);
    if (strchr(what, 'o')) ((volatile char *)kept)[7000] = 1;
    if (strchr(what, 'w')) for (;;) pause();
    if (strchr(what, 'q')) _exit(5);
    return strchr(what, '7') ? 7 : 0;
}
"""
CXX = r"""
struct Thing { char body[40]; };
Thing *kept;
__attribute__((noinline)) void lose() {
    for (int i = 0; i < 4; i++) { Thing *volatile t = new Thing; (void)t; }
}
__attribute__((noinline)) void work() { lose(); }
int main() { kept = new Thing; work(); delete new Thing; return 0; }
"""
OURS = [t for t in TOOLS if t not in {"memwatch", "ccmalloc", "libleak", "memleax", "bcc"}]
LOST = {"valgrind", "lsan"}
BLIND = {"efence", "leaktracer"}  # to what C allocates


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driven")
    (folder / "p.c").write_text(PROGRAM)
    (folder / "q.cc").write_text(CXX)
    for compiler, source, name, *options in (
        ("gcc", "p.c", "p"),
        ("gcc", "p.c", "asan", "-fsanitize=address"),
        ("gcc", "p.c", "static", "-static"),
        ("g++", "q.cc", "q"),
    ):
        command = [compiler, "-g", "-O0", *options, "-o", folder / name, folder / source]
        subprocess.run(command, check=True)
    return folder


class Driven:
    def __init__(self, leakscope, folder):
        self.leakscope, self.folder = leakscope, folder
        self.temporary = folder / "temporary"
        self.temporary.mkdir(exist_ok=True)
        self.report = folder / "report.json"

    def __call__(self, tool, *command, options=(), **how):
        self.report.unlink(missing_ok=True)
        how["env"] = {"TMPDIR": str(self.temporary)} | how.get("env", {})
        done = self.leakscope(
            *("run", "--with", tool, "--json", "--report-file", self.report, "--no-debuginfod"),
            *("--keep-all", "--output", f"{self.folder}/rec/", *options, "--", *command),
            **how,
        )
        done.processes = (
            json.loads(self.report.read_text())["processes"] if self.report.exists() else []
        )
        assert list(self.temporary.iterdir()) == [], "what the tool wrote is still there"
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def driven(leakscope, tmp_path):
    return Driven(leakscope, tmp_path)


def held(process, function):
    """Bytes and blocks of findings that were made in a function."""
    rows = [
        each
        for each in process["findings"]
        if any(frame["function"] == function for frame in each["stack"])
    ]
    return sum(r["live_bytes"] or 0 for r in rows), sum(r["live_count"] or 0 for r in rows)


@pytest.mark.parametrize("tool", OURS)
def test_each_tool_says_what_it_found_and_leaves_the_program_as_it_is(tool, programs, driven):
    done = driven(tool, programs / "p", "i7", input="line\n")
    assert done.stdout == "out line\n0\n"
    own = [line for line in done.stderr.splitlines() if not line.startswith("leakscope: ")]
    assert own == ["err"]
    (process,) = done.processes
    assert done.returncode == (1 if tool in LOST else 7), done.stderr
    assert process["process"]["exit_status"] == 7
    assert Path(process["process"]["executable"]).name == "p"
    if tool in BLIND:
        assert held(process, "lose") == (0, 0)
    elif tool == "dmalloc":  # which knows no places where it is preloaded
        assert sum(f["live_bytes"] for f in process["findings"]) >= 7300
    else:
        size, count = held(process, "lose")
        assert size == {"jemalloc": 336}.get(tool, 300)
        assert count == (0 if tool == "massif" else 3)
    assert [f["verdict"] for f in process["findings"] if f["is_leak"]] == ["lost"] * (tool in LOST)
    # The report can be shown again.
    (kept,) = (driven.folder / "rec").iterdir()
    assert driven.leakscope("report", "--no-debuginfod", kept).returncode == (
        1 if tool in LOST else 3
    )


def test_leaktracer_names_the_caller_of_what_used_new(programs, driven):
    (process,) = driven("leaktracer", programs / "q").processes
    assert held(process, "work()") == (160, 4)


@pytest.mark.parametrize("tool", ["valgrind", "lsan", "dhat", "mtrace", "dmalloc"])
def test_a_program_that_frees_everything_is_clean(tool, programs, driven):
    done = driven(tool, programs / "p", "n")
    leaks = [f for p in done.processes for f in p["findings"] if f["is_leak"]]
    assert leaks == []
    # dmalloc lists the buffer of the standard output, which the others have libc free.
    assert done.returncode == (3 if tool == "dmalloc" else 0), done.stderr


@pytest.mark.parametrize(("tool", "sizes"), [("valgrind", [300, 500]), ("lsan", [300, 500])])
def test_forked_processes_are_told_apart(tool, sizes, programs, driven):
    done = driven(tool, programs / "p", "f")
    assert sorted(held(each, "lose")[0] for each in done.processes) == sizes
    assert len({each["process"]["pid"] for each in done.processes}) == 2


@pytest.mark.parametrize("tool", ["valgrind", "lsan", "mtrace", "jemalloc", "massif", "dmalloc"])
def test_what_a_child_becomes_has_a_result_of_its_own(tool, programs, driven):
    done = driven(tool, programs / "p", "e")
    sizes = [sum(f["live_bytes"] for f in each["findings"]) for each in done.processes]
    assert len(sizes) >= 2
    assert all(size >= 300 for size in sizes)


def test_a_fork_does_not_write_into_the_log_of_mtrace(programs, driven):
    (process,) = driven("mtrace", programs / "p", "f").processes
    assert held(process, "lose") == (300, 3)
    assert not [note for note in process["coverage"]["notes"] if "has no end" in note]


@pytest.mark.parametrize("tool", OURS)
def test_a_crash_stays_one(tool, programs, driven):
    done = driven(tool, programs / "p", "c")
    assert "was killed by SIGSEGV" in done.stderr
    if tool == "valgrind":
        assert (done.returncode, held(done.processes[0], "lose")) == (1, (300, 3))
    elif tool in {"massif", "dhat", "efence"} or done.processes:  # a buffer that was written
        assert done.returncode == 128 + signal.SIGSEGV
    else:
        assert done.returncode == 2
        assert f"{tool} left no result" in done.stderr


def test_a_program_that_could_call_mtrace_and_did_not_is_told_so(programs, driven, tmp_path):
    source, program = tmp_path / "m.c", tmp_path / "m"
    source.write_text(
        "#include <mcheck.h>\n#include <stdlib.h>\n"
        "int main(int c, char **v) { if (c > 1) mtrace(); return malloc(9) == NULL; }\n"
    )
    subprocess.run(["gcc", "-O0", "-o", program, source], check=True)
    done = driven("mtrace", program)
    assert done.returncode == 2
    assert "has mtrace() in it, and did not call it in this run" in done.stderr
    assert driven("mtrace", program, "now").returncode == 3


def test_an_exit_that_skips_the_end_leaves_no_result(programs, driven):
    done = driven("lsan", programs / "p", "q")
    assert done.returncode == 2
    assert "exited with status 5, and lsan left no result" in done.stderr


def test_electric_fence_ends_it_at_an_overrun(programs, driven):
    done = driven("efence", programs / "p", "o")
    assert done.returncode == 128 + signal.SIGSEGV
    assert any("outside a block" in note for note in done.processes[0]["coverage"]["notes"])


def test_a_program_with_a_sanitizer_of_its_own_is_not_preloaded(programs, driven):
    done = driven("lsan", programs / "asan", "7")
    assert (done.returncode, held(done.processes[0], "lose")) == (1, (300, 3)), done.stderr
    assert done.processes[0]["process"]["exit_status"] == 7
    broken = driven("lsan", programs / "asan", "o")
    assert broken.returncode not in {0, 1}
    assert "leak found" not in broken.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(number, programs, tmp_path, agent):
    command = [sys.executable, "-m", "leakscope", "run", "--with", "valgrind", "--no-debuginfod"]
    process = subprocess.Popen(
        [*command, "-o", f"{tmp_path}/rec/", "--", programs / "p", "w"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SOURCES), "TMPDIR": str(tmp_path)},
    )
    assert process.stdout.readline().startswith("out")
    time.sleep(0.3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert f"was killed by {number.name}" in errors
    assert "300 B in 3 blocks" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["rec"]


def test_a_process_that_goes_on_keeps_its_folder(programs, driven, tmp_path):
    script = f"{programs}/p w >/dev/null 2>&1 & echo $!"
    temporary = tmp_path / "apart"
    temporary.mkdir()
    command = [sys.executable, "-m", "leakscope", "run", "--with", "valgrind", "--no-debuginfod"]
    done = subprocess.run(
        [*command, "-o", f"{tmp_path}/rec/", "--", "sh", "-c", f"{script}; sleep 1"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SOURCES), "TMPDIR": str(temporary)},
        timeout=60,
    )
    pid = int(done.stdout.split()[0])
    os.kill(pid, signal.SIGTERM)
    assert (
        f"process {pid} still runs; what valgrind writes of it will be in {temporary}"
        in done.stderr
    )
    (folder,) = temporary.iterdir()
    log = folder / f"memcheck.{pid}"
    for _ in range(100):
        if "LEAK SUMMARY" in log.read_text():
            break
        time.sleep(0.1)
    assert "LEAK SUMMARY" in log.read_text()


@pytest.mark.parametrize(
    ("tool", "options", "said"),
    [
        ("memwatch", (), "Compile memwatch.c with your sources"),
        ("ccmalloc", (), "ccmalloc gcc"),
        ("libleak", (), "--tool-path libleak.so"),
        ("memleax", (), "memleax PID > FILE"),
        ("nothing", (), "there is no tool 'nothing'"),
        ("valgrind", ("--sample", "1KiB"), "--sample is not for it"),
        ("valgrind", ("--start-after", "1"), "--start-after is for leakscope's own recording"),
        ("lsan", ("--no-scan",), "--no-scan is for leakscope's own recording"),
        ("lsan", ("--tool-path", "/nowhere"), "there is no such file"),
        ("valgrind", ("--tool-path", "/etc/passwd"), "may not be executed"),
    ],
)
def test_what_cannot_be_is_said_at_once(tool, options, said, programs, driven):
    done = driven(tool, programs / "p", options=options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr


def test_a_missing_tool_names_its_package(programs, driven):
    done = driven("valgrind", programs / "p", env={"PATH": "/nowhere"})
    assert done.returncode == 2
    assert "valgrind is not on this machine" in done.stderr
    assert "apt install valgrind" in done.stderr


def test_bcc_needs_the_headers_of_the_kernel(programs, driven):
    done = driven("bcc", programs / "p")
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.search(r"takes root|linux-headers-|apt install bpfcc-tools", done.stderr)


def test_a_static_program_is_refused_by_what_is_preloaded(programs, driven):
    done = driven("heaptrack", programs / "static")
    assert done.returncode == 2
    assert "statically linked" in done.stderr


def test_a_tool_that_fails_says_why(programs, driven, tmp_path):
    wrong = tmp_path / "valgrind"
    wrong.write_text(
        "#!/bin/sh\nfor a; do case $a in --log-file=*) log=${a#*=};; esac; done\n"
        'echo "==1== valgrind: the machine is too old" > "$(echo $log | sed s/%p/$$/)"\nexit 1\n'
    )
    wrong.chmod(0o755)
    done = driven("valgrind", programs / "p", options=("--tool-path", wrong))
    assert done.returncode == 2
    assert "the machine is too old" in done.stderr


def test_memleax_runs_beside_the_program(programs, driven, tmp_path):
    fake = tmp_path / "memleax"
    fake.write_text(
        "#!/bin/sh\ntest -d /proc/$1 || exit 1\n"
        "echo 'CallStack[3]: memory expires with 101 bytes, backtrace:'\n"
        "echo '    0x0040084e  test  foo()+14  foo.c:12'\n"
        "exec tail --pid=$1 -f /dev/null\n"
    )
    fake.chmod(0o755)
    command = ("sh", "-c", f"sleep 1; {programs}/p")
    done = driven("memleax", *command, options=("--tool-path", fake))
    (process,) = done.processes
    assert held(process, "foo") == (101, 1), done.stderr
    assert done.stdout.startswith("out")


def test_the_samples_of_jemalloc_are_scaled(programs, driven):
    done = driven("jemalloc", programs / "p", options=("--sample", "512KiB"))
    assert "sampled" in json.dumps(done.processes[0]["coverage"]) or done.returncode == 3


def test_killing_leakscope_leaves_the_program_alone(programs, tmp_path, agent):
    command = [sys.executable, "-m", "leakscope", "run", "--with", "lsan", "-o", f"{tmp_path}/rec/"]
    environment = os.environ | {"PYTHONPATH": str(SOURCES), "TMPDIR": str(tmp_path)}
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [*command, "--", programs / "p", "w"], stdout=out, env=environment
        )
    while "out" not in (tmp_path / "out").read_text():
        time.sleep(0.05)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    time.sleep(0.2)
    assert Path(f"/proc/{child}/comm").read_text() == "p\n"
    os.kill(int(child), signal.SIGKILL)
