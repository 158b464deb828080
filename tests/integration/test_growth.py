# SPDX-License-Identifier: Apache-2.0
"""Programs that grow: watch and triage say how fast within seconds, and never more than they know."""

import json
import mmap
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "programs/growth/grow.c"


def leakscope(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "leakscope", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80"},
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    built = tmp_path_factory.mktemp("growth") / "grow"
    subprocess.run(["gcc", "-O1", "-o", built, SOURCE, "-lm"], check=True)
    return built


@pytest.fixture
def start(program):
    started = []

    def begin(*arguments):
        started.append(subprocess.Popen([program, *map(str, arguments)]))
        return started[-1].pid

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_several_kinds_of_growth_watched_at_once(start):
    """One watch of twenty seconds sees all of them; each is judged on its own."""
    kinds = ("fast", "load", "saw", "cache", "reserve", "percent")
    pids = {how: start(how, 100 if how == "percent" else 0) for how in kinds}
    held = start("held", 6)
    done = leakscope("watch", *pids.values(), held, "--for", "24s", "--every", "1s", "--json")
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert document["leak_count"] == 0
    anon = {g["pid"]: g for g in document["gauges"] if g["metric"] == "anon"}
    fast = {p["key"].partition("@")[0] for p in document["growing_fast"]}
    assert {str(pids["fast"]), str(pids["percent"]), str(held)} <= fast
    assert not {str(pids[how]) for how in ("load", "saw", "cache", "reserve")} & fast
    growth = anon[pids["fast"]]["growth"]
    assert growth["rate_per_s"] == pytest.approx(4 << 20, rel=0.4)
    assert growth["until_limit_s"] > 0
    assert anon[pids["fast"]]["confidence"] <= 0.6
    assert anon[held]["growth"]["held_s"] > 0
    assert anon[pids["load"]]["growth"]["rate_per_s"] == 0


def test_the_first_screen_has_subject_rate_and_next_command(start, tmp_path):
    pid = start("fast")
    began = time.monotonic()
    done = leakscope("watch", pid, "--for", "20s", "--record", tmp_path / "r")
    assert time.monotonic() - began < 60
    assert done.returncode == 3
    first = "\n".join(done.stdout.splitlines()[:24])
    assert "growing fast after " in first, done.stdout
    assert f"grow (pid {pid}), private memory" in first
    assert "MiB/s" in first
    assert f"Next: leakscope find {pid}" in first
    assert f"grow (pid {pid})" in done.stdout.splitlines()[0]
    looks = done.stdout.partition("leakscope: ")[0].splitlines()[1:]
    assert len(looks) > 2
    assert "MiB/s" not in looks[0]
    assert all("MiB/s" in line for line in looks[1:])  # from the second look on
    assert all("steady" in line and "limit in" in line for line in looks[1:])
    assert leakscope("report", tmp_path / "r").returncode == 3
    assert leakscope("report", tmp_path / "r", "--fail-on", "growth").returncode == 1


def test_address_space_is_reserved_and_not_resident(start):
    pid = start("reserve")
    done = leakscope("watch", pid, "--for", "4s")
    assert "virtual size" in done.stdout
    assert "reserved address space, not resident" in done.stdout
    assert done.returncode == 3


def test_triage_looks_twice_and_names_what_grows(start):
    pid = start("fast")
    time.sleep(1)
    done = leakscope()
    assert done.returncode == 0, done.stderr
    assert "nothing odd" not in done.stdout
    first = "\n".join(done.stdout.splitlines()[:24])
    assert first.startswith("leakscope: ")
    assert re.search(rf"grow \(pid {pid}(, [^)]+)?\)\s+grows\s+by ", first)
    assert f"leakscope watch {pid} --for 2m" in first
    row = next(line for line in done.stdout.splitlines() if line.endswith(f"  grow (pid {pid})"))
    assert "MiB/s" in row  # small, and shown all the same
    document = json.loads(leakscope("--json", "--apart", "0.5").stdout)
    own = next(p for p in document["processes"] if p["pid"] == pid)
    assert own["growth"] > 1 << 20  # a busy machine slows it
    assert document["apart_s"] >= 0.5
    assert leakscope("--apart", "soon").returncode == 2


def test_triage_names_who_owns_shared_memory(tmp_path):
    name = f"leakscope-owner-{os.getpid()}"
    descriptor = os.memfd_create(name)
    kept = mmap.mmap(-1, 24 << 20)  # shared anonymous memory
    file = Path("/dev/shm") / name
    try:
        kept.write(b"x" * len(kept))
        os.ftruncate(descriptor, 20 << 20)
        with mmap.mmap(descriptor, 20 << 20) as seen:
            seen.write(b"x" * len(seen))
            file.write_bytes(b"x" * (16 << 20))
            lines = json.loads(leakscope("--json").stdout)["lines"]
    finally:
        file.unlink()
        os.close(descriptor)
    owners = next(line for line in lines if line["name"] == "shared memory and tmpfs")["owners"]
    sizes = {owner["name"]: owner["bytes"] for owner in owners}
    assert sizes["tmpfs /dev/shm"] >= 16 << 20
    mine = {who: size for who, size in sizes.items() if f"(pid {os.getpid()})" in who}
    assert any(f"memfd:{name}" in who and size == 20 << 20 for who, size in mine.items())
    assert any("shared anonymous memory" in who and size >= 24 << 20 for who, size in mine.items())
    tables = next(line for line in lines if line["name"] == "page tables")["owners"]
    assert "(pid " in tables[0]["name"] if tables else True
