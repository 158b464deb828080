# SPDX-License-Identifier: Apache-2.0
"""`leakscope` alone: one screen, verdict first, next command last."""

import json
import os
import subprocess
import sys


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
    assert document["schema"] == "leakscope-triage/1"
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
