# SPDX-License-Identifier: Apache-2.0
"""`leakscope top` of a real traced program, in a pseudo-terminal with keys typed."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from leakscope.recording import live
from leakscope.recording.live_totals import read_totals
from leakscope.trace.live_files import find_live_file

SOURCE = """
#include <stdlib.h>
#include <unistd.h>
struct node { struct node *next; char data[200]; };
static struct node *list;
static void *volatile sink;
__attribute__((noinline)) static void drop(void) { sink = malloc(300); }
__attribute__((noinline)) static void keep(void) {
  struct node *node = malloc(sizeof *node);
  node->next = list;
  list = node;
}
int main(void) {
  for (;;) {
    for (int i = 0; i < 10; i++) { drop(); keep(); free(malloc(50)); }
    usleep(20000);
  }
}
"""
ESCAPES = re.compile(rb"\x1b\[[0-9;?<>=]*[a-zA-Z]|\x1b[()][A-Z0-9]")


class Terminal:
    """A command in a terminal of 80 by 24, and all that it wrote."""

    def __init__(self, *command):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "leakscope", *map(str, command)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=environment | {"TERM": "xterm-256color"},
        )
        os.close(theirs)
        self.raw = b""
        self.from_ = 0

    def read(self, seconds):
        if select.select([self.ours], [], [], seconds)[0]:
            try:
                part = os.read(self.ours, 65536)
            except OSError:
                return False
            self.raw += part
            return bool(part)
        return True

    def until(self, text):
        """Wait until `text` was written since the last key."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            alive = self.read(0.1)
            seen = ESCAPES.sub(b"", self.raw[self.from_ :]).decode(errors="replace")
            if text in seen:
                return seen
            if not alive:
                break
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        pytest.fail(f"never came: {text!r} in {ESCAPES.sub(b'', self.raw).decode()[-4000:]}")

    def press(self, keys):
        self.from_ = len(self.raw)
        os.write(self.ours, keys)

    def end(self):
        while self.read(0.5) and self.process.poll() is None:
            pass
        status = self.process.wait(30)
        while self.read(0) and select.select([self.ours], [], [], 0)[0]:
            pass
        os.close(self.ours)
        assert b"Traceback" not in self.raw
        return status


@pytest.fixture
def program(tmp_path, monkeypatch, agent):
    assert agent.exists()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.c").write_text(SOURCE)
    subprocess.run(["gcc", "-g", "-O1", "-o", "app", "app.c"], check=True)
    return tmp_path / "app"


@pytest.fixture
def pid(program):
    command = [sys.executable, "-m", "leakscope", "run", "--no-report", "-q", "-o", "end", "--"]
    with subprocess.Popen([*command, program]) as process:
        deadline = time.monotonic() + 60
        found = 0
        while not found and time.monotonic() < deadline:
            time.sleep(0.1)
            done = subprocess.run(
                ["pgrep", "-x", "-P", str(process.pid), "app"],
                capture_output=True,
                text=True,
                check=False,
            )
            found = int(done.stdout or 0)
        yield found
        subprocess.run(["kill", str(found)], check=False)


def test_keys_scan_hold_dump_pause_and_the_program_goes_on(pid, tmp_path, leakscope):
    screen = Terminal("top", pid)
    screen.until("drop at app.c:7")
    screen.until("% of a core")
    screen.press(b"s")
    screen.until("LOST")
    screen.press(b"\x1b")
    screen.until("ago found lost blocks here")
    screen.press(b"/keep\r")
    screen.until("1 of ")
    screen.press(b"h")
    screen.until("list in app")
    screen.press(b"\x1b")
    screen.until("keep at app.c:9: ")
    screen.press(b"p")
    screen.until("PAUSED")
    assert "paused" in leakscope("control", pid).stdout
    screen.press(b"p")
    screen.until("recording goes on")
    screen.press(b"d")
    screen.until("written: ")
    (dumped,) = tmp_path.glob("app.*.leakscope")
    screen.press(b"q")
    assert screen.end() == 0
    assert screen.raw.count(b"\x1b[?1049h") == screen.raw.count(b"\x1b[?1049l") == 1
    assert not re.search(rb"\x1b\[[0-9;]*(?:3[1-7]|38;[25])[;m]", screen.raw)  # no colour
    os.kill(pid, 0)

    still = Terminal("top", dumped)
    still.until("a still picture")
    still.press(b"s")
    still.until("Nothing moves here")
    still.press(b"q")
    assert still.end() == 0


def test_the_last_state_stays_when_the_program_ends(pid):
    screen = Terminal("top", pid)
    screen.until("drop at app.c:7")
    os.kill(pid, 9)
    screen.until("ENDED")
    screen.press(b"\x03")
    assert screen.end() == 0


def test_counters_alone_tell_what_all_of_it_tells(pid):
    file = find_live_file(pid)
    os.kill(pid, signal.SIGSTOP)
    try:
        totals, whole = read_totals(file.path), live.read(file.path)
    finally:
        os.kill(pid, signal.SIGCONT)
    sites = whole.sites[1:]
    assert totals.held[1:].tolist() == (sites["alloc_bytes"] - sites["freed_bytes"]).tolist()
    assert totals.blocks[1:].tolist() == (sites["allocs"] - sites["frees"]).tolist()
    assert totals.held[1:].sum() > 0


@pytest.mark.parametrize("how", ["removed", "cut", "replaced"])
def test_a_recording_that_vanishes_is_told_of(pid, how):
    screen = Terminal("top", pid)
    screen.until("drop at app.c:7")
    path = find_live_file(pid).path
    if how == "cut":
        # Of a copy in its place: the agent would be killed by what it maps.
        other = path.with_name("other")
        with path.open("rb") as whole:  # which has holes of many gigabytes
            other.write_bytes(whole.read(5000))
        other.replace(path)
    elif how == "replaced":
        path.unlink()
        path.mkdir()
    else:
        path.unlink()
    try:
        screen.press(b"r")
        if how != "removed":  # what is still mapped can still be read
            screen.until("recording")
        screen.press(b"oh\x1b[B\x1b[A/x\r\x1bsq")
        screen.press(b"q")
        assert screen.end() in {0, 2}
    finally:
        if how == "replaced":
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def test_keys_that_are_no_utf8_end_nothing(pid):
    screen = Terminal("top", pid)
    screen.until("drop at app.c:7")
    screen.press(b"\xe9\xff\xc3(")
    time.sleep(1)  # what is read together with such bytes is lost
    screen.press(b"o")
    screen.until("sorted by: held")
    screen.press(b"q")
    assert screen.end() == 0


def test_it_ends_with_its_terminal(pid):
    # Which is not its controlling one: nobody sends it a signal.
    screen = Terminal("top", pid)
    screen.until("drop at app.c:7")
    os.close(screen.ours)
    screen.process.wait(30)


def test_it_ends_with_a_terminal_that_nobody_read(pid):
    screen = Terminal("top", pid)
    screen.until("drop at app.c:7")
    fcntl.ioctl(screen.ours, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
    screen.process.send_signal(signal.SIGWINCH)
    for _ in range(60):  # each key draws, and more is to be written than there is room for
        os.write(screen.ours, b"\x1b[B\x1b[A" * 4)
        time.sleep(0.05)
    os.close(screen.ours)
    screen.process.wait(30)


def test_run_live_shows_the_screen_then_the_report_and_keeps_the_output(program, tmp_path):
    (tmp_path / "app.c").write_text(
        SOURCE.replace("for (;;) {", 'write(1, "its own\\n", 8); for (;;) {', 1)
    )
    subprocess.run(["gcc", "-g", "-O1", "-o", "app", "app.c"], check=True)
    screen = Terminal("run", "--live", "-o", "end", "--", "./app")
    screen.until("drop at app.c:7")
    screen.press(b"q")
    screen.until("it goes on until it ends")
    screen.process.send_signal(signal.SIGINT)
    assert screen.end() == 1
    after = screen.raw.rpartition(b"\x1b[?1049l")[2].decode()
    assert "./app was killed by SIGINT" in after
    assert re.search(r"places? leaks? \d", after)
    assert "its own" not in screen.raw.decode()
    assert (tmp_path / "app.output").read_text() == "its own\n"


def test_what_is_not_traced_and_what_is_no_terminal_is_told_in_a_sentence(leakscope, pid):
    done = leakscope("top", os.getpid())
    assert (done.returncode, done.stdout) == (2, "")
    assert f"process {os.getpid()} is not being traced" in done.stderr
    assert f"leakscope attach {os.getpid()}" in done.stderr
    none = leakscope("top", pid)
    assert none.returncode == 2
    assert "needs a terminal" in none.stderr
    gone = leakscope("top", 1 << 22)
    assert gone.returncode == 2
    assert "no process" in gone.stderr
