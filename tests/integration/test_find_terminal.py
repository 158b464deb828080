# SPDX-License-Identifier: Apache-2.0
"""On a terminal `leakscope find` asks before it stops a process, and does as it is told."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHIN_S = 60


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    path = tmp_path_factory.mktemp("terminal") / "daemon"
    subprocess.run(["gcc", "-O2", ROOT / "examples/walks/daemon.c", "-o", path], check=True)
    with subprocess.Popen([path], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process.pid
        process.kill()


def converse(answer, *arguments):
    """Run it on a terminal of its own; return what stood there before the answer and after, and
    the exit status."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "leakscope", "find", *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "NO_COLOR": "1"},
        start_new_session=True,
    )
    os.close(theirs)
    before, after, until = "", "", time.monotonic() + WITHIN_S
    asked = False
    try:
        while time.monotonic() < until and select.select([ours], [], [], WITHIN_S)[0]:
            try:
                piece = os.read(ours, 4096).decode()
            except OSError:  # its last descriptor is closed
                break
            after, before = (after + piece, before) if asked else (after, before + piece)
            if not asked and before.endswith("[Y/n] "):
                asked = True
                answer(ours, process)
        return before, after, process.wait(timeout=WITHIN_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        os.close(ours)


def typing(text):
    return lambda terminal, _: os.write(terminal, text)


@pytest.mark.parametrize("text", [b"\n", b"yes\n"])
def test_who_agrees_gets_the_heap_walked(daemon, text):
    before, after, status = converse(typing(text), daemon, "--for", "3s", "--max-pause", "2")

    assert f"Stop daemon (pid {daemon}) twice, for 2 s at most, to walk its heap?" in before
    assert "walking" not in before
    assert "walking its heap again" in after
    assert "LEAK: daemon" in after
    assert status == 1


@pytest.mark.parametrize("text", [b"n\n", b"\x04"])
def test_who_does_not_gets_what_proc_tells(daemon, text):
    before, after, status = converse(typing(text), daemon, "--for", "3s")

    assert "walking" not in before + after
    lines = after.replace("\r", "").splitlines()
    assert any(line.startswith("leakscope: GROWING: daemon") for line in lines)
    assert "Note: the heap was not walked, as you said." in lines
    assert status == 3


def test_an_interrupt_in_place_of_an_answer_ends_it(daemon):
    _, after, status = converse(lambda _, process: process.send_signal(2), daemon, "--for", "3s")

    assert "Traceback" not in after
    assert status == 130


def test_with_yes_nothing_is_asked(daemon):
    before, after, status = converse(
        typing(b""), daemon, "--for", "3s", "--yes", "--max-pause", "2"
    )

    assert "[Y/n]" not in before + after
    assert status == 1
