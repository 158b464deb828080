# SPDX-License-Identifier: Apache-2.0
"""`leakscope find`: the verdict, what grows and who holds it, on one screen within a minute."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(
    (ROOT / "docs/reference/json-schema/leakscope-find-1.json").read_text(encoding="utf-8")
)
SHORT = ("--for", "3s", "--max-pause", "5")


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("find") / "find-daemon"
    source = ROOT / "tests/programs/find/find_leaks.cc"
    subprocess.run(["g++", "-g", "-O1", "-pthread", source, "-o", path], check=True)
    return path


@contextlib.contextmanager
def running(*command: object):
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def find(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run("find", *arguments)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "leakscope", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80"},
    )


def answer(*arguments: object) -> tuple[int, dict]:
    done = find(*arguments, "--json")
    assert done.stderr == ""
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["status"] == done.returncode
    return done.returncode, document


def test_lost_bytes_that_grow_are_a_leak_and_the_held_ones_have_a_holder(program):
    with running(program, "both") as pid:
        status, found = answer(pid, *SHORT)

    assert status == 1
    assert found["verdict"] == "leak"
    lost, held = found["heap"]["grown"][:2]
    assert lost["what"] == "Request objects, of find-daemon"
    assert lost["low"] == lost["high"] == 1016
    assert lost["now"]["lost_blocks"] == lost["now"]["blocks"] > lost["then"]["blocks"]
    assert held["what"] == "Session objects, of find-daemon"
    assert held["now"]["lost_blocks"] == 0
    assert held["holders"][0]["root"] == "sessions in find-daemon"
    assert held["holders"][0]["share"] > 0.99
    # As often lost as kept.
    kept = (held["now"]["bytes"] - held["then"]["bytes"]) / found["heap"]["seconds"]
    assert found["rate"] == pytest.approx(kept, rel=0.2)
    assert found["next_step"] == f"leakscope find {pid} --attach"


@pytest.mark.parametrize("way", ["lost", "held"])
def test_the_first_screen_has_the_subject_the_rate_and_the_next_command(program, way):
    stripped = program.with_name("stripped")
    subprocess.run(["strip", program, "-o", stripped], check=True)
    with running(stripped, way) as pid:
        done = find(pid, *SHORT)

    assert done.returncode == {"lost": 1, "held": 3}[way], done.stdout + done.stderr
    screen = done.stdout.splitlines()[:24]
    # A command is not broken over lines: it is to be pasted.
    assert all(len(line) <= 80 or line.startswith("Next: ") for line in screen)
    head = " ".join(screen[:2])
    assert f"stripped (pid {pid})" in head
    assert "/s" in head
    assert ("LEAK" in head) == (way == "lost")
    assert f"Next: leakscope find {pid} --attach" in screen
    text = "\n".join(screen)
    assert "  rate     private memory: " in text  # the heap's is with its size, and another
    # Type information stays where symbols were removed.
    assert {"lost": "Request", "held": "Session"}[way] + " objects, of stripped" in text
    assert ("nobody: nothing points to them" if way == "lost" else "data of stripped") in text


def test_without_leave_to_stop_only_proc_is_read(program):
    with running(program, "fd") as pid:
        status, found = answer(pid, "--for", "3s", "--no-stop")

    assert (status, found["verdict"]) == (3, "growing")
    assert found["kind"] == "open descriptors"
    assert found["descriptors"][0][0] == "/dev/null"
    assert found["stopped_ms"] == 0
    assert found["heap"] is None


def test_what_the_allocator_keeps_is_no_leak_and_has_a_setting(program):
    with running(program, "kept") as pid:
        status, found = answer(pid, *SHORT)

    assert (status, found["verdict"]) == (0, "kept by the allocator")
    parts = found["heap"]["spaces"]["parts"]
    assert len([part for part in parts if part["name"].startswith("arena ")]) == 4
    assert sum(part["free"] for part in parts) > 80 << 20
    assert found["heap"]["spaces"]["beside"][0][0] == 40
    assert found["next_step"].startswith("MALLOC_ARENA_MAX=2")


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        ("exec", r"was replaced by another program \(exec\)"),
        ("end", "ended while it was looked at"),
    ],
)
def test_a_process_that_ends_or_becomes_another_is_told_so(program, way, sentence):
    from leakscope._finding import find as look
    from leakscope.errors import TargetError

    process = subprocess.Popen(
        [program, way], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def say(text: str) -> None:
        if text.startswith("waiting"):  # between the walks
            process.stdin.write("now\n")
            process.stdin.flush()
            time.sleep(0.5)

    try:
        process.stdout.readline()
        with pytest.raises(TargetError, match=sentence):
            look(process.pid, seconds=3, max_pause_s=5, say=say)
    finally:
        process.kill()
        process.communicate()


def test_of_several_processes_the_fastest_grower_is_chosen(program):
    name = "several-of-them"
    copy = program.with_name(name)
    shutil.copy(program, copy)
    with running(copy, "fd") as slow, running(copy, "held") as fast:
        status, found = answer(name, *SHORT)

    assert (status, found["pid"]) == (3, fast)
    assert [rival["pid"] for rival in found["rivals"]] == [slow]


def test_a_traced_process_gives_the_lines(program, tmp_path):
    command = [sys.executable, "-m", "leakscope", "run", "-o", tmp_path, "--", program, "lost"]
    name = program.with_name("traced-one")
    shutil.copy(program, name)
    command[-2] = name
    with running(*command):
        try:
            status, found = answer("traced-one", *SHORT)
        finally:
            subprocess.run(["pkill", "-x", "traced-one"], check=False)

    assert status == 1
    assert found["heap"]["grown"][0]["place"] == "lose() at find_leaks.cc:25"
    assert found["next_step"] == f"leakscope report {found['pid']}"


def test_a_watch_with_scan_calls_lost_bytes_that_grow_a_leak(program):
    with running(program, "lost") as pid:
        done = run("watch", pid, "--scan", "--for", "2s", "--plain")

    assert done.returncode == 1, done.stdout + done.stderr
    head = done.stdout[done.stdout.index("\nleakscope: ") :].split("\n")[1]
    assert re.match(rf"leakscope: 1 leak after .*: find-daemon \(pid {pid}\) loses .*/s", head)
    assert f"leakscope find {pid}" in done.stdout
    assert "Request objects, of find-daemon" in done.stdout


def test_the_document_of_a_watch_with_scan_says_what_the_status_says(program, tmp_path):
    page = tmp_path / "watch.html"
    with running(program, "lost") as pid:
        done = run("watch", pid, "--scan", "--for", "2s", "--json", "--html", page)

    found = json.loads(done.stdout)
    schema = ROOT / "docs/reference/json-schema/leakscope-watch-1.json"
    jsonschema.validate(found, json.loads(schema.read_text()))
    assert (done.returncode, found["leak_count"]) == (1, 1), done.stderr
    assert f"(pid {pid}) loses " in found["verdict"]
    (heap,) = found["heaps"]
    assert (heap["pid"], heap["not_walked"], heap["proves_leak"]) == (pid, None, True)
    came = heap["now"]["lost_bytes"] - heap["then"]["lost_bytes"]
    assert came == pytest.approx(heap["lost_rate"] * heap["seconds"], rel=1e-6)
    assert found["verdict"] in page.read_text()


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("4194305", "there is no process"),
        ("no-such-program", "there is no process called"),
        ("\u0661", "there is no process called"),
        ("", "has no empty name"),
    ],
)
def test_what_cannot_be_found_is_one_sentence(target, sentence):
    done = find(target)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_static_program_is_not_told_to_be_run(tmp_path):
    program = tmp_path / "static-daemon"
    source = ROOT / "tests/programs/find/find_leaks.cc"
    subprocess.run(["g++", "-g", "-O1", "-static", "-pthread", source, "-o", program], check=True)
    with running(program, "lost") as pid:
        done = find(pid, *SHORT)
    assert f"Next: leakscope find {pid} --attach" in done.stdout
    assert "leakscope run" not in done.stdout + done.stderr
