# SPDX-License-Identifier: Apache-2.0
"""What the exit status of `run` and `report` says: docs/reference/exit-status.md."""

import subprocess

import pytest

LEAKS = "#include <stdlib.h>\nint main(void) { *(char *volatile *)malloc(77) = 0; return 6; }\n"


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaking")
    (folder / "leaking.c").write_text(LEAKS)
    subprocess.run(["gcc", "-O0", "leaking.c", "-o", "leaking"], cwd=folder, check=True)
    return folder / "leaking"


@pytest.mark.parametrize(
    ("options", "command", "status"),
    [
        ([], ["true"], 0),
        ([], ["sh", "-c", "exit 7"], 7),
        ([], ["sh", "-c", "kill -9 $$"], 137),
        (["--no-program-exit-code"], ["sh", "-c", "exit 7"], 0),
        (["--program-exit-code"], ["sh", "-c", "exit 7"], 7),
        (["--no-report"], ["sh", "-c", "exit 7"], 7),
        ([], ["LEAKING"], 1),
        (["--exit-code", "99"], ["LEAKING"], 99),
        (["--exit-code", "0"], ["LEAKING"], 6),
        (["--exit-code", "0", "--no-program-exit-code"], ["LEAKING"], 0),
        (["--sample", "512KiB"], ["true"], 3),
        (["--sample", "512KiB"], ["sh", "-c", "exit 7"], 7),
        (["--sample", "512KiB", "--undecided-exit-code", "0"], ["true"], 0),
        (["--start-after", "1000"], ["ls", "/"], 3),
        (["--min-size", "1GiB"], ["ls", "/"], 3),
    ],
)
def test_run(leakscope, leaking, tmp_path, options, command, status):
    words = [leaking if word == "LEAKING" else word for word in command]

    done = leakscope("run", *options, "--", *words, cwd=tmp_path)

    assert done.returncode == status, done.stderr
    own = f"leakscope: exit status {status} is that of {words[0]}"
    assert (own in done.stderr) == (status in {6, 7, 137}), done.stderr


def test_report_says_the_same_of_a_recording(leakscope, leaking, tmp_path):
    leakscope("run", "--no-report", "-o", "leaks.leakscope", "--", leaking, cwd=tmp_path)
    leakscope("run", "--no-report", "-o", "clean.leakscope", "--", "true", cwd=tmp_path)
    late = ("--start-after", "1000", "-o", "late.leakscope")
    leakscope("run", "--no-report", *late, "--", "ls", "/", cwd=tmp_path)

    def status(*names):
        return leakscope("report", *names, cwd=tmp_path).returncode

    assert status("clean.leakscope") == 0
    assert status("late.leakscope", "clean.leakscope") == 3
    assert status("late.leakscope", "absent.leakscope") == 2
    assert status("late.leakscope", "absent.leakscope", "leaks.leakscope") == 1
    said = leakscope("report", "late.leakscope", cwd=tmp_path).stdout
    assert said.startswith("leakscope: nothing is known of leaks: recording was not switched on")
