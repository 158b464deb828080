# SPDX-License-Identifier: Apache-2.0
"""`control mark` while a program runs, and `report --since` then and later."""

import fcntl
import json
import subprocess
import sys
import time

import pytest

import leakscope as api
from leakscope.recording import layout
from leakscope.trace.live_files import find_live_file

SOURCE = """
#include <stdio.h>
#include <stdlib.h>
static void *volatile keep[100000];
static int kept;
__attribute__((noinline)) static void start_up(void) { keep[kept++] = malloc(100); }
__attribute__((noinline)) static void request(void) {
  keep[kept++] = malloc(333);
  free(malloc(50));
}
// Makes so many requests as each line of its input says.
int main(void) {
  char line[64];
  for (int i = 0; i < 500; i++) start_up();
  puts("up");
  for (fflush(stdout); fgets(line, sizeof line, stdin); fflush(stdout)) {
    for (int i = atoi(line); i > 0; i--) request();
    puts("ok");
  }
  return 0;
}
"""


@pytest.fixture
def server(tmp_path, monkeypatch, agent):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "server.c"
    source.write_text(SOURCE)
    subprocess.run(["gcc", "-g", "-O1", "-o", "server", source], check=True)
    command = [sys.executable, "-m", "leakscope", "run", "--no-report", "-o", "end", "--"]
    with subprocess.Popen(
        [*command, "./server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "up\n"
        yield process
        process.stdin.close()


def requests(process, number):
    process.stdin.write(f"{number}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ok\n"


def pid_of(process):
    return int(subprocess.check_output(["pgrep", "-P", str(process.pid)]).split()[0])


def test_what_came_after_a_mark_is_told_while_it_runs_and_later(server, leakscope):
    pid = pid_of(server)
    requests(server, 50)
    marked = leakscope("control", pid, "mark", "load test")
    assert marked.stdout == f"process {pid}: marked. leakscope report {pid} --since 'load test'\n"
    requests(server, 300)

    running = leakscope("report", pid, "--since", "load test", "--json", "--all")
    server.stdin.close()
    server.wait()
    later = leakscope("report", "end", "--since", "load test", "--json", "--all")

    for done in (running, later):
        (process,) = json.loads(done.stdout)["processes"]
        held = {each["source"]["function"]: each["live_count"] for each in process["findings"]}
        # Between the last request before and the mark lies less than the clock can tell.
        assert 300 <= held["request"] <= 350
        assert "start_up" not in held
    assert [mark.name for mark in api.load("end").marks] == ["load test"]


def test_a_time_serves_as_a_mark(server, leakscope):
    pid = pid_of(server)
    requests(server, 5)
    time.sleep(0.1)

    done = leakscope("report", pid, "--since", "0.1s", "--json", "--all")

    (process,) = json.loads(done.stdout)["processes"]
    assert all(each["source"]["function"] != "start_up" for each in process["findings"])
    (note,) = process["coverage"]["notes"]
    assert note.startswith("only what was allocated after the first 100 ms is told of; ")


def test_of_what_ended_before_nothing_is_said_to_be_freed(server, leakscope, tmp_path):
    requests(server, 5)

    alone = leakscope("report", pid_of(server), "--since", "1000h")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "nothing can be told since 1000h: the recording ends before it" in alone.stderr

    (tmp_path / "both").mkdir()
    source = "#include <stdlib.h>\n#include <unistd.h>\nint main(int argc, char **argv) {\n"
    source += "sleep(atoi(argv[1])); free(malloc(argc)); return 0; }\n"
    subprocess.run(["gcc", "-x", "c", "-", "-o", "late"], input=source, text=True, check=True)
    for seconds in "02":
        leakscope("run", "-q", "-o", f"both/{seconds}", "--", "./late", seconds)
    several = leakscope("report", "both", "--since", "1.5s")
    assert several.returncode == 0
    assert "left out, as 1 recording ends within the first 1.5s" in several.stderr


def test_a_name_is_given_again_and_the_room_for_names_is_bounded(server, leakscope):
    pid = pid_of(server)
    file = find_live_file(pid)
    for number in range(layout.MARKS):
        file.add_mark(f"mark {number}")
    time.sleep(0.05)  # longer than the clock's step
    file.add_mark("mark 3")
    assert file.field("mark_count") == layout.MARKS

    full = leakscope("control", pid, "mark", "one more")
    assert full.returncode == 2
    assert "has 32 marks" in full.stderr
    snapshot = leakscope("control", pid, "dump").stdout.strip()
    assert [mark.name for mark in api.load(snapshot).marks][-1] == "mark 3"


@pytest.mark.parametrize("name", ["", "x" * 56, "a\nb"])
def test_a_name_that_cannot_be_shown_is_refused(server, leakscope, name):
    done = leakscope("control", pid_of(server), "mark", name)

    assert done.returncode == 2
    assert "printable name of 1 to 55 bytes" in done.stderr


def test_a_mark_that_is_not_there(server, leakscope):
    pid = pid_of(server)
    leakscope("control", pid, "mark", "a")

    done = leakscope("report", pid, "--since", "b")

    assert (done.returncode, done.stdout) == (2, "")
    assert "'b' is no time such as 20s, 30m or 2h, and" in done.stderr
    assert "no mark named 'b'" in done.stderr
    assert "It has 'a'" in done.stderr


def test_a_lock_that_nobody_gives_back_is_no_wait_without_end(server, leakscope):
    pid = pid_of(server)
    with find_live_file(pid).path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        done = leakscope("control", pid, "mark", "a", timeout=60)

    assert done.returncode == 2
    assert "cannot write" in done.stderr
