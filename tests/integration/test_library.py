# SPDX-License-Identifier: Apache-2.0
"""The library against real programs: what it returns, and what it leaves behind in its caller."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import pytest

import leakscope
import leakscope.report

LEAKY = """
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// leaky SECONDS [SIGNAL]: leaks 100 bytes 20 times a second, without heeding SIGNAL; tells where it is.
int main(int argc, char **argv) {
  char here[4096];
  if (argc > 2) signal(atoi(argv[2]), SIG_IGN);
  puts(getcwd(here, sizeof here));
  fflush(stdout);
  for (int i = 0; i < 20 * atof(argv[1]); i++) {
    char *volatile lost = malloc(100);
    memset(lost, 1, 100);
    usleep(50000);
  }
  return 3;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, agent):
    made = tmp_path_factory.mktemp("library")
    (made / "leaky.c").write_text(LEAKY)
    subprocess.run(["gcc", "-g", "-O1", made / "leaky.c", "-o", made / "leaky"], check=True)
    return made


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "leakscope", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip


def test_a_run_gives_what_the_command_gives(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "out").open("w+") as out:
        run = leakscope.run(
            [Path("leaky"), "0.3"],
            cwd=folder,
            stdout=out,
            output=tmp_path,
            sample="1",
            timeout="1m",
        )
        out.seek(0)
        assert out.read() == f"{folder}\n"
    assert (run.returncode, run.timed_out) == (3, False)
    (leak,) = run.leaks
    assert (leak.verdict, leak.source.function) == (leakscope.Verdict.LOST, "main")
    name = run.files[0].name
    assert command("report", name, cwd=tmp_path) == run.report()
    assert command("report", "--json", name, cwd=tmp_path) == run.to_json()
    assert run.to_dict()["leak_count"] == 1
    found = leakscope.analyse(name)
    assert found.to_json() == run.to_json()
    # What has no name has none to be given to the next command.
    unnamed = leakscope.analyse(leakscope.load(Path(name))).report()
    assert "leakscope report --verbose FILE" in unnamed
    assert unnamed.split("\n\n", 1)[1] == run.report().split("\n\n", 1)[1]
    assert "<pre>leakscope: 1 place leaks" in found._repr_html_()
    assert leakscope.analyse(name, min_bytes="1MiB").leaks == ()


def test_a_timeout_ends_all_that_was_started_and_keeps_what_was_recorded(folder, tmp_path):
    began = time.monotonic()
    script = f"trap '' TERM; {folder}/leaky 60 & {folder}/leaky 60"
    run = leakscope.run(["sh", "-c", script], timeout=1, output=tmp_path, stdout=subprocess.DEVNULL)
    # `trap ''` is inherited: only SIGKILL ends them.
    assert time.monotonic() - began < 30
    assert run.timed_out
    assert "after its timeout" in run.outcome
    assert "the timeout of 1 s was reached" in run.notes[0]
    assert "SIGKILL" in run.notes[0]
    assert run.running == ()
    names = [Path(each.process.exe).name for each in run.recordings]
    assert names.count("leaky") == 2
    assert all(
        each.sites["live_count"].sum() > 10
        for each in run.recordings
        if "leaky" in each.process.exe
    )
    assert not list(Path("/dev/shm").glob(f"leakscope-*/{run.pid}.*"))


def test_a_timeout_by_sigterm_still_tells_what_is_lost(folder, tmp_path):
    run = leakscope.run(
        [folder / "leaky", "60"], timeout=1, output=tmp_path, stdout=subprocess.DEVNULL
    )
    assert (run.killed_by, run.timed_out) == (signal.SIGTERM, True)
    assert [leak.verdict for leak in run.leaks] == [leakscope.Verdict.LOST]


def test_the_caller_is_left_as_it_was(folder, tmp_path, monkeypatch):
    """As in a notebook: the streams are no files, and everything else must be as before."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.StringIO())
    monkeypatch.setattr(sys, "stdin", None)

    def state():
        return (
            {number: signal.getsignal(number) for number in signal.valid_signals()},
            signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            dict(os.environ),
            sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")),
            threading.active_count(),
            os.getcwd(),
        )  # fmt: skip

    def once():
        run = leakscope.run(
            [folder / "leaky", "0.2"], output=tmp_path, stdout=subprocess.DEVNULL, cwd=folder
        )
        return run.report()

    once()  # loads what is loaded once
    time.sleep(1.5)  # threads that served the program need a moment to see that it is over
    before = state()
    assert "leaks" in once()
    with pytest.raises(leakscope.TargetError):
        leakscope.run("/etc/passwd")
    deadline = time.monotonic() + 20
    while state() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert state() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert sys.stdout.getvalue() == sys.stderr.getvalue() == ""


def test_threads_run_programs_at_the_same_time(folder, tmp_path):
    def one(number):
        began = time.monotonic()
        seconds = 4.0 if number == 0 else 0.2
        run = leakscope.run(
            [folder / "leaky", str(seconds)], output=tmp_path, stdout=subprocess.DEVNULL
        )
        return time.monotonic() - began, len(run.leaks), run.returncode

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    assert [each[1:] for each in found] == [(1, 3)] * 4
    assert min(each[0] for each in found[1:]) < found[0][0]  # nobody waited for the slow one


def test_a_refused_exec_is_told_although_another_program_runs(folder):
    """Its pipe is not inherited by what another thread starts: else this waits for that one's end."""
    from leakscope.trace._spawn import Child

    slow = Child("/bin/sleep", ["sleep", "30"], ())
    seen = []
    real = os.posix_spawn

    def between(*arguments, **keywords):
        if not seen:
            seen.append(real("/bin/sleep", ["sleep", "5"], os.environ))  # as another thread would
        return real(*arguments, **keywords)

    began = time.monotonic()
    os.posix_spawn = between
    try:
        slow.start(os.environ)
    finally:
        os.posix_spawn = real
    took = time.monotonic() - began
    slow.kill(signal.SIGKILL)
    slow.wait(lambda: None)
    os.kill(seen[0], signal.SIGKILL)
    os.waitpid(seen[0], 0)
    assert took < 4


def test_scan_and_watch_give_what_the_commands_give(folder, tmp_path):
    program = subprocess.Popen([folder / "leaky", "60"], stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        scan = leakscope.scan(program.pid)
        assert (scan.findings, scan.recording) == (None, None)
        assert 0 < scan.lost_bytes < 100_000
        assert scan.lost_count >= 5
        assert "lost" in scan.report()
        said = command("scan", "--json", program.pid, cwd=tmp_path)
        assert json.loads(said).keys() == scan.to_dict().keys()
        lines = []
        watch = leakscope.watch(program.pid, duration="1s", progress=lines.append, heap=True)
        assert (watch.leaks, len(lines) > 3) == ((), True)
        text = watch.report()
        assert "not enough data for a verdict" in text
        assert f"What leaky (pid {program.pid}) holds now" in text
        assert "heap of glibc" in text
        schema = Path("docs/reference/json-schema/leakscope-watch-1.json")
        root = Path(__file__).parents[2]
        jsonschema.validate(watch.to_dict(), json.loads((root / schema).read_text()))
        stop = threading.Event()
        stop.set()
        assert leakscope.watch(program.pid, stop=stop).watched_s < 5
    finally:
        program.kill()
        program.wait()


def test_a_traced_process_is_scanned_with_stacks(folder, tmp_path):
    results = []

    def run():
        results.append(
            leakscope.run(
                [folder / "leaky", "60"], timeout=20, output=tmp_path, stdout=subprocess.DEVNULL
            )
        )

    thread = threading.Thread(target=run)
    thread.start()
    pid = None
    deadline = time.monotonic() + 15
    while pid is None and time.monotonic() < deadline:
        time.sleep(0.2)
        me = os.getpid()
        for task in os.listdir(f"/proc/{me}/task"):
            for child in Path(f"/proc/{me}/task/{task}/children").read_text().split():
                if os.readlink(f"/proc/{child}/exe") == str(folder / "leaky"):
                    pid = int(child)
    time.sleep(1.5)
    scan = leakscope.scan(pid)
    os.kill(pid, signal.SIGTERM)
    thread.join()
    assert scan.heap is None
    assert [leak.source.function for leak in scan.leaks] == ["main"]
    assert scan.lost_count == sum(leak.lost_count for leak in scan.leaks)
    assert scan.to_dict()["schema"] == "leakscope-findings/1"
    assert leakscope.analyse(scan.recording).leaks
    assert results[0].killed_by == signal.SIGTERM


def test_a_report_leaves_no_file_open(folder, tmp_path, monkeypatch):
    run = leakscope.run([folder / "leaky", "0.2"], output=tmp_path, stdout=subprocess.DEVNULL)
    leakscope.analyse(run.recordings[0])
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache{number}"))  # it looks again
        assert leakscope.analyse(run.recordings[0]).leaks[0].source.file.endswith("leaky.c")
    assert len(os.listdir("/proc/self/fd")) <= before  # the run may have been closing its socket
