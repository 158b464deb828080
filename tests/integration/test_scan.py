# SPDX-License-Identifier: Apache-2.0
"""`leakscope scan` on running processes: what is lost, who holds the rest, and nobody is harmed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from allocators import NAMES, library
from leakscope.recording.own import own_ranges

ROOT = Path(__file__).parents[2]

HOLDERS = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
struct node { struct node *next; void *payload; };
struct node *cache[16];
static __thread void *volatile mine[4];
static void insert(int i) {
  struct node *node = calloc(1, sizeof *node);
  node->next = cache[i % 16];
  cache[i % 16] = node;
}
static void payload(struct node *node) { node->payload = malloc(100); }
static void lose(void) { void *volatile lost = calloc(1, 3000); lost = NULL; }
static void local(void) { mine[1] = calloc(1, 777); }
static void *on_stack(void) { return calloc(1, 888); }
static void *work(void *unused) {
  local();
  void *volatile here = on_stack();
  sleep(600);
  return here;
}
int main(void) {
  for (int i = 0; i < 3000; i++) insert(i);
  for (int i = 0; i < 16; i++) payload(cache[i]);
  for (int i = 0; i < 10; i++) lose();
  pthread_t thread;
  pthread_create(&thread, NULL, work, NULL);
  usleep(200000);
  puts("ready");
  fflush(stdout);
  sleep(600);
}
"""

# Threads that come, go, allocate and count; writes a line whenever it is asked.
BUSY = r"""
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
static atomic_long steps;
static void *brief(void *unused) { free(malloc(100)); return NULL; }
static void *work(void *unused) {
  void *held[64] = {0};
  for (unsigned i = 0;; i++) {
    free(held[i % 64]);
    held[i % 64] = malloc(i % 4000);
    if (i % 5000 == 0) {
      pthread_t thread;
      if (!pthread_create(&thread, NULL, brief, NULL)) pthread_join(thread, NULL);
    }
    atomic_fetch_add(&steps, 1);
  }
}
int main(void) {
  void **kept = calloc(20000, sizeof *kept);
  for (int i = 0; i < 20000; i++) kept[i] = malloc(200);
  pthread_t thread;
  for (int i = 0; i < 3; i++) pthread_create(&thread, NULL, work, NULL);
  puts("ready");
  fflush(stdout);
  while (getchar() != EOF) { printf("%ld\n", atomic_load(&steps)); fflush(stdout); }
  return kept[7] == NULL;
}
"""


def build(folder: Path, text: str, name: str) -> Path:
    (folder / f"{name}.c").write_text(text)
    program = folder / name
    subprocess.run(
        ["gcc", "-O1", "-g", "-fno-inline", "-pthread", folder / f"{name}.c", "-o", program],
        check=True,
    )
    return program


def start(program: Path, **env: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | env
    )
    assert process.stdout.readline() == "ready\n"
    return process


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "leakscope", "scan", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "src")} | more


def scan(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(**env), check=False
    )


@pytest.fixture(scope="module")
def traced(agent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("held")
    recordings = folder / "live"
    recordings.mkdir(mode=0o700)
    program = build(folder, HOLDERS, "held")
    process = start(program, LD_PRELOAD=str(agent), LEAKSCOPE_DIR=str(recordings))
    yield process.pid, recordings
    process.kill()
    process.communicate()


def held_by(traced, site: str) -> list[dict]:
    pid, recordings = traced
    done = scan(pid, "--held-by", site, "--json", LEAKSCOPE_DIR=str(recordings))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["sites"]


def test_lost_blocks_of_a_traced_process(traced):
    pid, recordings = traced
    done = scan(pid, LEAKSCOPE_DIR=str(recordings))
    assert done.returncode == 1, done.stderr
    assert "All 10 blocks from here are lost" in done.stdout
    assert "in lose at" in done.stdout
    assert "was stopped for" in done.stderr


@pytest.mark.parametrize(
    ("site", "count", "root", "steps"),
    [
        ("insert", 1000, "cache in held", 1),
        ("payload", 16, "cache in held", 2),
        ("local", 1, "thread-local storage of thread", 1),
        ("on_stack", 1, "stack of thread", 1),
    ],
)
def test_who_holds_a_place(traced, site, count, root, steps):
    (answer,) = held_by(traced, site)
    (holder,) = answer["holders"]
    assert answer["examined"] == holder["count"] == count
    assert holder["root"].startswith(root)
    assert len(holder["path"]) == steps


def test_a_path_says_where_in_each_block(traced):
    (answer,) = held_by(traced, "payload")
    root, node = answer["holders"][0]["path"]
    assert root["offset"] % 8 == 0
    assert root["offset"] < 16 * 8
    assert (node["offset"], node["size"]) == (8, 16)


def test_nobody_holds_what_is_lost(traced):
    (answer,) = held_by(traced, "lose")
    assert answer["holders"] == []


def test_the_text_for_people(traced):
    pid, recordings = traced
    done = scan(pid, "--held-by", "payload", LEAKSCOPE_DIR=str(recordings))
    assert "16 of 16 looked at are held by\n    cache in held" in done.stdout
    assert "-> block of 16 B from insert at held.c:" in done.stdout


def test_a_place_that_is_not_there(traced):
    pid, recordings = traced
    done = scan(pid, "--held-by", "nowhere", LEAKSCOPE_DIR=str(recordings))
    assert done.returncode == 2
    assert "no place that holds memory is named 'nowhere'" in done.stderr
    assert "insert" in done.stderr


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    program = build(tmp_path_factory.mktemp("busy"), BUSY, "busy")
    process = start(program)
    yield process
    process.kill()
    process.communicate()


def steps(process: subprocess.Popen[str]) -> int:
    process.stdin.write("?")
    process.stdin.flush()
    return int(process.stdout.readline())


def stopped(pid: int) -> list[str]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (task / "status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if fields["State"][0] in "tT" or fields["TracerPid"] != "0":
            found.append(f"{task.name}: {fields['State']}")
    return found


def takes_image(pid: int) -> bool:
    """Whether a process that makes a copy of `pid` is still there."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes()
            if b"leakscope.target.imager" in line and b'{"pid": %d,' % pid in line:
                return True
    return False


def test_killing_the_scanner_at_any_moment_leaves_nobody_stopped(busy):
    chance = random.Random(3)
    began = time.monotonic()
    assert scan(busy.pid).returncode in {0, 1}
    whole = time.monotonic() - began
    met = 0
    for _ in range(25):
        scanner = subprocess.Popen(
            command(busy.pid), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment(),
        )  # fmt: skip
        end = time.monotonic() + chance.uniform(0.2, 1.0) * whole
        while time.monotonic() < end and scanner.poll() is None:
            time.sleep(0.001)
        met += takes_image(busy.pid) or bool(stopped(busy.pid))
        scanner.kill()
        scanner.wait()
        end = time.monotonic() + 20  # whoever takes the image removes it, and lets go
        while takes_image(busy.pid) and time.monotonic() < end:
            time.sleep(0.005)
        assert not takes_image(busy.pid)
        assert stopped(busy.pid) == []
        before, end = (
            steps(busy),
            time.monotonic() + 20,
        )  # on a busy machine it has to wait its turn
        while steps(busy) <= before and time.monotonic() < end:
            time.sleep(0.02)
        assert steps(busy) > before
    assert met, "no scanner was met at work"


def test_a_process_that_ends_at_any_moment_is_an_answer_or_an_error(tmp_path):
    program = build(tmp_path, BUSY, "busy")
    chance = random.Random(5)
    for _ in range(12):
        process = start(program)
        scanner = subprocess.Popen(
            command(process.pid), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(),
        )  # fmt: skip
        time.sleep(chance.uniform(0.1, 0.6))
        process.kill()
        _, error = scanner.communicate(timeout=30)
        process.communicate()
        assert scanner.returncode in {0, 1, 2}
        assert "Traceback" not in error
        if scanner.returncode == 2:
            assert error.startswith("leakscope: ")


def test_a_signal_that_comes_while_it_stands_still_is_delivered(tmp_path):
    program = build(tmp_path, BUSY, "busy")
    process = start(program)
    os.kill(process.pid, signal.SIGSTOP)
    done = scan(process.pid)
    os.kill(process.pid, signal.SIGCONT)
    assert done.returncode in {0, 1}, done.stderr
    assert steps(process) >= 0
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("0", "is not a process id"),
        ("99999999999", "is not a process id"),
        ("4194304", "there is no process 4194304"),
        ("2", "is a thread of the kernel"),
        ("/nowhere/core", "neither a process nor a file"),
        ("/etc/passwd", "is not a core file"),
        ("/dev/null", "is not a regular file"),
        ("/proc/self/task", "no recording in the directory"),
    ],
)
def test_what_cannot_be_scanned_is_said_in_one_sentence(target, message):
    if target == "2" and Path("/proc/2/comm").read_text().strip() != "kthreadd":
        pytest.skip("process 2 is not the kernel's here")
    done = scan(target)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_zombie(tmp_path):
    process = subprocess.Popen(["true"])
    time.sleep(0.3)
    done = scan(process.pid)
    process.wait()
    assert done.returncode == 2
    assert "has ended already" in done.stderr


def test_nothing_is_called_lost_in_a_process_under_load(agent, tmp_path):
    from leakscope.model.reachability import Reachability
    from leakscope.recording import live
    from leakscope.scan import scan_process

    recordings = tmp_path / "live"
    recordings.mkdir(mode=0o700)
    process = start(
        build(tmp_path, BUSY, "busy"), LD_PRELOAD=str(agent), LEAKSCOPE_DIR=str(recordings)
    )
    try:
        (path,) = recordings.glob("*.live")
        for _ in range(6):
            found = scan_process(
                process.pid, lambda: live.read(path), own=own_ranges(path), max_pause_s=1.0
            )
            kinds = found.reachability.tolist()
            assert kinds.count(Reachability.DEFINITELY_LOST) == 0
            assert kinds.count(Reachability.INDIRECTLY_LOST) == 0
            assert kinds.count(Reachability.REACHABLE) >= 20_001
            # Those that came or went while the scan ran.
            assert kinds.count(Reachability.UNKNOWN) <= 3 * 64 + 3
    finally:
        process.kill()
        process.communicate()


def test_the_agents_own_memory_does_not_forbid_a_copy_of_a_traced_process(agent, tmp_path):
    from leakscope.target.areas import read_areas, why_not_forked

    recordings = tmp_path / "live"
    recordings.mkdir(mode=0o700)
    process = start(
        build(tmp_path, BUSY, "busy"), LD_PRELOAD=str(agent), LEAKSCOPE_DIR=str(recordings)
    )
    try:
        (path,) = recordings.glob("*.live")
        areas = read_areas(process.pid)
        assert "kept from children" in (why_not_forked(areas, []) or "")
        assert why_not_forked(areas, own_ranges(path)) is None
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """A C++ program that loses 300 objects of one class, 100 of another, and 200 secret texts."""
    folder = tmp_path_factory.mktemp("classes")
    (folder / "classes.cc").write_text(
        "#include <cstdio>\n#include <cstdlib>\n#include <cstring>\n#include <unistd.h>\n"
        "namespace web {\n"
        "struct Request { virtual ~Request() {} long held[11] = {1}; };\n"
        "struct Session : Request { long more[12] = {2}; };\n"
        "}\n"
        "static void *volatile sink;\n"
        "__attribute__((noinline)) static void lose() {\n"
        "  for (int n = 0; n < 300; n++) sink = new web::Request;\n"
        "  for (int n = 0; n < 100; n++) sink = new web::Session;\n"
        '  for (int n = 0; n < 200; n++) sink = strdup("a password nobody may see, long enough");\n'
        "  sink = nullptr;\n"
        "}\n"
        "int main() {\n"
        "  lose();\n"
        "  char over[8192];\n  memset(over, 0, sizeof over);\n"
        '  puts(over[7] ? "" : "ready"); fflush(stdout);\n'
        "  for (;;) pause();\n"
        "}\n"
    )
    subprocess.run(["g++", "-O1", "classes.cc", "-o", "classes"], check=True, cwd=folder)
    process = subprocess.Popen([folder / "classes"], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.wait()
    process.stdout.close()


def test_lost_objects_of_an_untraced_program_are_named_by_class(classes):
    done = scan(classes, "--json")
    content = {each["what"]: each["share"] for each in json.loads(done.stdout)["content"]}
    total = 300 * 104 + 100 * 200 + 200 * 40
    assert content["web::Request objects, of classes"] == pytest.approx(300 * 104 / total, rel=0.1)
    assert content["web::Session objects, of classes"] == pytest.approx(100 * 200 / total, rel=0.1)
    assert content["text"] == pytest.approx(200 * 40 / total, rel=0.1)
    assert "password" not in done.stdout
    text = scan(classes).stdout
    assert "Lost, by what it looks like:" in text
    assert "% web::Request objects, of classes" in text


def test_a_process_whose_first_thread_has_ended(tmp_path):
    """It loses 50 blocks of 300 bytes in a thread, and ends at the second line it reads."""
    (tmp_path / "gone.c").write_text(
        "#include <pthread.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
        "static void *volatile sink;\n"
        "static void lose(void) { for (int n = 0; n < 50; n++) sink = malloc(300); sink = 0; }\n"
        "static void *work(void *a) {\n"
        "  lose(); usleep(100000);\n"
        '  puts("ready"); fflush(stdout); getchar(); exit(0); return a;\n'
        "}\n"
        "int main(void) { pthread_t t; pthread_create(&t, 0, work, 0); pthread_exit(0); }\n"
    )
    subprocess.run(["gcc", "-pthread", "gone.c", "-o", "gone"], check=True, cwd=tmp_path)
    program = tmp_path / "gone"
    process = start(program)
    try:
        found = json.loads(scan(process.pid, "--json").stdout)
    finally:
        process.communicate("\n")
    assert process.returncode == 0
    assert found["counts"]["definitely_lost"] >= 49  # one may lie in a register still
    done = subprocess.run(
        [sys.executable, "-m", "leakscope", "run", "--json", "-o", tmp_path / "out", "--", program],
        input="\n", capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert "was not scanned" not in done.stderr
    assert '"lost"' in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace of one's own needs root")
def test_a_process_in_another_pid_namespace(tmp_path):
    """As in a container: it knows itself as process 1."""
    process = subprocess.Popen(
        ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child", build(tmp_path, HOLDERS, "inner")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (inner,) = children
        assert Path(f"/proc/{inner}/status").read_text().split("NSpid:")[1].split()[1] == "1"
        found = json.loads(scan(inner, "--json").stdout)
        assert found["counts"]["definitely_lost"] in {9, 10}  # one may lie in a register still
        assert Path(f"/proc/{inner}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    finally:
        process.kill()
        process.communicate()


# Threads that always have a list of nodes and a table of blocks, and nothing lost, however often
# they free and allocate: many sizes, large ones too, so that caches are filled and flushed.
CHURN = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
struct node { struct node *next; long pad[3]; };
static void *work(void *argument) {
  unsigned seed = (unsigned long)argument;
  void *held[256] = {0};
  struct node *list = NULL;
  for (int length = 0;;) {
    seed = seed * 1103515245u + 12345u;
    unsigned slot = (seed >> 8) % 256;
    free(held[slot]);
    seed = seed * 1103515245u + 12345u;
    size_t size = (seed >> 4) % 200 ? (seed >> 12) % 3000 : 40000 + (seed >> 10) % 60000;
    held[slot] = malloc(size);
    struct node *node = malloc(sizeof *node);
    node->next = list;
    list = node;
    if (++length > 500) {
      while (list) {
        struct node *next = list->next;
        free(list);
        list = next;
      }
      length = 0;
    }
  }
}
int main(void) {
  pthread_t thread;
  for (long i = 1; i < 5; i++) pthread_create(&thread, NULL, work, (void *)i);
  usleep(300000);
  puts("ready");
  fflush(stdout);
  pause();
}
"""


@pytest.fixture(params=["glibc", *NAMES])
def preload(request):
    return {} if request.param == "glibc" else {"LD_PRELOAD": str(library(request.param))}


def test_nothing_is_called_lost_in_an_untraced_process_under_load(tmp_path, preload):
    from leakscope.model.reachability import Reachability
    from leakscope.scan import scan_untraced

    process = start(build(tmp_path, CHURN, "churn"), **preload)
    try:
        scans = [scan_untraced(process.pid) for _ in range(25)]
    finally:
        process.kill()
        process.communicate()
    lost = [{each.size: (each.definite, each.indirect) for each in scan.sizes} for scan in scans]
    # tcmalloc has lost a block of eight bytes of its own.
    assert all(each in ({}, {8: (1, 0)}) for each in lost), lost
    assert "tcmalloc" in str(preload) or not any(lost)
    # Mostly the heap is caught in a state that makes sense, on busy machines too.
    assert sum(scan.counts[Reachability.UNKNOWN] == 0 for scan in scans) >= 13


# The trees of pages keep entries for what was joined to something else, and a table of pointers
# in a program's own variables looks like the root of one.
FREED = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void *volatile table[1 << 20];
static void *volatile sink;
int main(void) {
  static char *many[60000];
  for (int i = 0; i < 60000; i++) many[i] = malloc(3000 + i % 7 * 4096);
  for (int i = 0; i < 60000; i++) free(many[i]);
  memset(many, 0, sizeof many);
  for (int i = 0; i < 3000; i++) table[i * 311] = calloc(1, 100);
  for (int i = 0; i < 40; i++) sink = calloc(1, 9000);
  sink = NULL;
  char clean[65536];
  memset(clean, 0, sizeof clean);
  puts("ready");
  fflush(stdout);
  pause();
  return clean[7];
}
"""


def test_a_heap_of_which_most_was_freed(tmp_path, preload):
    process = start(build(tmp_path, FREED, "freed"), **preload)
    try:
        done = scan(process.pid, "--json")
    finally:
        process.kill()
        process.communicate()
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["counts"]["reachable"] >= 3000
    assert 39 <= found["counts"]["definitely_lost"] <= 41
    assert found["share"] == 1.0


def test_a_large_aligned_block_begins_where_the_program_thinks(tmp_path):
    text = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char *volatile block;
int main(void) {
  block = aligned_alloc(4 << 20, 64 << 20);
  for (int i = 0; i < 20; i++) ((void **)block)[i * 1000] = calloc(1, 50);
  puts("ready");
  fflush(stdout);
  pause();
}
"""
    process = start(build(tmp_path, text, "aligned"))
    try:
        found = json.loads(scan(process.pid, "--json").stdout)
    finally:
        process.kill()
        process.communicate()
    assert found["counts"]["reachable"] >= 21
    assert found["counts"]["possibly_lost"] == 0
    assert found["counts"]["definitely_lost"] == 0
