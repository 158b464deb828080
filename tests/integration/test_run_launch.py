# SPDX-License-Identifier: Apache-2.0
"""What `leakscope run` does around the program: streams, status, signals, files, children."""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import leakscope as api
from conftest import ROOT
from leakscope.model.recordings import Kind
from leakscope.trace.live_files import find_live_file, list_live_files
from leakscope.trace.output import private_part

LEAKY = """
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// leaky SECONDS [STATUS]: leaks 100 bytes 20 times a second, then ends with STATUS.
int main(int argc, char **argv) {
  printf("pid %d\\n", (int)getpid());
  fflush(stdout);
  for (int i = 0; i < 20 * atof(argv[1]); i++) {
    char *volatile lost = malloc(100);
    memset(lost, 1, 100);
    usleep(50000);
  }
  puts("done");
  return argc > 2 ? atoi(argv[2]) : 0;
}
"""
DAEMON = """
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
// daemon SECONDS: forks twice and lives on in the background.
int main(int argc, char **argv) {
  if (fork() != 0) _exit(0);
  setsid();
  if (fork() != 0) _exit(0);
  int nothing = open("/dev/null", O_RDWR);
  dup2(nothing, 0); dup2(nothing, 1); dup2(nothing, 2);
  for (int i = 0; i < 20 * atof(argv[1]); i++) {
    char *volatile lost = malloc(100);
    lost[0] = 1;
    usleep(50000);
  }
  return argc == 9;
}
"""


def compile_(folder, name, text, *flags):
    source = folder / f"{name}.c"
    source.write_text(text)
    subprocess.run(["gcc", "-g", "-O1", "-o", folder / name, source, *flags], check=True)
    return folder / name


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    return {
        "leaky": compile_(folder, "leaky", LEAKY),
        "daemon": compile_(folder, "daemon", DAEMON),
    }


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def start(agent):
    """Start the command line in the background; what still runs afterwards is killed."""
    assert agent.exists()
    started = []

    def begin(*arguments, **options):
        environment = dict(os.environ, PYTHONPATH=str(ROOT / "src"), **options.pop("env", {}))
        process = subprocess.Popen(
            [sys.executable, "-m", "leakscope", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            **options,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            # The program as well: it has our pipes, and some run for a minute.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.kill()
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
        process.communicate()


def pid_of(process):
    """The pid that the program LEAKY tells in its first line."""
    word, number = process.stdout.readline().split()
    assert word == "pid"
    return int(number)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


def names():
    return sorted(path.name for path in Path().iterdir())


# -- the program is left alone ---------------------------------------------------


def test_streams_arguments_and_status_stay_intact(leakscope):
    script = 'cat; printf "%s|" "$@"; echo oops >&2; exit 42'

    done = leakscope(
        "run", "--no-report", "--", "sh", "-c", script, "sh", "a b", "--json", input="in"
    )

    assert done.stdout == "ina b|--json|"
    assert done.stderr.startswith("oops\n")
    assert "leakscope: sh exited with status 42" in done.stderr
    assert done.returncode == 42


def test_input_reaches_the_program(leakscope, agent):
    done = leakscope("run", "--no-report", "-q", "--", "cat", stdin=None, input="through\n")

    assert done.stdout == "through\n"
    assert done.stderr == ""


@pytest.mark.parametrize(("script", "status"), [("exit 42", 42), ("kill -TERM $$", 143)])
def test_the_status_of_the_program_can_be_passed_on(leakscope, script, status):
    done = leakscope("run", "--no-report", "--program-exit-code", "--", "sh", "-c", script)

    assert done.returncode == status


def test_a_killed_program_is_said_to_be_killed(leakscope):
    done = leakscope("run", "--no-report", "--", "sh", "-c", "kill -KILL $$")

    assert "leakscope: sh was killed by SIGKILL" in done.stderr
    (file,) = Path().glob("*.leakscope")
    assert api.load(file).process.ended == "killed by SIGKILL"


def test_the_users_own_preload_stays_behind_the_agent(leakscope, agent):
    done = leakscope(
        *("run", "--no-report", "-q", "--", "sh", "-c", 'echo "$LD_PRELOAD"'),
        env={"LD_PRELOAD": f"libm.so.6 {agent}"},
    )

    assert done.stdout == f"{agent}:libm.so.6\n"


def test_an_agent_at_a_path_that_preload_cannot_hold_is_copied(leakscope, agent, tmp_path):
    odd = tmp_path / "a b:c"
    odd.mkdir()
    copy = shutil.copy(agent, odd)

    done = leakscope("run", "--no-report", "--", "true", env={"LEAKSCOPE_AGENT": copy})

    assert done.returncode == 0
    assert [name for name in names() if name.startswith("true.")]


def test_the_agent_does_not_reach_a_program_twice_when_runs_are_nested(leakscope):
    inner = [sys.executable, "-m", "leakscope", "run", "--no-report", "-q", "-o", "in.leakscope"]

    done = leakscope(
        *("run", "--no-report", "-q", "--no-children", "-o", "out.leakscope", "--"),
        *inner,
        *("--", "sh", "-c", 'echo "$LD_PRELOAD"'),
    )

    assert done.stdout.count("libleakscope-agent") == 1, done.stderr
    assert names() == ["in.leakscope", "out.leakscope"]


# -- files -------------------------------------------------------------------------


def test_a_recording_is_private_named_after_the_program_and_alone(leakscope, programs):
    done = leakscope("run", "--no-report", "--", programs["leaky"], "0")

    (name,) = names()
    pid = done.stdout.split()[1]
    assert name == f"leaky.{pid}.leakscope"
    assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    assert f"recording: {name}" in done.stderr
    recording = api.load(name)
    assert recording.process.pid == int(pid)
    assert recording.process.exe == str(programs["leaky"])
    assert (recording.process.ended, recording.process.exit_status) == ("exited", 0)


def test_output_takes_a_directory_a_pattern_and_a_name(leakscope, tmp_path):
    (tmp_path / "folder").mkdir()

    leakscope("run", "--no-report", "-o", "folder", "--", "true")
    leakscope("run", "--no-report", "-o", "folder/x-%n", "--", "true")
    leakscope("run", "--no-report", "-o", "plain", "--", "true")

    found = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert len(found) == 2
    assert found[0].startswith("true.")
    assert found[1] == "x-true"
    assert (tmp_path / "plain").is_file()


def test_an_own_link_is_left_alone_and_its_target_untouched(leakscope, tmp_path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "out").symlink_to("target")

    leakscope("run", "--no-report", "-o", "out", "--", "true")

    assert (tmp_path / "target").read_text() == "precious"
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "out.1").is_file()
    assert api.load("out.1").process.exe.endswith("/true")


def test_nothing_stays_in_shared_memory(leakscope):
    done = leakscope("run", "--no-report", "-q", "--", "sh", "-c", 'echo "$LEAKSCOPE_DIR"')

    directory = private_part(Path(done.stdout.strip()))
    assert directory.parent == Path("/dev/shm")
    assert not directory.exists()


@pytest.mark.root
def test_without_shared_memory_live_recordings_are_next_to_the_output(leakscope, tmp_path):
    inner = f"{sys.executable} -m leakscope run --no-report -q -- sh -c 'echo $LEAKSCOPE_DIR'"
    script = f"mount -t tmpfs -o size=1m none /dev/shm && {inner}"

    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env=dict(os.environ, PYTHONPATH=str(ROOT / "src")),
        capture_output=True,
        text=True,
        check=True,
    )

    assert private_part(Path(done.stdout.strip())).parent == tmp_path
    assert names()[0].split(".")[0] in {"sh", "dash"}  # what /bin/sh is
    assert len(names()) == 1


@pytest.mark.root
def test_when_there_is_no_room_at_the_end_the_live_recording_stays(leakscope, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1100k", "none", place], check=True)
    try:
        fill = f"cat /dev/zero > {place}/fill; true"  # until there is no room
        done = leakscope("run", "--no-report", "-o", f"{place}/x.leakscope", "--", "sh", "-c", fill)
        left = sorted(path.name for path in place.iterdir())
    finally:
        subprocess.run(["umount", place], check=True)

    assert done.returncode == 2, done.stderr
    assert left == ["fill"]
    stay = {word.rstrip(":,") for word in done.stderr.split() if word.endswith((".live", ".live:"))}
    live = min(stay)
    try:
        assert "sh" in {api.load(each).process.exe[-2:] for each in stay}
    finally:
        shutil.rmtree(Path(live).parent)


# -- children ------------------------------------------------------------------------


def test_each_child_has_its_own_recording_and_a_fork_before_exec_none(leakscope):
    done = leakscope("run", "--keep-all", "--no-report", "--", "bash", "-c", "ls; sleep 0; true")

    assert sorted(name.split(".")[0] for name in names()) == sorted(["bash", "ls", "sleep"]), (
        names()
    )
    assert "3 recordings, the program's own: bash." in done.stderr


def test_exec_leaves_the_recording_of_the_program_before(leakscope):
    leakscope("run", "--no-report", "--", "bash", "-c", "exec ls /")

    by_name = {api.load(file).process.exe: api.load(file).process for file in names()}
    ended = {Path(exe).name: process.ended for exe, process in by_name.items()}
    assert ended == {"bash": "replaced by exec", "ls": "exited"}
    assert len({process.pid for process in by_name.values()}) == 1


def test_what_was_held_before_an_exec_is_said_not_to_have_been_examined(leakscope, tmp_path):
    source = tmp_path / "again.c"
    source.write_text(
        "#include <stdlib.h>\n#include <unistd.h>\n"
        "int main(int count, char **words) {\n"
        "  for (int i = 0; i < 5 && count == 1; i++) *(char *volatile *)malloc(4000) = 0;\n"
        '  return count == 1 ? execl(words[0], words[0], "again", (char *)0) : 0;\n'
        "}\n"
    )
    subprocess.run(["gcc", "-w", "-O0", source, "-o", tmp_path / "again"], check=True)

    done = leakscope("run", "--", tmp_path / "again")

    assert done.returncode == 0
    text = " ".join(done.stderr.split())
    assert "Not examined: 5 blocks (19.5 KiB) of 1 program that was replaced by exec" in text


def test_without_children_there_is_one_recording(leakscope):
    leakscope("run", "--no-report", "--no-children", "--", "bash", "-c", "ls; sleep 0; true")

    assert [name.split(".")[0] for name in names()] == ["bash"]


def test_hundreds_of_children_are_packed_while_the_program_runs(leakscope, tmp_path):
    count = "ls $LEAKSCOPE_DIR | wc -l"
    script = f"for i in $(seq 150); do /bin/true; done; sleep 2.5; {count}"

    done = leakscope(
        "run", "--keep-all", "--no-report", "-o", f"{tmp_path}/", "--", "bash", "-c", script
    )

    # Up to 64 that have ended may wait; then there are the shell's own and its children's.
    assert int(done.stdout) <= 64 + 5
    assert len([name for name in names() if name.startswith("true.")]) == 150


def test_a_daemon_keeps_its_live_recording(leakscope, programs):
    done = leakscope("run", "--no-report", "--", programs["daemon"], "3")

    line = next(line for line in done.stderr.splitlines() if "still runs" in line)
    pid, live = int(line.split()[2]), Path(line.split()[-1])
    try:
        assert done.returncode == 0
        assert find_live_file(pid).path == live
        assert api.load(live).process.exe == str(programs["daemon"])
        wait_for(lambda: not Path(f"/proc/{pid}").exists())
        assert api.load(live).sites["allocs"].sum() >= 60
    finally:
        shutil.rmtree(live.parent)


def test_waiting_for_children_brings_the_daemon_home(leakscope, programs):
    done = leakscope("run", "--no-report", "--wait-children", "--", programs["daemon"], "1.5")

    assert "still runs" not in done.stderr
    most = max(int(api.load(file).sites["allocs"].sum()) for file in names())
    assert most >= 30


# -- signals ---------------------------------------------------------------------------


def test_a_signal_to_us_reaches_the_program_and_we_report(start, programs):
    process = start("run", "--no-report", "--", programs["leaky"], "60")
    pid = pid_of(process)

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)

    assert "was killed by SIGTERM" in said
    assert process.returncode == 128 + signal.SIGTERM
    assert names() == [f"leaky.{pid}.leakscope"]


def test_no_thread_of_ours_takes_a_signal_from_the_one_that_waits_for_it(start, programs):
    """Numpy's threads did, now and then: SIGTERM ended leakscope and not the program."""
    process = start("run", "--no-report", "--", programs["leaky"], "1")
    pid_of(process)

    tasks = [
        task
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        if task.name != str(process.pid)
    ]
    masks = [re.search(r"SigBlk:\s*(\S+)", (task / "status").read_text())[1] for task in tasks]

    assert masks  # the one that waits for processes that end
    assert all(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks), masks
    process.communicate(timeout=30)


def test_killing_leakscope_does_not_disturb_the_program(start, programs):
    process = start("run", "--no-report", "--", programs["leaky"], "2")
    pid = pid_of(process)
    live = wait_for(lambda: find_live_file(pid)).path

    process.kill()
    process.wait()

    try:
        assert process.stdout.read() == "done\n"
        wait_for(lambda: not Path(f"/proc/{pid}").exists())
        assert api.load(live).sites["allocs"].sum() >= 40
    finally:
        shutil.rmtree(live.parent)


def test_a_dump_signal_writes_snapshots_while_the_program_runs(start, programs):
    process = start("run", "--no-report", "--dump-signal", "USR2", "--", programs["leaky"], "3")
    pid = pid_of(process)

    os.kill(pid, signal.SIGUSR2)
    wait_for(Path(f"leaky.{pid}.dump1.leakscope").exists)
    process.send_signal(signal.SIGUSR2)
    wait_for(Path(f"leaky.{pid}.dump2.leakscope").exists)
    _, said = process.communicate(timeout=30)

    assert "done" not in said
    assert f"snapshot written: {Path.cwd()}/leaky.{pid}.dump1.leakscope" in said
    counts = [
        int(api.load(f"leaky.{pid}.{part}leakscope").sites["allocs"].sum())
        for part in ("dump1.", "dump2.", "")
    ]
    assert counts == sorted(counts)
    assert counts[0] < 40 < 60 <= counts[2]


def test_start_and_stop_signals_bound_what_is_recorded(start, programs):
    process = start(
        *("run", "--no-report", "--start-signal", "USR1", "--stop-signal", "USR1"),
        *("--", programs["leaky"], "3"),
    )
    pid = pid_of(process)
    time.sleep(0.7)
    os.kill(pid, signal.SIGUSR1)
    time.sleep(1)
    os.kill(pid, signal.SIGUSR1)
    process.communicate(timeout=30)

    recording = api.load(f"leaky.{pid}.leakscope")
    recorded = int(recording.sites["allocs"].sum())
    assert 10 <= recorded <= 30
    assert recorded + recording.coverage.dropped["paused"] >= 60


RESUMED = r"""
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
static void *volatile kept, *volatile nothing;
int main(void) {
  kept = malloc(3);
  raise(SIGUSR1);
  for (int i = 0; i < 100; i++) {
    kept = realloc(nothing, 5000);
    kept = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  raise(SIGKILL);
}
"""


def test_a_start_signal_is_for_every_kind_of_allocation(agent, tmp_path):
    (tmp_path / "resumed.c").write_text(RESUMED)
    program = tmp_path / "resumed"
    subprocess.run(["gcc", "-w", tmp_path / "resumed.c", "-o", program], check=True)
    how = {"LEAKSCOPE_DIR": str(tmp_path), "LEAKSCOPE_START_SIGNAL": str(int(signal.SIGUSR1))}
    subprocess.run([program], env=os.environ | {"LD_PRELOAD": str(agent)} | how, check=False)
    (path,) = tmp_path.glob("*.live")
    recording = api.load(path)
    kinds = [int(recording.sites["kind"][block["site"]]) for block in recording.blocks]
    assert kinds.count(Kind.REALLOC) == 100
    assert len(recording.ranges) >= 100


def test_recording_can_start_late(leakscope, programs):
    done = leakscope("run", "--no-report", "--start-after", "1", "--", programs["leaky"], "2")

    recording = api.load(f"leaky.{done.stdout.split()[1]}.leakscope")
    assert 10 <= int(recording.sites["allocs"].sum()) <= 25
    assert recording.coverage.dropped["paused"] >= 15


def test_size_and_depth_limits_reach_the_recording(leakscope, programs):
    done = leakscope(
        *("run", "--no-report", "--min-size", "1KiB", "--max-size", "2KiB", "--depth", "3"),
        *("--", programs["leaky"], "0.2"),
    )

    recording = api.load(f"leaky.{done.stdout.split()[1]}.leakscope")
    coverage = recording.coverage
    assert (coverage.min_size, coverage.max_size, coverage.max_depth) == (1024, 2048, 3)
    assert coverage.dropped["filtered"] >= 4
    assert int(recording.sites["allocs"].sum()) <= 1  # stdout's buffer is within the limits


def test_sampling_reaches_the_recording(leakscope):
    leakscope(
        "run", "--no-report", "--sample", "1KiB", "-o", "x", "--", "ls", "-lR", "/usr/share/doc"
    )

    coverage = api.load("x").coverage
    assert (coverage.mode, coverage.sample_bytes) == ("sampled", 1024)


# -- control -----------------------------------------------------------------------------


def test_control_stops_starts_and_dumps_a_running_program(start, leakscope, programs):
    process = start("run", "--no-report", "--", programs["leaky"], "60")
    pid = pid_of(process)
    wait_for(lambda: find_live_file(pid))

    status = leakscope("control", pid)
    assert status.stdout.startswith(f"process {pid}: recording, every allocation\n")

    assert "paused" in leakscope("control", pid, "stop").stdout
    time.sleep(0.3)
    before = api.load(leakscope("control", pid, "dump").stdout.strip())
    time.sleep(0.6)
    after = api.load(leakscope("control", pid, "dump", "-o", "second").stdout.strip())
    assert before.process.ended == after.process.ended == "running"
    assert int(after.sites["allocs"].sum()) == int(before.sites["allocs"].sum())
    assert after.coverage.dropped["paused"] >= before.coverage.dropped["paused"] + 5

    assert "recording" in leakscope("control", pid, "start").stdout
    time.sleep(0.6)
    third = api.load(leakscope("control", pid, "dump").stdout.strip())
    assert int(third.sites["allocs"].sum()) >= int(after.sites["allocs"].sum()) + 5
    assert {f"leaky.{pid}.dump1.leakscope", f"leaky.{pid}.dump2.leakscope", "second"} <= set(
        names()
    )


def test_control_of_a_program_that_hangs(start, leakscope, programs):
    process = start("run", "--no-report", "--", programs["leaky"], "60")
    pid = pid_of(process)
    wait_for(lambda: find_live_file(pid))

    os.kill(pid, signal.SIGSTOP)
    done = leakscope("control", pid, "dump")

    assert done.returncode == 0, done.stderr
    assert api.load(done.stdout.strip()).process.pid == pid
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["4194999"], "there is no process 4194999"),
        (["0"], "0 is not a process id"),
        (["OURS"], "process OURS is not being traced"),
        (["OURS", "stop", "-o", "x"], "--output belongs to dump"),
    ],
)
def test_control_of_what_is_not_traced(leakscope, arguments, reason):
    ours = str(os.getpid())

    done = leakscope("control", *(word.replace("OURS", ours) for word in arguments))

    assert done.returncode == 2
    assert done.stderr.startswith(f"leakscope: {reason.replace('OURS', ours)}")
    assert names() == []


# -- without the command line ------------------------------------------------------------


@contextlib.contextmanager
def preloaded(agent, program, *arguments, **variables):
    environment = dict(os.environ, LD_PRELOAD=str(agent), **variables)
    process = subprocess.Popen(
        [program, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, pid_of(process)
    finally:
        process.kill()
        process.communicate()


def test_two_environment_variables_are_enough(agent, programs, leakscope, tmp_path):
    with preloaded(agent, programs["leaky"], "1", LEAKSCOPE_DIR=str(tmp_path)) as (process, pid):
        live = find_live_file(pid)
        assert live.path == tmp_path / f"{pid}.0.live"
        assert process.wait() == 0

    assert [file.pid for file in list_live_files(tmp_path)] == [pid]
    assert api.load(live.path).sites["allocs"].sum() >= 20


def test_the_config_file_switches_a_running_program(agent, programs, leakscope, tmp_path):
    config = tmp_path / "leakscope.conf"
    line = f"trace leaky dir={tmp_path} min=8 depth=9\n"

    with preloaded(agent, programs["leaky"], "60", LEAKSCOPE_CONFIG=str(config)) as (_, pid):
        # 256 calls into the allocator, or what the program does in a second, come in between.
        assert find_live_file(pid) is None
        asleep = leakscope("control", pid)
        config.write_text(line)
        # The file is there a moment before the agent has filled in its header.
        live = wait_for(lambda: (found := find_live_file(pid)) and found.started() and found, 60)
        wait_for(lambda: api.load(live.path).sites["allocs"].sum() > 0)
        recorded = api.load(live.path)
        config.write_text("# nothing\n")
        wait_for(lambda: "paused" in leakscope("control", pid).stdout, 60)

    assert asleep.returncode == 2
    assert "the agent is in process" in asleep.stderr
    assert (recorded.coverage.min_size, recorded.coverage.max_depth) == (8, 9)


def test_a_config_file_that_others_may_write_is_ignored(agent, programs, tmp_path):
    config = tmp_path / "leakscope.conf"
    config.write_text(f"trace leaky dir={tmp_path}\n")
    config.chmod(0o666)

    with preloaded(agent, programs["leaky"], "0.1", LEAKSCOPE_CONFIG=str(config)) as (process, _):
        process.wait()

    assert list_live_files(tmp_path) == ()


# -- from Python -----------------------------------------------------------------------


def test_run_from_python_returns_typed_results(agent, programs, tmp_path):
    run = api.run([programs["leaky"], "0.5", "3"], output=tmp_path)

    assert (run.exit_status, run.killed_by, run.returncode) == (3, None, 3)
    assert run.outcome == "exited with status 3"
    assert [path.name for path in run.files] == [f"leaky.{run.pid}.leakscope"]
    assert run.recordings[0].process.pid == run.pid
    assert run.recordings[0].process.exit_status == 3
    assert run.program.libc == "glibc"
    assert run.running == run.problems == run.snapshots == ()


def test_run_from_another_thread(agent, tmp_path):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(api.run(["sh", "-c", "exit 5"], output=tmp_path))
    )
    thread.start()
    thread.join()

    assert found[0].exit_status == 5
    assert len(found[0].recordings) == 1


def test_an_environment_can_be_given(agent, tmp_path):
    run = api.run(
        ["sh", "-c", "exit $WANTED"],
        output=tmp_path,
        env={"WANTED": "9", "PATH": os.environ["PATH"]},
    )

    assert run.exit_status == 9


# -- doctor -----------------------------------------------------------------------------


def test_doctor_tries_the_agent(leakscope):
    done = leakscope("doctor")

    assert done.returncode == 0
    assert done.stdout.startswith("programs can be traced here\n+ agent ")


def test_doctor_on_a_broken_agent(leakscope, tmp_path):
    (tmp_path / "libleakscope-agent.so").write_text("no library")

    done = leakscope("doctor", env={"LEAKSCOPE_AGENT": f"{tmp_path}/libleakscope-agent.so"})

    assert done.returncode == 2
    assert done.stdout.startswith("nothing can be traced: ")
    assert "does not work in /" in done.stdout


def test_doctor_on_a_program_as_json(leakscope, programs):
    done = leakscope("doctor", "--json", programs["leaky"])

    document = json.loads(done.stdout)
    checks = {check["name"]: check for check in document["checks"]}
    assert document["able"] is True
    assert checks["debug info"]["state"] == "works"
    assert checks["its libc"]["text"] == "glibc"


def test_doctor_on_a_process_with_and_without_the_agent(start, leakscope, programs):
    process = start("run", "--no-report", "--", programs["leaky"], "60")
    pid = pid_of(process)
    wait_for(lambda: find_live_file(pid))

    traced = leakscope("doctor", pid)
    untraced = leakscope("doctor", os.getpid())

    assert traced.returncode == 0
    assert traced.stdout.startswith(f"process {pid} is being traced: leakscope report {pid}\n")
    assert "its allocator  that of glibc" in traced.stdout
    assert untraced.returncode == 0  # it can be scanned
    lines = untraced.stdout.splitlines()
    assert f"can be watched and scanned now: leakscope scan {os.getpid()}" in lines[0]
    assert [line.split()[1] for line in lines[1:4]] == ["watch", "scan", "attach"]
    assert "+ watch" in untraced.stdout
    assert "runs without the agent" in untraced.stdout
    assert f"leakscope watch {os.getpid()}" in "\n".join(lines[:24])


def test_a_program_that_is_kept_from_the_agent_is_not_called_clean(trace, tmp_path):
    """What `env` starts in its place is another program; a static one has no agent."""
    (tmp_path / "kept.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-static", "kept.c", "-o", "kept"], cwd=tmp_path, check=True)

    traced = trace(["env", tmp_path / "kept"])

    assert traced.returncode == 2, traced.stderr
    assert f"{tmp_path}/kept was not traced: {tmp_path}/kept is statically" in traced.stderr
    assert traced.stderr.count("not traced") == 1
