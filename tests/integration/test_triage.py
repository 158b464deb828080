# SPDX-License-Identifier: Apache-2.0
"""`leakscope` alone: one screen, verdict first, next command last."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from leakscope.proc.cgroup import find_hierarchy, own_path


def leakscope(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "leakscope", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80"},
    )


def test_one_screen_verdict_first_next_command_last():
    done = leakscope()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("leakscope: ")
    assert " in use (" in lines[0]
    assert "Next: leakscope watch" in " ".join(lines[-2:])
    assert max(map(len, lines)) <= 80


def test_the_account_adds_up_in_json():
    document = json.loads(leakscope("--json").stdout)
    path = "docs/reference/json-schema/leakscope-triage-1.json"
    jsonschema.validate(document, json.loads((Path(__file__).parents[2] / path).read_text()))
    assert sum(line["bytes"] for line in document["lines"]) == document["total"]
    assert document["seconds"] < 20
    shown = [p["anon"] if p["pss"] is None else p["pss"] for p in document["processes"]]
    assert shown == sorted(shown, reverse=True)
    assert os.getpid() in {p["pid"] for p in document["processes"]}


def test_descriptors_close_to_the_limit_are_odd():
    code = "import os, resource, sys\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\nk=[os.dup(0) for _ in range(57)]\nprint(flush=True)\nsys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        process.stdout.readline()
        said = [o["sentence"] for o in json.loads(leakscope("--json").stdout)["oddities"]]
    finally:
        process.communicate(b"")
    assert any(f"(pid {process.pid}) has 60 of 64 descriptors open" in each for each in said)


def test_a_large_deleted_file_kept_open_is_odd(tmp_path):
    path = tmp_path / "kept"
    with open(path, "wb") as file:
        file.writelines(b"x" * (1 << 20) for _ in range(65))
        file.flush()
        os.fsync(file.fileno())
        path.unlink()
        said = [o["sentence"] for o in json.loads(leakscope("--json").stdout)["oddities"]]
    mine = [each for each in said if f"(pid {os.getpid()})" in each]
    assert len(mine) == 1
    assert "of deleted files, for one" in mine[0]
    assert str(path) in mine[0]


def test_help_still_lists_the_commands():
    done = leakscope("--help")
    assert done.returncode == 0
    assert " watch " in done.stdout


@pytest.fixture
def bounded():
    """A cgroup of 300 MiB below our own; this machine may have version 1 or 2."""
    hierarchy = find_hierarchy()
    own = own_path(hierarchy)
    path = f"{hierarchy.root}{own.rstrip('/')}/leakscope-test-{os.getpid()}"
    os.mkdir(path)
    name = "memory.max" if hierarchy.version == 2 else "memory.limit_in_bytes"
    Path(path, name).write_text(str(300 << 20))
    yield Path(path)
    for _ in range(50):
        try:
            os.rmdir(path)
            break
        except OSError:
            time.sleep(0.1)


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/sys/fs/cgroup", os.W_OK), reason="cgroups may not be made"
)
def test_inside_a_cgroup_its_limit_counts_not_that_of_the_machine(bounded):
    code = "kept = b'x' * (200 << 20); print(flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"input(); {code}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def join():
        (bounded / "cgroup.procs").write_text(str(os.getpid()))

    try:
        (bounded / "cgroup.procs").write_text(str(holder.pid))
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        holder.stdout.readline()
        command = [sys.executable, "-m", "leakscope"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        said = subprocess.run(
            command, preexec_fn=join, capture_output=True, text=True, env=environment, check=True
        ).stdout
        watched = subprocess.run(
            [*command, "watch", str(holder.pid), "--for", "1s", "--json"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,  # undecided
        ).stdout
    finally:
        holder.communicate(b"\n")
    first = said.partition(";")[0]
    assert "of the 300 MiB of this cgroup in use" in " ".join(first.split())
    gauges = {g["metric"]: g for g in json.loads(watched)["gauges"]}
    # What the process holds and what its cgroup still may take: the limit, nearly.
    assert gauges["anon"]["limit"] == pytest.approx(300 << 20, rel=0.15)


def test_page_tables_of_one_process_are_said_to_be_its_own(tmp_path):
    source = Path(__file__).parents[1] / "programs" / "cases" / "page_tables" / "pt.c"
    subprocess.run(["gcc", "-O2", source, "-o", tmp_path / "pt"], check=True)
    process = subprocess.Popen([tmp_path / "pt"])
    try:
        end = time.monotonic() + 90
        while "S (sleeping)" not in Path(f"/proc/{process.pid}/status").read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        said = " ".join(leakscope().stdout.split())
    finally:
        process.kill()
        process.wait()
    owner = rf"page tables take [\d.]+ GiB, [\d.]+ GiB of them those of pt \(pid {process.pid}\)"
    assert re.search(owner, said), said


def test_a_kill_in_a_cgroup_is_not_the_machines(bounded):
    code = "input()\nkept = b'x' * (400 << 20)"
    victim = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    (bounded / "cgroup.procs").write_text(str(victim.pid))
    victim.communicate(b"\n")
    assert victim.returncode == -9
    said = " ".join(leakscope().stdout.split())
    assert "in cgroups that reached their own limit" in said
    assert bounded.name in said or "…" in said
    assert "journalctl -k -g 'out of memory'" in said
