# SPDX-License-Identifier: Apache-2.0
"""The walks of examples/walks: each screen begins with the subject, the verdict or the rate, and
the next command, and a command that a screen says is next works when it is pasted."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WALKS = ROOT / "examples" / "walks"
sys.path.insert(0, str(WALKS))
from clock import next_command  # noqa: E402

VERDICT = re.compile(
    r"^leakscope: (?:\d+ places? leaks? |no (?:other )?leak found|\d+ of \d+ processes leak|"
    r"(?:LEAK|GROWING|KEPT|no growth): |not enough data|growing fast|.* in use \(\d+ %\); )",
    re.MULTILINE,
)


@pytest.fixture
def path(tmp_path) -> str:
    """A PATH on which `leakscope` is the one under test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "leakscope"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m leakscope "$@"\n')
    script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def walk(name, folder, path, *arguments):
    """Return the screens of a walk by what they show, each with its exit status."""
    environment = os.environ | {
        "PATH": path,
        "WALK_FOLDER": str(folder),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "DEBUGINFOD_URLS": "",
    }
    done = subprocess.run(
        ["bash", WALKS / f"{name}.sh", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted((folder / "screens").glob("*.txt"))
    timed = [line.split("\t")[0] for line in (folder / "times").read_text().splitlines()]
    assert timed == [file.stem.partition("-")[2] for file in files]
    return {
        file.stem.partition("-")[2]: (
            file.read_text(encoding="utf-8"),
            int(Path(f"{file}.status").read_text()),
        )
        for file in files
    }


def report_of(text):
    """The lines from the verdict on; before it are the program's own and those of each look."""
    at = VERDICT.search(text)
    assert at is not None, text
    return text[at.start() :]


def first_screen(text, subject):
    rows = [
        line[at : at + 80]
        for line in report_of(text).splitlines()
        for at in range(0, len(line) or 1, 80)
    ][:24]
    screen = "\n".join(rows)
    assert subject in " ".join(screen.split()), screen
    assert "Next: " in screen, screen
    command = next_command(report_of(text))
    assert command is not None, screen
    assert command.split()[0] == "leakscope"
    assert " 0 B" not in screen.partition("Heap: ")[0], screen
    assert not re.search(r"\b1 (?:blocks|places|threads|processes|mappings)\b", screen), screen
    return command


def test_the_operator(tmp_path, path):
    screens = walk("operator", tmp_path / "walk", path, "4s", "5s")

    triage, status = screens["triage"]
    assert status == 0
    assert first_screen(triage, "things are odd" if "things are" in triage else "odd")
    watch, status = screens["watch"]
    assert status == 3
    asked = first_screen(watch, "walk-daemon (pid ")
    assert re.fullmatch(r"leakscope find \d+", asked)
    assert re.search(r"walk-daemon \(pid \d+\), private memory [\d.]+ MiB \+[\d.,]+ \wiB/s", " ".join(watch.split()))  # fmt: skip
    find, status = screens["find"]
    assert status == 1
    again = first_screen(find, "walk-daemon (pid ")
    assert re.search(r"LEAK: walk-daemon \(pid \d+\) loses [\d.]+ [KM]iB/s", find)
    assert "1,000 bytes" in find
    assert re.fullmatch(r"leakscope find \d+ --attach", again)
    lines, status = screens["lines"]
    assert status == 1
    first_screen(lines, "walk-daemon (pid ")
    assert re.search(r"place +handle_request\(\) at \S*daemon\.c:18", lines)


def test_the_developer(tmp_path, path):
    screens = walk("developer", tmp_path / "walk", path)

    run, status = screens["run"]
    assert status == 1
    assert first_screen(run, "parser (pid ").startswith("leakscope report --verbose parser.")
    assert re.search(r"in parse at \S*parser\.cc:1[23]", run)
    stacks, status = screens["stacks"]
    assert status == 1
    first_screen(stacks, "parser (pid ")
    mended, status = screens["mended"]
    assert status == 0
    assert "no leak found" in mended
    first_screen(mended, "parser (pid ")


def test_the_job_of_ci(tmp_path, path):
    folder = tmp_path / "walk"
    screens = walk("ci", folder, path)
    statuses = {what: status for what, (_, status) in screens.items()}

    assert statuses == {"build": 99, "known": 0, "red": 2, "runner": 1, "prefork": 99}
    texts = {what: text for what, (text, _) in screens.items()}
    assert "leakscope: 3 of 3 processes leak" in texts["build"]
    assert "of 3 processes" in texts["prefork"]
    assert "leakscope: exit status 2 is that of make" in texts["red"]
    commands = {what: first_screen(text, "process") for what, text in texts.items() if what != "runner"}  # fmt: skip
    commands["runner"] = first_screen(texts["runner"], "python3")
    # What is not kept is not named.
    assert commands["known"] == "leakscope run -- make -s -j2 check"
    # What Python holds has grown until the end or has not; that depends on the machine's load.
    again, held = "leakscope run -- python3 -m unittest test_it", "leakscope report --all "
    runner = commands["runner"]
    assert runner == again or (folder / runner.removeprefix(held)).is_file()
    for command in (commands["build"], commands["prefork"]):
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env=os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 1, done.stderr
        assert "leakscope: 1 place" in done.stdout or "leakscope: 2 places" in done.stdout


def test_the_caller_from_python(tmp_path):
    done = subprocess.run(
        [sys.executable, WALKS / "library.py", "5"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert done.returncode == 0, done.stderr
    assert re.search(r"^lost [\d]+ parse at \S*parser\.cc:1[23]$", done.stdout, re.MULTILINE)
    assert "leakscope: LEAK: walk-server (pid " in done.stdout
    assert re.search(r"^run: [\d.]+ s$", done.stdout, re.MULTILINE)
