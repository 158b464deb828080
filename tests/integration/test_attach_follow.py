# SPDX-License-Identifier: Apache-2.0
"""`leakscope attach --follow`: descendants are recorded, or named with the reason why not."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harm.attaching import PROGRAMS, build, started
from leakscope.errors import TargetError
from leakscope.proc.process import children_of
from leakscope.trace.attach.births import open_births
from leakscope.trace.attach.family import Family
from leakscope.trace.attach.island import find_attached
from leakscope.trace.attach.plan import make_plan
from leakscope.trace.attach.session import Wishes

LEAKSCOPE = [sys.executable, "-m", "leakscope"]
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build("family", tmp_path_factory.mktemp("family"))


@pytest.fixture
def family(program, tmp_path):
    """Start the program; at the end it and its descendants must not have said that a thing was wrong."""
    running = []

    def start(*arguments):
        process = subprocess.Popen(
            [program, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        running.append(process)
        until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(bytes(program)))
        time.sleep(0.3)
        return process

    yield start
    for process in running:
        alive = process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate()[0]
        assert "WRONG" not in output
        assert alive, process.returncode


@pytest.fixture
def attaching(tmp_path):
    """Begin `leakscope attach --follow`; return it, and a function that ends it and gives the results."""
    running = []

    def begin(pid, *arguments):
        command = [*LEAKSCOPE, "attach", str(pid), "--follow", "--max-pause", "5", "--json"]
        with (tmp_path / "told").open("w") as told:
            process = subprocess.Popen(
                [*command, "-o", f"{tmp_path}/", *arguments],
                stdout=subprocess.PIPE, stderr=told, text=True,
            )  # fmt: skip
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def ended(process, tmp_path, number=signal.SIGINT):
    """Stop it; return the processes of its report by number, and what it told."""
    process.send_signal(number)
    out = process.communicate(timeout=PATIENCE_S)[0]
    told = (tmp_path / "told").read_text()
    document = json.loads(out)
    return {each["process"]["pid"]: each for each in document["processes"]}, told


def until(condition, patience_s=PATIENCE_S):
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def offspring(pid):
    found = children_of(pid)
    return found + [each for child in found for each in offspring(child)]


def is_attached(pid, by):
    """Whether it has an attach of its own, with a recording that is mapped there."""
    try:
        found = find_attached(pid)
        maps = Path(f"/proc/{pid}/maps").read_text()
    except Exception:  # noqa: BLE001 - it ends right now
        return False
    return (
        found is not None
        and found.tracer == by
        and bool(found.patches)
        and f"{found.recording[0]:x}-" in maps
    )


def lost_line():
    lines = (PROGRAMS / "family.c").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if "void *lost(" in line)


def loses(each):
    """Whether the report on a process names the line that loses."""
    return any(
        frame.get("function") == "lost" and frame.get("line") == lost_line()
        for finding in each["findings"]
        for frame in finding["stack"]
    )


def notes(found):
    return " ".join(note for each in found.values() for note in each["coverage"]["notes"])


def test_workers_of_a_prefork_server_are_recorded_and_named_as_one_place(family, tmp_path):
    server = family("workers")
    workers = children_of(server.pid)
    done = subprocess.run(
        [*LEAKSCOPE, "attach", str(server.pid), "--follow", "--max-pause", "5", "--for", "8s",
         "-o", f"{tmp_path}/"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert len(workers) == 3
    assert f"family.c:{lost_line()}" in done.stdout
    assert "blocks of 3 processes" in done.stdout
    for worker in workers:
        assert f"attached to process {worker} (family), too" in done.stderr
        assert find_attached(worker) is None
    assert "4 processes detached, and nothing of leakscope is left there" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_forked_meanwhile_is_recorded(family, attaching, tmp_path, number):
    server = family("workers")
    by = attaching(server.pid, "--every", "1s")
    until(lambda: all(is_attached(pid, by.pid) for pid in (server.pid, *children_of(server.pid))))
    old = children_of(server.pid)
    os.kill(old[0], signal.SIGTERM)
    new = until(lambda: [pid for pid in children_of(server.pid) if pid not in old])[0]
    until(lambda: is_attached(new, by.pid))
    time.sleep(2.5)
    found, told = ended(by, tmp_path, number)
    assert loses(found[new])
    assert loses(found[old[0]])
    assert f"after process {server.pid} was seen to fork it" in notes({new: found[new]})
    assert "snapshot: " in told
    assert all(find_attached(pid) is None for pid in (server.pid, *children_of(server.pid)))


@pytest.mark.parametrize("how", ["chain", "orphans", "exec", "vfork"])
def test_descendants_of_all_kinds_are_recorded(family, attaching, tmp_path, how):
    server = family(how, "3")
    by = attaching(server.pid)

    def losing():
        text = (tmp_path / "told").read_text()
        return [int(pid) for pid in re.findall(r"attached to process (\d+) \(\w+\), too", text)]

    until(lambda: len(losing()) == (2 if how == "chain" else 1))
    worker = losing()[-1] if how != "chain" else max(losing())
    assert is_attached(worker, by.pid)
    time.sleep(3)
    found, told = ended(by, tmp_path)
    assert loses(found[worker]), told
    assert find_attached(worker) is None
    assert find_attached(server.pid) is None
    if how == "orphans":
        assert "1 descendant was not recorded" in notes(found)
        assert "ended too early to be attached to" in notes(found)
    if how in ("exec", "vfork"):
        assert "was seen to run this program" in notes({worker: found[worker]})


def test_a_burst_of_short_children_is_counted_and_none_is_harmed(family, attaching, tmp_path):
    server = family("burst", "2")
    by = attaching(server.pid)
    until(lambda: is_attached(server.pid, by.pid))
    assert server.stdout.readline() == "RIGHT\n"
    time.sleep(1.5)
    found, told = ended(by, tmp_path)
    missed = re.search(r"(\d+) descendants were not recorded .*ended too early", told)
    count = int(missed[1]) if missed else 0
    assert count + told.count("), too;") == 100
    assert "descendants were not recorded" in notes(found)


def test_a_refused_child_is_named_and_given_back_its_functions(family, attaching, tmp_path):
    server = family("filtered")
    (child,) = children_of(server.pid)
    by = attaching(server.pid)
    until(lambda: f"process {child} (family) is not attached to" in (tmp_path / "told").read_text())
    found, _ = ended(by, tmp_path)
    assert f"1 descendant was not recorded ({child} family): it lives under a system call filter" in notes(found)  # fmt: skip
    assert child not in found


def test_the_number_of_those_at_once_is_bounded_and_said(family, attaching, tmp_path):
    server = family("workers")
    by = attaching(server.pid, "--at-once", "3")
    until(lambda: "and no more at once" in (tmp_path / "told").read_text())
    workers = children_of(server.pid)
    assert sum(is_attached(pid, by.pid) for pid in workers) == 2
    found, told = ended(by, tmp_path)
    assert "found no place among 3 attached to at once" in told
    assert "the limit of 3 processes attached to at once was reached" in notes(found)


def test_all_go_on_and_can_be_detached_when_the_tracer_is_killed(family, attaching):
    server = family("workers")
    by = attaching(server.pid)
    every = [server.pid, *children_of(server.pid)]
    until(lambda: all(is_attached(pid, by.pid) for pid in every))
    by.kill()
    by.wait()
    os.kill(every[1], signal.SIGTERM)  # and one more is forked, with what its parent had
    new = until(lambda: [pid for pid in children_of(server.pid) if pid not in every])[0]
    time.sleep(1)
    done = subprocess.run(
        [*LEAKSCOPE, "detach", str(server.pid)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for pid in (server.pid, new, *every[2:]):
        assert f"process {pid}: detached" in done.stdout
    assert all(find_attached(pid) is None for pid in (server.pid, new, *every[2:]))
    assert children_of(server.pid) == [*every[2:], new]


def test_a_child_that_another_leakscope_is_attached_to_stays_so(family, tmp_path):
    server = family("workers")
    child = children_of(server.pid)[0]
    tracers = [
        subprocess.Popen(
            [*LEAKSCOPE, "attach", str(pid), "--max-pause", "5", "-o", f"{tmp_path}/"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for pid in (server.pid, child)
    ]
    try:
        for pid, by in zip((server.pid, child), tracers, strict=True):
            until(lambda pid=pid, by=by: is_attached(pid, by.pid))
        done = subprocess.run(
            [*LEAKSCOPE, "detach", str(server.pid)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout.count("detached")) == (0, 1)
        assert is_attached(child, tracers[1].pid)
    finally:
        for by in tracers:
            by.terminate()
            by.wait()
    assert find_attached(child) is None


def test_it_ends_when_all_have_ended(family, attaching, program, tmp_path):
    server = subprocess.Popen([program, "workers"], start_new_session=True)
    time.sleep(0.5)
    every = [server.pid, *children_of(server.pid)]
    by = attaching(server.pid)
    until(lambda: all(is_attached(pid, by.pid) for pid in every))
    time.sleep(2)
    server.kill()
    server.wait()
    time.sleep(2)
    assert by.poll() is None  # the workers go on
    os.killpg(server.pid, signal.SIGKILL)
    out = by.communicate(timeout=PATIENCE_S)[0]
    assert {each["process"]["pid"] for each in json.loads(out)["processes"]} == set(every)


class Late:
    """Births that are told only when `open` is set."""

    lost = 0

    def __init__(self, births):
        self.births, self.kept, self.open = births, [], False

    def read(self):
        self.kept += self.births.read()
        told, self.kept = (self.kept, []) if self.open else ([], self.kept)
        return told

    def close(self):
        self.births.close()


def test_one_that_a_list_shows_before_the_kernel_tells_of_it_counts_once(family, monkeypatch):
    late = []

    def opened(pid):
        late.append(Late(open_births(pid)))
        return late[0]

    probe = open_births(os.getpid())
    if probe is None:
        return  # nobody tells here, so nothing comes late
    probe.close()
    monkeypatch.setattr("leakscope.trace.attach.family.open_births", opened)
    server = family("workers")
    old = children_of(server.pid)
    with Family(make_plan(server.pid), Wishes(), 5.0, lambda recording, session: None) as following:
        os.kill(old[0], signal.SIGTERM)
        new = until(lambda: [pid for pid in children_of(server.pid) if pid not in old])[0]
        following._look_at_lists("forked")
        os.kill(new, signal.SIGTERM)
        until(lambda: new not in children_of(server.pid))
        time.sleep(0.2)
        following.look()
        late[0].open = True
        following.look()
        following.look()
        assert [one.pid for one in following.named].count(new) == 1


def test_without_word_from_the_kernel_the_lists_of_children_are_looked_at(family, monkeypatch):
    monkeypatch.setattr("leakscope.trace.attach.family.open_births", lambda pid: None)
    server = family("workers")
    old = children_of(server.pid)
    finished = []
    with Family(
        make_plan(server.pid), Wishes(), 5.0, lambda recording, session: finished.append(recording)
    ) as following:

        def followed():
            following.look()
            return {session.plan.pid for session in following.sessions}

        until(lambda: followed() == {server.pid, *old})
        os.kill(old[0], signal.SIGTERM)
        new = until(lambda: [pid for pid in children_of(server.pid) if pid not in old])[0]
        until(lambda: followed() == {server.pid, *old[1:], new})
        time.sleep(0.5)
        following.detach()
    assert {recording.process.pid for recording in finished} == {server.pid, *old, new}
    assert "may be missing and not counted" in " ".join(following.sentences())
    assert not following.problems


def test_children_that_come_and_go_are_not_harmed(attaching, tmp_path):
    with started([str(build("forks", tmp_path))], tmp_path) as process:
        by = attaching(process.pid)
        until(lambda: is_attached(process.pid, by.pid))
        time.sleep(6)
        found, told = ended(by, tmp_path)
        assert process.pid in found
        assert "), too;" in told  # those that stay for a while
        assert "ended too early to be attached to" in notes(found)
        for pid in (process.pid, *children_of(process.pid)):
            with contextlib.suppress(TargetError):  # it has ended
                assert find_attached(pid) is None


FORKS = """
import os, sys
from leakscope.trace.attach.births import open_births
if sys.argv[1] == "nobody" and os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
births = open_births(os.getpid())
if births is None:
    sys.exit("not told")
child = os.fork()
if not child:
    grandchild = os.fork()
    if not grandchild:
        os.execv("/bin/true", ["true"])
    os.waitpid(grandchild, 0)
    print(os.getpid(), grandchild, flush=True)
    os._exit(0)
os.waitpid(child, 0)
told = births.read()
print([(b.pid, b.parent) for b in told if os.getpid() in (b.pid, b.parent) or child in (b.pid, b.parent)],
      [b.pid for b in told if not b.parent], births.lost, os.getpid())
"""


@pytest.mark.parametrize("who", ["nobody", "root"])
def test_the_kernel_tells_of_each_fork_and_exec(who):
    done = subprocess.run(
        [sys.executable, "-c", FORKS, who], capture_output=True, text=True, check=False
    )
    if "not told" in done.stderr:
        assert (
            open_births(os.getpid()) is None
            or int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) > 2
        )
        return
    numbers, told = done.stdout.splitlines()
    child, grandchild = map(int, numbers.split())
    me = int(told.rsplit(" ", 1)[1])
    assert f"({child}, {me})" in told
    assert f"({grandchild}, {child})" in told
    assert grandchild in json.loads("[" + told.split("] [")[1].split("]")[0] + "]")


def test_bounds_are_refused():
    for extra in (["--at-once", "0", "--follow"], ["--at-once", "5"]):
        done = subprocess.run(
            [*LEAKSCOPE, "attach", str(os.getpid()), *extra],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") <= 2
        assert "processes at once are not possible" in done.stderr
