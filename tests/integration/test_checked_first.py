# SPDX-License-Identifier: Apache-2.0
"""What can be checked is checked before the program starts; a report that nobody gets is an error."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--suppressions", "absent"], "absent cannot be read"),
        (["--suppressions", "wrong"], "wrong:1:"),
        (["--suppressions", "fifo"], "fifo are not a regular file"),
        (["--suppressions", "/dev/zero"], "/dev/zero are not a regular file"),
        (["--no-report", "--report-file", "x"], "--report-file asks for a report"),
        (["--no-report", "--json"], "--json asks for a report"),
        (["--report-file", "absent/x"], "there is no directory absent"),
        (["--debug-dir", "absent"], "there is no directory absent"),
        (["-o", "wrong/below/"], "cannot be made: Not a directory"),
    ],
)
def test_before_the_start(leakscope, tmp_path, options, reason):
    (tmp_path / "wrong").write_text("nonsense\n")
    os.mkfifo(tmp_path / "fifo")

    done = leakscope("run", *options, "--", "touch", "started", cwd=tmp_path, timeout=30)

    assert done.returncode == 2
    assert reason in done.stderr
    assert not (tmp_path / "started").exists()


def test_a_directory_for_recordings_is_made(leakscope, tmp_path):
    options = ("-o", "deep/rec/", "--report-file", "deep/rec/report.txt")

    done = leakscope("run", *options, "--", "true", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "deep/rec").glob("true.*.leakscope"))) == 1
    assert (tmp_path / "deep/rec/report.txt").exists()


def test_a_report_to_a_closed_output_is_not_a_clean_one(leakscope, tmp_path):
    leakscope("run", "--no-report", "-o", "x.leakscope", "--", "true", cwd=tmp_path)
    command = 'python=$1; shift; exec "$python" -m leakscope report x.leakscope "$@" >&-'

    def report(*arguments):
        words = ["sh", "-c", command, "sh", sys.executable, *arguments]
        return subprocess.run(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)

    done = report()
    assert done.returncode == 2
    assert done.stderr.startswith("leakscope: the standard output is closed")
    assert report("--report-file", "report.txt").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("scan", str(os.getpid())),
        ("watch", str(os.getpid()), "--for", "1s"),
        ("find", str(os.getpid()), "--for", "3s"),
    ],
)
def test_nothing_is_looked_at_for_a_closed_output(words):
    command = [sys.executable, "-m", "leakscope", *words]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("leakscope: the standard output is closed")
