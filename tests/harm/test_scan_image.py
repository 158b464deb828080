# SPDX-License-Identifier: Apache-2.0
"""A program that is scanned while it runs is afterwards, and meanwhile, what it is alone."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from leakscope.target.image import open_image

SOURCES = Path(__file__).parents[2] / "src"
PROGRAMS = Path(__file__).parents[1] / "programs" / "harm"
LEVELS = {"O0": ["-O0"], "O2": ["-O2", "-fno-builtin-malloc"]}

LONG = 10.0  # seconds; a pause that is long enough beside whatever else runs


@contextlib.contextmanager
def running(program: Path, *arguments: object, **how: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a program and wait for its first line, which is kept as `first`."""
    process = subprocess.Popen(
        [program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )
    try:
        assert process.stdout is not None
        process.first = process.stdout.readline()  # type: ignore[attr-defined]
        yield process
    finally:
        process.kill()
        process.communicate()


SCAN = """
import functools, json, sys
from leakscope.errors import LeakscopeError
from leakscope.scan import untraced
from leakscope.target import image
only, pause = sys.argv[2], float(sys.argv[3])
untraced.open_image = functools.partial(image.open_image, only=only if only != "any" else None)
try:
    found = untraced.scan_untraced(int(sys.argv[1]), max_pause_s=pause)
except LeakscopeError as error:
    print(json.dumps({"refused": str(error), "hint": error.hint}))
else:
    lost = sum(found.counts[kind] for kind in (1, 2))
    facts = found.facts
    print(json.dumps({"method": facts.method, "lost": lost, "pause": facts.pause_ms / 1e3, "notes": facts.notes}))
"""


def scan(pid: int, only: str = "any", pause: float = LONG) -> dict[str, Any]:
    """Scan a process from another one, with a certain image; returns what became of it."""
    done = subprocess.run(
        [sys.executable, "-c", SCAN, str(pid), only, str(pause)],
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return json.loads(done.stdout)


def status_of(pid: int, name: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text()
    return text.partition(f"\n{name}:")[2].partition("\n")[0].strip()


def is_dead(pid: int) -> bool:
    try:
        return status_of(pid, "State").startswith("Z")
    except OSError:
        return True


def children(pid: int) -> str:
    return "".join(p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/children"))


def together(check: Callable[[Any], None], cases: Sequence[Any]) -> None:
    """Check all cases at the same time: most of them sleep."""
    with ThreadPoolExecutor(len(cases)) as pool:
        for done in [pool.submit(check, case) for case in cases]:
            done.result()


def test_calls_that_wait_are_not_interrupted(build, tmp_path):
    programs = {level: build("eintr", level) for level in LEVELS}

    def check(level: str) -> None:
        (tmp_path / level).mkdir()
        with running(programs[level], cwd=tmp_path / level) as process:
            # Beside much else the program, which takes six seconds, may end before the last scan.
            found = [scan(int(process.first)) for _ in range(2)]
            assert "method" in found[0], found
            lines = process.communicate(timeout=40)[0].splitlines()
        assert len(lines) == 20
        for line in lines:
            if level == "O2" and line.startswith("mq_timedreceive"):
                continue  # one name for both
            assert "EARLY" not in line, line
            assert "Interrupted" not in line, line
            # A time-out that is an option of a socket starts again: it is no argument of the call.
            took = float(line.rpartition(" after ")[2].split()[0])
            assert took < (18 if "SO_RCVTIMEO" in line else 8), line

    together(check, ["O0", "O2"])


@pytest.mark.parametrize(("image", "level"), [("copied", "O0"), ("forked", "O2")])
def test_a_server_sees_no_connection_after_it_closed_it(tmp_path, image, level):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = (PROGRAMS / "epollsrv.c").read_text().replace("7799", str(port))
    (tmp_path / "epollsrv.c").write_text(source)
    program = tmp_path / "epollsrv"
    command = ["gcc", "-g", "-w", *LEVELS[level], str(tmp_path / "epollsrv.c"), "-o", str(program)]
    subprocess.run(command, check=True)
    with running(program, 100) as process:
        clients = subprocess.Popen(
            [sys.executable, "-c", CLIENTS, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(3):
            assert scan(process.pid, image)["method"] == image
        served, late = json.loads(clients.communicate(b"\n", timeout=60)[0])
        assert process.poll() is None
        process.kill()
        assert process.communicate()[1] == ""
    assert served > 50
    # The copy of a 0.1 release kept connections open for as long as it lived: seconds.
    assert late < 1.5


CLIENTS = """
import json, random, socket, sys, threading, time
delays, end = [], threading.Event()
def client():
    while not end.is_set():
        time.sleep(random.uniform(0, 0.05))
        with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as one:
            one.sendall(b"x")
            while one.recv(100):
                last = time.monotonic()
            delays.append(time.monotonic() - last)
threads = [threading.Thread(target=client) for _ in range(25)]
for thread in threads:
    thread.start()
sys.stdin.readline()
end.set()
for thread in threads:
    thread.join()
print(json.dumps([len(delays), sorted(delays)[-1]]))
"""


@pytest.fixture
def memory_cgroup() -> Iterator[Path]:
    """A memory cgroup with a limit of 450 MB."""
    folder = Path(f"/sys/fs/cgroup/memory/leakscope-{os.getpid()}-{time.monotonic_ns()}")
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(str(450 << 20))
    yield folder
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            folder.rmdir()
            break
        time.sleep(0.05)


def test_a_program_near_its_memory_limit_lives(build, memory_cgroup):
    def enter() -> None:
        (memory_cgroup / "cgroup.procs").write_text(str(os.getpid()))

    with running(build("cgw", "O2"), 300, 100, preexec_fn=enter) as process:
        answers = scan(process.pid), scan(process.pid, "forked")
        assert process.poll() is None
        assert "oom_kill 0" in (memory_cgroup / "memory.oom_control").read_text()
    assert answers[0]["method"] == "copied"
    assert "its memory cgroup has room for" in answers[1]["refused"]


def _free_huge_pages() -> int:
    text = Path("/proc/meminfo").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return int(fields["HugePages_Free"]) - int(fields["HugePages_Rsvd"])


@pytest.fixture
def huge_pages() -> Iterator[None]:
    number = Path("/proc/sys/vm/nr_hugepages")
    before = number.read_text()
    number.write_text(str(int(before) + 8))
    until = time.monotonic() + 20
    while _free_huge_pages() < 8:  # memory may have to be moved first
        assert time.monotonic() < until, "the kernel has no 8 huge pages"
        Path("/proc/sys/vm/compact_memory").write_text("1")
        number.write_text(str(int(before) + 8))
        time.sleep(0.2)
    yield
    number.write_text(before)


def finish(process: subprocess.Popen[str]) -> str:
    output = process.communicate(timeout=40)[0]
    assert process.returncode == 0
    return output


def test_memory_whose_fork_is_no_copy_is_copied(build, huge_pages):
    cases = [
        ("huge_nores", "O0", [8, 90], "huge pages"),
        ("uffd", "O0", [90, "ev"], "userfaultfd"),
        ("uffd", "O2", [90], "userfaultfd"),
        ("wipe", "O0", ["wipe", 90], "kept from children"),
        ("wipe", "O2", ["dont", 90], "kept from children"),
        ("wipe", "O2", ["plain", 90], None),
    ]

    for name, level, *_ in cases:
        build(name, level)

    def check(case: tuple[str, str, list[object], str | None]) -> None:
        name, level, arguments, why = case
        with running(build(name, level), *arguments) as process:
            if why is not None:
                assert why in scan(process.pid, "forked")["refused"]
            found = scan(process.pid)
            assert (found["method"], found["lost"]) == ("copied", 0)
            time.sleep(0.5)  # it goes on to use this memory
            assert process.poll() is None

    together(check, cases)


TARGET = r"""
#define _GNU_SOURCE
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <time.h>
#include <poll.h>
#include <unistd.h>
#include <errno.h>
#include <sys/wait.h>
#include <sys/epoll.h>
/* Does one thing over and over, and says when told how often it came out wrong. */
static volatile sig_atomic_t end;
static void on(int s) { end = 1; }
__attribute__((target("avx"))) static long sums(void) {
  long wrong = 0;
  while (!end) {
    __m256d a = _mm256_set1_pd(1.5), s = _mm256_setzero_pd();
    for (int i = 0; i < 1000; i++) s = _mm256_add_pd(s, a);
    double o[4];
    _mm256_storeu_pd(o, s);
    for (int i = 0; i < 4; i++) wrong += o[i] != 1500.0;
    wrong += getppid() <= 0;
  }
  return wrong;
}
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
int main(int c, char **v) {
  void *volatile kept = malloc(100000);
  signal(SIGUSR1, on);
  puts("ready");
  fflush(stdout);
  long wrong = 0;
  struct timespec t = {0, 20000000};
  char b;
  int e = epoll_create1(0);
  struct epoll_event ev;
  if (!strcmp(v[1], "sums")) wrong = sums();
  while (!end) {
    double began = now();
    if (!strcmp(v[1], "nanosleep")) wrong += nanosleep(&t, 0) && !end;
    if (!strcmp(v[1], "poll")) wrong += poll(0, 0, 20) != 0 && !end;
    if (!strcmp(v[1], "epoll")) if (epoll_wait(e, &ev, 1, 20) != 0 && !end) { wrong += errno != EINTR; continue; }
    if (!strcmp(v[1], "read")) wrong += read(0, &b, 1) != 1 && !end;
    else wrong += now() - began < 0.0199 && !end;
  }
  int status;
  printf("%ld wrong, wait %d, blocked %d\n", wrong, waitpid(-1, &status, WNOHANG | __WALL), kept == NULL);
  return 0;
}
"""


def until(true: Callable[[], bool]) -> None:
    """Wait: on a busy machine a thread may still be on its way back."""
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    assert true()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    (folder / "target.c").write_text(TARGET)
    subprocess.run(["gcc", "-w", "-O1", folder / "target.c", "-o", folder / "target"], check=True)
    return folder / "target"


def kill_an_imager(pid: int, only: str, seconds: float) -> None:
    """Start what takes images, and kill it so many seconds after it began to stop the process."""
    memory = os.memfd_create("image")
    asked = {"pid": pid, "max_pause": LONG, "own": [], "memory": memory, "only": only}
    imager = subprocess.Popen(
        [sys.executable, "-m", "leakscope.target.imager", json.dumps(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
        pass_fds=[memory],
    )
    assert imager.stdout is not None
    assert imager.stdout.readline() == b"stopped\n"
    time.sleep(seconds)
    imager.kill()
    imager.communicate()
    os.close(memory)


def test_a_tracer_killed_at_any_moment_leaves_the_program_as_it_was(target):
    """But for EINTR where a call ends with it: when it was killed before it could mend that."""

    def check(what: str) -> None:
        chance = random.Random(what)
        with running(target, what) as process:
            for number in range(6):
                only = "copied" if number == 0 else "forked"
                kill_an_imager(process.pid, only, chance.uniform(0, 0.015))
            assert process.poll() is None
            until(lambda: children(process.pid) == "")
            until(lambda: status_of(process.pid, "SigBlk") == "0" * 16)
            assert status_of(process.pid, "TracerPid") == "0"
            process.send_signal(signal.SIGUSR1)
            if what == "read":
                process.stdin.write("x")
            assert process.communicate(timeout=20)[0] == "0 wrong, wait -1, blocked 0\n"

    together(check, ["sums", "nanosleep", "poll", "epoll", "read"])


# Holds what has a last user, and gives it back when told.
HOLDER = r"""
import errno, fcntl, mmap, os, socket, sys
path = sys.argv[1]
files = [open(path + name, "w+") for name in "abc"]
fcntl.flock(files[0], fcntl.LOCK_EX)
fcntl.lockf(files[1], fcntl.LOCK_EX)
reader, writer = os.pipe()
one, other = socket.socketpair()
memory = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
os.ftruncate(memory, 8192)
mapped = mmap.mmap(memory, 8192)
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
print("ready", listening.getsockname()[1], flush=True)
input()
try:
    waited = os.waitpid(-1, os.WNOHANG | 0x40000000)
except ChildProcessError:
    waited = None
files[0].close()
files[1].close()
os.close(writer)
other.close()
mapped.close()
fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
fcntl.fcntl(files[2], fcntl.F_SETLEASE, fcntl.F_WRLCK)
os.set_blocking(reader, False)
one.setblocking(False)
print(waited, os.read(reader, 1), one.recv(1), flush=True)
input()
os.execv(sys.executable, [sys.executable, "-c", "print('executed', flush=True); input()"])
"""


def test_whatever_has_a_last_user_ends_with_it_beside_a_fork(tmp_path):
    import fcntl

    program = [sys.executable, "-c", HOLDER, str(tmp_path / "f")]
    with running(program[0], *program[1:]) as process:
        port = int(process.first.split()[1])
        others = [(tmp_path / f"f{name}").open("w") for name in "ab"]
        with open_image(process.pid, only="forked", max_pause_s=LONG) as image:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "None b'' b''\n"
            fcntl.flock(others[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(others[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            image.check()
            assert Path(f"/proc/{image.pid}/oom_score_adj").read_text() == "1000\n"
            assert list(Path(f"/proc/{image.pid}/fd").iterdir()) == []
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "executed\n"
            with socket.socket() as again:
                again.bind(("127.0.0.1", port))
            # The copy is of a program that is no more.
            until(lambda: is_dead(image.pid))
        for file in others:
            file.close()


def test_nothing_is_forked_where_room_or_right_is_missing(target, memory_cgroup):
    """A limit above its cgroup, pids, processes of its user."""
    below = memory_cgroup / "below"
    below.mkdir()
    pids = Path("/sys/fs/cgroup/pids") / memory_cgroup.name
    pids.mkdir()
    (pids / "pids.max").write_text("20")
    (memory_cgroup / "memory.limit_in_bytes").write_text(str(32 << 20))

    def enter(folder: Path) -> Callable[[], None]:
        return lambda: (folder / "cgroup.procs").write_text(str(os.getpid())) and None

    def limited() -> None:
        os.setuid(12345)
        resource.setrlimit(resource.RLIMIT_NPROC, (10, 10))

    cases = [
        (enter(below), "memory cgroup"),
        (enter(pids), "pids cgroup"),
        (limited, "RLIMIT_NPROC"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # for a user who is not root
        program = Path(shutil.copy(target, folder))
        for prepare, why in cases:
            with running(program, "nanosleep", preexec_fn=prepare) as process:
                assert why in scan(process.pid, "forked").get("refused", "")
    below.rmdir()
    pids.rmdir()
