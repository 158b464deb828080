# SPDX-License-Identifier: Apache-2.0
"""A copy of the process is scanned, and the process notices nothing: calls, signals, children."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from leakscope.errors import TargetError
from leakscope.model.reachability import Reachability
from leakscope.scan import scan_untraced, untraced
from leakscope.scan.allocators import walk
from leakscope.scan.forked import Forked
from leakscope.scan.frozen import Frozen

ROOT = Path(__file__).parents[2]

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


@pytest.mark.parametrize("what", ["nanosleep", "read", "poll", "sigsuspend", "busy"])
def test_the_program_notices_nothing(program, what):
    with started(program, what) as process:
        for _ in range(4):
            scan = scan_untraced(process.pid)
            assert scan.facts.method == "forked", scan.facts.notes
            lost = {each.size: each.definite for each in scan.sizes}
            assert lost == {3000: 5}
        assert children(process.pid) == ""
        assert verdict(process) == "0 wrong, 0 children, wait none, 1\n"


def test_it_goes_on_while_its_copy_stands_still(program):
    with started(program, "busy") as process, Forked(process.pid) as image:
        assert image.pid != process.pid
        assert state(image.pid) == "t"
        assert state(process.pid) == "R"
        assert 0 < image.paused_ns < 1_000_000_000
        assert len(image.threads) == 1


@pytest.mark.parametrize("what", ["seccomp", "dontfork"])
def test_where_a_copy_would_harm_or_lie_there_is_none(program, what):
    with started(program, what) as process:
        scan = scan_untraced(process.pid)
        assert scan.facts.method == "frozen"
        assert scan.counts[Reachability.DEFINITELY_LOST] == 5
        assert children(process.pid) == ""
        assert verdict(process) == "0 wrong, 0 children, wait none, 1\n"


def test_killing_the_scanner_at_any_moment_leaves_the_program_as_it_was(program):
    code = (
        "import sys; from leakscope.scan import scan_untraced\n"
        "while True: scan_untraced(int(sys.argv[1]))"
    )
    chance = random.Random(11)
    with started(program, "busy") as process:
        for _ in range(15):
            scanner = subprocess.Popen(
                [sys.executable, "-c", code, str(process.pid)],
                env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
                stderr=subprocess.DEVNULL,
            )
            time.sleep(chance.uniform(0.2, 1.2))
            scanner.kill()
            scanner.wait()
        end = time.monotonic() + 10
        while children(process.pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert children(process.pid) == ""
        assert state(process.pid) == "R"
        assert verdict(process) == "0 wrong, 0 children, wait none, 1\n"


def test_a_copy_is_removed_while_another_scan_has_the_program_stopped(program):
    with started(program, "busy") as process, Forked(process.pid) as image:
        release = threading.Thread(target=image.release)
        with Frozen(process.pid):
            release.start()
            time.sleep(1.5)
            assert children(process.pid) == f"{image.pid} "
        release.join()
        assert children(process.pid) == ""
        assert verdict(process) == "0 wrong, 0 children, wait none, 1\n"


@pytest.mark.parametrize("what", ["busy", "seccomp"])
def test_a_scan_of_what_ended_is_an_error_and_no_list_of_lost_blocks(program, what, monkeypatch):
    """The image dies between the walk of the heap and the marking."""

    def walk_then_die(memory):
        heap = walk(memory)
        os.kill(memory.pid, signal.SIGKILL)
        end = time.monotonic() + 5
        while memory.read(memory.mappings[0].start, 1) and time.monotonic() < end:
            time.sleep(0.01)
        return heap

    monkeypatch.setattr(untraced, "walk", walk_then_die)
    with (
        started(program, what) as process,
        pytest.raises(TargetError, match="while it was scanned"),
    ):
        scan_untraced(process.pid)


def test_killing_the_program_removes_its_copy(program):
    with started(program, "busy") as process, Forked(process.pid) as image:
        process.kill()
        process.wait()
        copy = image.pid
        assert image.read(image.mappings[0].start, 4) == b"\x7fELF"
    assert not Path(f"/proc/{copy}").exists() or state(copy) == "Z"


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
