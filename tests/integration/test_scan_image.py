# SPDX-License-Identifier: Apache-2.0
"""An image of the process is scanned, and the process notices nothing: calls, signals, children."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leakscope.errors import TargetError
from leakscope.model.reachability import Reachability
from leakscope.scan import scan_untraced, untraced
from leakscope.scan.allocators import walk
from leakscope.target.image import open_image

ROOT = Path(__file__).parents[2]
LONG = 10.0  # a pause that is long enough beside whatever else runs

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="images are forked on x86-64 alone"
)

# Does one thing over and over or for long, and prints what it saw of it when told by SIGUSR1.
PROGRAM = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static volatile sig_atomic_t end, children;
static void on_end(int signal) { end = 1; }
static void on_child(int signal) { children++; }
static void lose(void) { for (int i = 0; i < 5; i++) { void *volatile lost = calloc(1, 3000); lost = NULL; } }
static void clobber(int depth) { volatile char room[512]; memset((char *)room, 0, 512); if (depth) clobber(depth - 1); }
int main(int count, char **arguments) {
  const char *what = arguments[1];
  lose();
  clobber(8);
  void *volatile kept = calloc(1, 4444);
  struct sigaction ender = {.sa_handler = on_end}, watcher = {.sa_handler = on_child};
  sigaction(SIGUSR1, &ender, NULL);
  sigaction(SIGCHLD, &watcher, NULL);
  if (!strcmp(what, "seccomp")) {
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
  }
  if (!strcmp(what, "dontfork")) {
    char *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(memory, 1 << 20, MADV_DONTFORK);
    *(void **)memory = calloc(1, 7777);
  }
  puts("ready");
  fflush(stdout);
  long rounds = 0, wrong = 0;
  char byte;
  if (!strcmp(what, "nanosleep")) {
    struct timespec long_time = {600, 0};
    wrong = nanosleep(&long_time, NULL) != -1 || errno != EINTR || !end;
  } else if (!strcmp(what, "read")) {
    wrong = read(0, &byte, 1) != -1 || errno != EINTR || !end;
  } else if (!strcmp(what, "poll")) {
    struct pollfd wait = {0, POLLIN, 0};
    wrong = poll(&wait, 1, 600000) != -1 || errno != EINTR || !end;
  } else if (!strcmp(what, "sigsuspend")) {
    sigset_t usual, blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, &usual);
    sigsuspend(&usual);
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    wrong = !end || !sigismember(&blocked, SIGUSR1);
  } else {
    double a = 1.5, b = 0;
    while (!end) {
      rounds++;
      b = a * 3;
      b -= a;
      b /= 2;
      wrong += b != a;
      wrong += getppid() <= 0;
    }
  }
  if (!rounds) rounds = 1;
  int status;
  int child = waitpid(-1, &status, WNOHANG | __WALL);
  printf("%ld wrong, %d children, wait %s, %d\n", wrong, children,
         child == -1 && errno == ECHILD ? "none" : "some", rounds > 0 && kept);
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    (folder / "target.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", folder / "target.c", "-o", folder / "target"], check=True)
    return folder / "target"


@contextlib.contextmanager
def started(program: Path, what: str):
    process = subprocess.Popen(
        [program, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def verdict(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGUSR1)
    return process.stdout.readline()


def children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


@pytest.fixture
def image(request, monkeypatch):
    """Let scans take this kind of image, and for as long as a busy machine needs."""
    taken = functools.partial(open_image, only=request.param)
    monkeypatch.setattr(untraced, "open_image", taken)
    return request.param


@pytest.mark.parametrize("image", ["copied", "forked"], indirect=True)
@pytest.mark.parametrize("what", ["nanosleep", "read", "poll", "sigsuspend", "busy"])
def test_the_program_notices_nothing(program, what, image):
    with started(program, what) as process:
        for _ in range(3):
            scan = scan_untraced(process.pid, max_pause_s=LONG)
            assert scan.facts.method == image, scan.facts.notes
            lost = {each.size: each.definite for each in scan.sizes}
            assert lost == {3000: 5}
        assert children(process.pid) == ""
        assert verdict(process) == "0 wrong, 0 children, wait none, 1\n"


def test_it_goes_on_while_its_copy_stands_still(program):
    with started(program, "busy") as process, forked(process.pid) as image:
        assert image.pid != process.pid
        assert children(process.pid) == ""
        assert state(image.pid) == "t"
        assert state(process.pid) == "R"
        assert 0 < image.paused_ns < 1_000_000_000
        assert len(image.threads) == 1


@pytest.mark.parametrize(
    ("what", "why"), [("seccomp", "seccomp filter"), ("dontfork", "kept from children")]
)
def test_where_a_fork_would_harm_or_lie_there_is_none(program, what, why):
    with started(program, what) as process:
        with pytest.raises(TargetError, match=why), forked(process.pid):
            pass
        scan = scan_untraced(process.pid, max_pause_s=LONG)
        assert scan.facts.method == "copied"
        assert scan.counts[Reachability.DEFINITELY_LOST] == 5
        assert children(process.pid) == ""
        assert verdict(process) == "0 wrong, 0 children, wait none, 1\n"


def test_killing_the_scanner_at_any_moment_leaves_the_program_as_it_was(program):
    code = (
        "import sys, functools; from leakscope.scan import scan_untraced, untraced\n"
        "from leakscope.target import image\n"
        "untraced.open_image = functools.partial(image.open_image, only='forked')\n"
        "while True: scan_untraced(int(sys.argv[1]), max_pause_s=10)"
    )
    chance = random.Random(11)
    with started(program, "busy") as process:
        for _ in range(10):
            scanner = subprocess.Popen(
                [sys.executable, "-c", code, str(process.pid)],
                env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
                stderr=subprocess.DEVNULL,
            )
            time.sleep(chance.uniform(0.3, 1.3))
            scanner.kill()
            scanner.wait()
        wait_until(lambda: state(process.pid) == "R" and tracer(process.pid) == "0")
        assert children(process.pid) == ""
        assert verdict(process) == "0 wrong, 0 children, wait none, 1\n"


@pytest.mark.parametrize("image", ["copied", "forked"], indirect=True)
def test_a_scan_of_what_ended_is_an_error_or_of_before_the_end(program, image, monkeypatch):
    """The process dies between the walk of the heap and the marking; so does a fork of it."""
    victim: list[subprocess.Popen[str]] = []

    def walk_then_die(memory):
        heap = walk(memory)
        victim[0].kill()
        if image == "forked":
            wait_until(lambda: not memory.read(memory.mappings[0].start, 1))
        return heap

    monkeypatch.setattr(untraced, "walk", walk_then_die)
    monkeypatch.setattr(untraced, "read_resident", lambda pid: 0)
    with started(program, "busy") as process:
        victim.append(process)
        if image == "copied":
            scan = scan_untraced(process.pid, max_pause_s=LONG)
            assert scan.counts[Reachability.DEFINITELY_LOST] == 5
        else:
            with pytest.raises(TargetError, match="while it was scanned"):
                scan_untraced(process.pid, max_pause_s=LONG)


def test_killing_the_program_removes_its_copy(program):
    with started(program, "busy") as process, forked(process.pid) as image:
        assert image.read(image.mappings[0].start, 4) == b"\x7fELF"
        process.kill()
        process.wait()
        wait_until(lambda: is_gone(image.pid))


def forked(pid: int):
    return open_image(pid, only="forked", max_pause_s=LONG)


def is_gone(pid: int) -> bool:
    try:
        return state(pid) == "Z"
    except OSError:
        return True


def wait_until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def tracer(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text().partition("TracerPid:")[2].split()[0]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
