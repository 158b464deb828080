# SPDX-License-Identifier: Apache-2.0
"""Builds, test runners and prefork servers: many processes, of which most have nothing to tell."""

import json
import re
import subprocess

import pytest

FORKS = """
#include <stdlib.h>
#include <unistd.h>
#include <sys/wait.h>
__attribute__((noinline)) static void lose(int size) { *(char *volatile *)malloc(size) = 0; }
// forks CLEAN LEAKING: children that free all, and children that lose more and more, 2 blocks each.
int main(int argc, char **argv) {
  int clean = atoi(argv[1]), all = clean + atoi(argv[2]);
  for (int i = 0; i < all; i++) {
    if (fork() == 0) {
      void *volatile block = malloc(100);
      free(block);
      for (volatile int n = 0; i >= clean && n < 2; n++) lose(1000 * (i - clean + 1));
      exit(0);
    }
    wait(0);
  }
  return 0;
}
"""


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forks")
    (folder / "forks.c").write_text(FORKS)
    subprocess.run(["gcc", "-g", "-O1", "-w", "forks.c", "-o", "forks"], cwd=folder, check=True)
    return folder / "forks"


def names(folder):
    return sorted(path.name for path in folder.glob("*.leakscope"))


def test_clean_children_leave_no_recording_unless_asked(leakscope, forks, tmp_path):
    done = leakscope("run", "--", forks, 20, 0, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "20 more forked processes freed every block; they have no file" in done.stderr
    assert len(names(tmp_path)) == 1
    assert leakscope("run", "--keep-all", "--", forks, 20, 0, cwd=tmp_path).returncode == 0
    assert len(names(tmp_path)) == 1 + 21


def test_programs_of_a_shell_that_end_with_blocks_are_searched_and_not_kept(leakscope, tmp_path):
    script = "/bin/ls / >/dev/null; /bin/true; /bin/ls / >/dev/null; exit 3"

    done = leakscope("run", "--", "sh", "-c", script, cwd=tmp_path)

    assert done.returncode == 3, done.stderr
    assert re.search(r"\d more forked process\w* ended soon and lost no block", done.stderr)
    assert len(names(tmp_path)) == 1
    assert re.search(r"recording: (dash|sh|bash)\.", done.stderr)


HOLDS = """
#include <stdlib.h>
#include <unistd.h>
static void *volatile held[8];
int main(int argc, char **argv) {
  for (int i = 0; i < 8; i++) held[i] = malloc(1000);
  usleep(300000);  // longer than what is said to have ended soon
  if (argc > 1) held[3] = 0;
  return 0;
}
"""


@pytest.fixture(scope="module")
def holds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("holds")
    (folder / "holds.c").write_text(HOLDS)
    subprocess.run(["gcc", "-g", "-O1", "holds.c", "-o", "holds"], cwd=folder, check=True)
    return folder / "holds"


def test_children_that_hold_what_they_need_to_the_end_are_not_judged(leakscope, holds, tmp_path):
    script = f"{holds}; {holds}; {holds} lost; exit 0"

    done = leakscope("run", "--", "sh", "-c", script, cwd=tmp_path)

    assert done.returncode == 1, done.stderr
    assert "2 more forked processes lost no block and did not grow; they" in done.stderr
    assert "1 of 2 processes leak" in done.stderr
    assert len([name for name in names(tmp_path) if name.startswith("holds")]) == 1


def test_they_are_shown_where_all_is_asked_for(leakscope, holds, tmp_path):
    done = leakscope("run", "--all", "--", "sh", "-c", f"{holds}; exit 0", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "did not grow" not in done.stderr
    assert "0 of 2 processes leak" in done.stderr


def test_the_same_place_in_several_processes_is_one_finding(leakscope, forks, tmp_path):
    done = leakscope("run", "--no-debuginfod", "--", forks, 3, 4, cwd=tmp_path)

    assert done.returncode == 1, done.stderr
    kept = names(tmp_path)
    assert len(kept) == 1 + 4
    assert "4 of 5 processes leak" in done.stderr
    assert "LOST: 19.5 KiB in 8 blocks of 4 processes" in done.stderr
    said = leakscope("report", "--json", tmp_path).stdout
    (place,) = json.loads(said)["places"]
    assert place["leak_bytes"] == 20_000
    assert [part["leak_bytes"] for part in place["processes"]] == [8000, 6000, 4000, 2000]
    assert [part["leak_block_count"] for part in place["processes"]] == [2, 2, 2, 2]
    assert done.stderr.count("1. LOST") == 1


def test_programs_are_chosen_by_name(leakscope, forks, tmp_path):
    script = f"{forks} 0 1; ls / >/dev/null; exit 4"

    def run(*options):
        done = leakscope("run", "--keep-all", *options, "--", "sh", "-c", script, cwd=tmp_path)
        kept = {name.split(".")[0] for name in names(tmp_path)}
        for path in tmp_path.glob("*.leakscope"):
            path.unlink()
        return done, kept

    done, kept = run("--only", "for*", "--only", "l?")
    assert (done.returncode, kept) == (1, {"forks", "ls"}), done.stderr
    assert "not traced" not in done.stderr
    done, kept = run("--exclude", "forks")
    assert done.returncode == 4, done.stderr
    assert "forks" not in kept
    assert "ls" in kept
    done, kept = run("--only", "ls", "--exclude", "?s")
    assert (done.returncode, kept) == (2, set())
    assert "--only and --exclude left out all that was started" in done.stderr
    assert run("--only", "bin/ls")[0].stderr.startswith(
        "leakscope: 'bin/ls' is not a program's name"
    )
