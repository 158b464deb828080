# SPDX-License-Identifier: Apache-2.0
"""leakscope.h in real programs: static, C and C++, threads, forks, crashes, no warning anywhere."""

import os
import subprocess

import pytest

from conftest import ROOT
from foreign import held, notes
from leakscope.formats import read_foreign

INCLUDE = ROOT / "src" / "leakscope" / "include"
WARNINGS = ("-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{INCLUDE}")
C = r"""
#include <stdlib.h>
#include <string.h>
#include "leakscope.h"
static void *kept;
static void lose(void) { int i; for (i = 0; i < 3; i++) { char *p = (char *)malloc(100); p[0] = 1; } }
int main(void) {
  char *s;
  kept = calloc(7, 1000);
  lose();
  s = strdup("abc");
  s = (char *)realloc(s, 50);
  free(s);
  free(NULL);
  return kept == NULL;
}
"""
CXX = r"""
#include <cstdlib>
#include <map>
#include <string>
#include <vector>
#include "leakscope.h"
struct T { int a[10]; std::string s; T() : s(100, 'x') {} };
static T *kept[2];
static std::vector<int> global(25);
T *make() { return new T; }
int main() {
  kept[0] = make();
  kept[1] = new T;
  delete kept[1];
  int *v = new int[4];
  delete[] v;
  alignas(T) char room[sizeof(T)];
  T *p = new (room) T;
  p->~T();
  std::map<int, int> m;
  m[3] = 4;
  std::free(std::malloc(4));
  return 0;
}
"""
THREADS = r"""
#include <pthread.h>
#include <stdlib.h>
#include "leakscope.h"
static void *work(void *given) {
  void *held[16] = {0};
  for (int i = 0; i < 4000; i++) {
    free(held[i % 16]);
    held[i % 16] = i % 3 ? malloc(24) : realloc(malloc(8), 40);
  }
  for (int i = 1; i < 16; i++) free(held[i]);
  return given;
}
int main(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, work, NULL);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  return 0;
}
"""
FORK = r"""
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "leakscope.h"
int main(int argc, char **argv) {
  void *volatile p = malloc(10);
  if (fork() == 0) { p = malloc(20); exit(0); }
  wait(NULL);
  p = malloc(30);
  if (argc > 1) abort();
  return p == argv;
}
"""


def compiled(folder, text, *options, compiler="gcc", name="program"):
    source = folder / f"{name}.{'cc' if '++' in compiler else 'c'}"
    source.write_text(text)
    command = [compiler, "-g", *WARNINGS, *options, "-o", folder / name, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / name


def logs(folder, program, *arguments, status=0, **environment):
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=os.environ | environment, check=False, timeout=60
    )
    assert done.returncode == status
    return sorted(
        (read for path in folder.glob("leakscope.*.log") for read in read_foreign(path)),
        key=lambda each: each.process.pid,
    )


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("standard", ["c99", "c11", "gnu17"])
def test_c(compiler, standard, tmp_path):
    options = (f"-std={standard}", "-O2", "-static")
    (recording,) = logs(tmp_path, compiled(tmp_path, C, *options, compiler=compiler))
    assert held(recording) == (7300, 4)
    assert recording.process.ended == "exited"
    assert "not read" not in notes(recording)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("standard", ["c++98", "c++11", "c++20"])
def test_cxx(compiler, standard, tmp_path):
    text = C if standard == "c++98" else CXX
    options = (f"-std={standard}", "-O2", "-static", "-DLEAKSCOPE_OPERATORS", "-DLEAKSCOPE_NEW")
    (recording,) = logs(tmp_path, compiled(tmp_path, text, *options, compiler=compiler))
    if standard == "c++98":
        assert held(recording) == (7300, 4)
    else:
        size, count = held(recording)  # one T with its string; the vector goes with its destructor
        assert (count, size > 140) == (2, True)
        assert {recording.names[0].function} <= {"make", None}


def test_it_needs_no_change_of_a_source(tmp_path):
    text = C.replace('#include "leakscope.h"\n', "")
    program = compiled(tmp_path, text, "-include", "leakscope.h", "-static")
    assert held(logs(tmp_path, program)[0]) == (7300, 4)


def test_off_it_is_not_there(tmp_path):
    program = compiled(tmp_path, C, "-DLEAKSCOPE_OFF", "-D_GNU_SOURCE")
    assert logs(tmp_path, program) == []
    names = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
    assert "leakscope_" not in names


def test_threads(tmp_path):
    program = compiled(tmp_path, THREADS, "-fsanitize=thread", "-O1", "-pthread")
    (recording,) = logs(tmp_path, program)
    assert held(recording)[1] == 4  # each thread leaves its first
    assert recording.coverage.free_events == recording.coverage.alloc_events - 4
    assert "came again" not in notes(recording)


def test_a_forked_process_has_a_log_of_its_own(tmp_path):
    parent, child = logs(tmp_path, compiled(tmp_path, FORK, "-static"))
    assert (held(parent), held(child)) == ((40, 2), (20, 1))
    assert "forked process" in notes(child)


def test_a_crash_loses_the_buffer_alone(tmp_path):
    program = compiled(tmp_path, FORK, "-DLEAKSCOPE_BUFFER=0")
    parent, child = logs(tmp_path, program, "crash", status=-6)
    assert (held(parent), held(child)) == ((40, 2), (20, 1))
    assert parent.process.ended is None


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere/log"])
def test_a_log_that_cannot_be_written_does_no_harm(path, tmp_path):
    assert logs(tmp_path, compiled(tmp_path, C), LEAKSCOPE_LOG=path) == []


def test_the_log_can_go_elsewhere_with_another_clock(tmp_path):
    text = (
        "#include <stdio.h>\nstatic unsigned long now;\n"
        "#define LEAKSCOPE_WRITE(text, size) fwrite(text, 1, size, stdout)\n"
        "#define LEAKSCOPE_MICROSECONDS() (now += 1000)\n" + C
    )
    program = compiled(tmp_path, text)
    out = subprocess.run([program], capture_output=True, check=True).stdout
    (tmp_path / "serial").write_bytes(out)
    (recording,) = read_foreign(tmp_path / "serial")
    assert held(recording) == (7300, 4)
    assert recording.duration_ns == 8_000_000  # seven events and the end


def test_the_command_prints_it_and_where_it_is(leakscope, tmp_path):
    done = leakscope("header")
    assert done.stdout == (INCLUDE / "leakscope.h").read_text()
    assert leakscope("header", "--path").stdout.strip() == str(INCLUDE)


def test_a_static_program_is_reported_by_its_log(leakscope, tmp_path):
    logs(tmp_path, compiled(tmp_path, C, "-static"))
    (log,) = tmp_path.glob("leakscope.*.log")
    done = leakscope("report", "--all", "--no-debuginfod", log, cwd=tmp_path)
    assert "300 B in 3 blocks" in done.stdout
    assert "program.c:6" in done.stdout


@pytest.mark.parametrize(
    "body", ["keep[0] = 0;", "for (int i = 0; i < 3; i++) keep[i] = malloc(70);"]
)
def test_what_a_log_leaves_open_is_not_said_to_be_settled_by_a_trace(body, leakscope, tmp_path):
    text = f'#include <stdlib.h>\n#include "leakscope.h"\nstatic void *keep[9];\nint main(void) {{ free(malloc(9)); {body} }}'
    logs(tmp_path, compiled(tmp_path, text, "-static"))
    (log,) = tmp_path.glob("leakscope.*.log")
    done = leakscope("report", "--no-debuginfod", log, cwd=tmp_path)
    assert "leakscope run" not in done.stdout
    assert "leakscope report leakscope.PID.log" in done.stdout
