# SPDX-License-Identifier: Apache-2.0
"""Whatever a user names is known by its content, and every command that reads takes it."""

import contextlib
import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leakscope.recording.packed import MAGIC


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def sleeping(*command, **variables):
    process = subprocess.Popen(command, env=os.environ | variables)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def said(leakscope, *arguments):
    done = leakscope(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("leakscope: ")
    return done.stderr


def test_a_process_by_number_and_by_name(leakscope, agent, place):
    shutil.copy("/bin/sleep", place / "dozes_long")
    (place / "live").mkdir()
    traced = {"LD_PRELOAD": str(agent), "LEAKSCOPE_DIR": str(place / "live")}
    with sleeping(place / "dozes_long", "60", **traced) as process:
        deadline = time.monotonic() + 20
        while not list((place / "live").glob("*.live")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        # Here the program lies in the current directory as well: it is no recording.
        for name in (process.pid, "dozes_long"):
            done = leakscope("report", "--json", name)
            assert json.loads(done.stdout)["processes"][0]["process"]["pid"] == process.pid
        assert str(process.pid) in leakscope("control", "dozes_long").stdout
    with sleeping(place / "dozes_long", "60") as process:
        for name in (process.pid, "dozes_long"):
            text = said(leakscope, "report", name)
            assert f"process {process.pid} is not being traced" in text
            assert f"leakscope find {process.pid}" in text


def test_a_file_is_known_by_its_content(leakscope, place):
    assert leakscope("run", "--no-report", "-o", "a.leakscope", "--", "ls").returncode == 0
    done = leakscope("watch", os.getpid(), "--plain", "--for", "1s", "--record", "w.leakscope")
    assert done.returncode in (0, 3), done.stderr
    runs, watch = place / "any.name", place / "other.name"
    Path("a.leakscope").rename(runs)
    Path("w.leakscope").rename(watch)

    assert json.loads(leakscope("report", "--json", runs).stdout)["schema"].startswith(
        "leakscope-findings"
    )
    assert json.loads(leakscope("report", "--json", watch).stdout)["schema"].startswith(
        "leakscope-watch"
    )
    assert len(json.loads(leakscope("report", "--json", runs, runs).stdout)["processes"]) == 2
    both = leakscope("report", place)  # a folder: all that is in it
    assert "total" in both.stdout.lower()
    assert "Recorded: " in both.stdout
    assert "reported alone" in said(leakscope, "report", "--json", place)
    for command, file, step in (
        ("scan", runs, "report"),
        ("scan", watch, "report"),
        ("find", runs, "report"),
        ("watch", watch, "report"),
        ("control", runs, ""),
    ):
        text = said(leakscope, command, file)
        assert f"{file} is a recording" in text
        assert f"leakscope {step}" in text


def test_a_core_file(leakscope, place):
    if Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core":
        pytest.skip("kernel.core_pattern is not 'core': cores go elsewhere on this machine")
    endless = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    subprocess.run(
        [sys.executable, "-c", "import os; os.abort()"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, endless), check=False,
        env=os.environ | {"PYTHONMALLOC": "malloc"},
    )  # fmt: skip
    (core,) = place.glob("core*")
    core = core.rename("memory")

    scanned, reported = (leakscope(verb, "--json", core) for verb in ("scan", "report"))

    assert (scanned.returncode, scanned.stderr) == (reported.returncode, reported.stderr)
    kept = [json.loads(done.stdout) for done in (scanned, reported)]
    assert kept[0]["schema"].startswith("leakscope-heap")
    assert kept[0]["blocks"] == kept[1]["blocks"] if "blocks" in kept[0] else kept[1].keys()
    assert "leakscope scan" in said(leakscope, "find", core)


def test_what_it_is_not_is_said(leakscope, place):
    shutil.copy("/bin/true", "program")
    Path("packed.gz").write_bytes(gzip.compress(MAGIC))
    Path("empty").mkdir()
    os.mkfifo("pipe")
    for name, sentence in (
        ("program", "is a program or a library"),
        ("packed.gz", "packed with gzip"),
        ("empty", "no recording in the directory"),
        ("pipe", "not a regular file"),
        ("/etc/passwd", "is not a core file, a recording"),
        ("no_such_thing", "neither a process nor a file"),
        ("99999999999", "there is no process"),
        ("", "empty name"),
    ):
        assert sentence in said(leakscope, "report", name)


def test_what_only_a_watch_has_is_not_asked_of_a_program(leakscope, place):
    assert leakscope("run", "-o", "rec.leakscope", "--", "/bin/true").returncode in {0, 2}
    text = said(leakscope, "report", "rec.leakscope", "--of", "nginx")
    assert "--of is for recordings of a watch, and rec.leakscope is a recording" in text


def test_an_empty_file_is_called_so(leakscope, place):
    (place / "empty.leakscope").touch()
    assert "empty.leakscope is empty" in said(leakscope, "report", "empty.leakscope")


@pytest.mark.parametrize("command", ["attach", "control", "detach"])
def test_what_takes_no_file_does_not_ask_for_one(leakscope, place, command):
    text = said(leakscope, command, "no_such_program")
    assert "there is no process called 'no_such_program'" in text
    assert "file" not in text


def test_a_thread_of_the_kernel_has_no_heap_to_attach_to(leakscope):
    if Path("/proc/2/comm").read_text() != "kthreadd\n":
        pytest.skip("a container without threads of the kernel")
    assert "a thread of the kernel" in said(leakscope, "attach", "2")


_THREADS = """
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("up", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    "command",
    [
        "attach",
        "control",
        "detach",
        "doctor",
        "find",
        "java dump",
        "report",
        "scan",
        "top",
        "watch",
    ],
)
def test_the_number_of_a_thread_says_whose_it_is(leakscope, command):
    with subprocess.Popen([sys.executable, "-c", _THREADS], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"up\n"
            tasks = os.listdir(f"/proc/{process.pid}/task")
            (thread,) = (task for task in tasks if int(task) != process.pid)
            text = said(leakscope, *command.split(), thread)
            assert f"{thread} is a thread of process {process.pid} (python" in text
            assert f"Name the process instead: {process.pid}" in text
        finally:
            process.kill()
