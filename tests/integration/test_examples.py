# SPDX-License-Identifier: Apache-2.0
"""The worked examples of the library do what they say."""

import json
import os
import subprocess
import sys
import time

import pytest

from conftest import ROOT

EXAMPLES = ROOT / "examples"
PROGRAM = """
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifndef LEAKS
#define LEAKS 20
#endif
int main(int argc, char **argv) {
  for (int i = 0; i < LEAKS; i++) {
    char *volatile lost = malloc(1000);
    memset(lost, 1, 1000);
    usleep(10000);
  }
  while (argc > 1) {  // a daemon
    char *volatile lost = malloc(300000 / 10);
    memset(lost, 1, 300000 / 10);
    usleep(10000);
  }
  return 0;
}
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory, agent):
    folder = tmp_path_factory.mktemp("examples")
    (folder / "program.c").write_text(PROGRAM)
    for name, leaks in (("leaky", 20), ("clean", 0)):
        command = [
            "gcc",
            "-g",
            "-O1",
            f"-DLEAKS={leaks}",
            folder / "program.c",
            "-o",
            folder / name,
        ]
        subprocess.run(command, check=True)
    return folder


@pytest.mark.parametrize(("name", "status"), [("clean", 0), ("leaky", 1)])
def test_the_fixture_fails_the_test_of_a_program_that_leaks(programs, tmp_path, name, status):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull,
         f"--rootdir={tmp_path}", f"--basetemp={tmp_path / 'kept'}", EXAMPLES / "test_no_leaks.py"],
        capture_output=True, text=True, check=False,
        env=os.environ | {"APP": str(programs / name)},
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert ("LOST" in done.stdout and "program.c:10" in done.stdout) == bool(status)
    assert list(tmp_path.glob("kept/**/*.leakscope"))


def test_the_nightly_check_names_a_daemon_that_leaks(programs, tmp_path):
    daemon = subprocess.Popen([programs / "leaky", "daemon"])
    try:
        time.sleep(1)
        done = subprocess.run(
            [sys.executable, EXAMPLES / "nightly_check.py", str(daemon.pid), "--for", "20s",
             "--keep", tmp_path], capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        daemon.kill()
        daemon.wait()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "are lost" in done.stdout
    kept = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert kept["watch.json"]["growing_fast"]
    assert kept[f"scan-{daemon.pid}.json"]["counts"]["definitely_lost"] > 0


def test_the_nightly_check_is_quiet_about_a_daemon_that_does_not(tmp_path):
    daemon = subprocess.Popen(["sleep", "60"])
    command = [sys.executable, EXAMPLES / "nightly_check.py", "--for", "1s", "--keep", tmp_path]
    try:
        done = subprocess.run([*command, str(daemon.pid)], check=False, capture_output=True)
    finally:
        daemon.kill()
        daemon.wait()
    assert done.returncode == 0
    assert subprocess.run([*command, "no-such-daemon"], check=False).returncode == 2


def test_the_notebook_runs_from_its_first_cell_to_its_last(programs, tmp_path, monkeypatch, capsys):
    """Without Jupyter: cells are code, and what a cell ends in is a value."""
    monkeypatch.setenv("APP", str(programs / "leaky"))
    document = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    names = {}
    for cell in document["cells"]:
        assert cell.get("outputs", []) == []  # no result of somebody's machine
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["run"].returncode == 0
    assert names["rows"] == [
        {"verdict": "lost", "bytes": 20000, "blocks": 20, "function": "main", "line": 10}
    ]
    assert names["findings"].to_dict()["leak_count"] == 1
    assert "blocks of" in capsys.readouterr().out
