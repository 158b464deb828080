# SPDX-License-Identifier: Apache-2.0
"""The first 24 lines of 80 columns: the subject, the verdict or the rate, and the next command."""

import re
import subprocess
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parents[1] / "programs"
VERDICT = re.compile(
    r"^leakscope: (?:\d+ places? leaks? |no (?:other )?leak (?:found|proven)|not enough data|\d+ of)",
    re.MULTILINE,
)
COMMAND = re.compile(r"leakscope\s+(?:run|report|watch|scan)\b")


def build(folder, *sources, options=("-g",)):
    program = folder / "subject"
    paths = [PROGRAMS / source for source in sources]
    subprocess.run(["gcc", *options, "-o", program, *paths, "-I", PROGRAMS], check=True)
    return program


def first_screen(text, subject="subject (pid"):
    """The first 24 lines, once they are known to hold what they have to."""
    rows = [line[at : at + 80] for line in text.splitlines() for at in range(0, len(line) or 1, 80)]
    screen = "\n".join(rows[:24])
    assert subject in screen, screen
    assert VERDICT.search(screen), screen
    assert COMMAND.search(screen), screen
    assert "Next: " in screen, screen
    return " ".join(screen.split())


@pytest.mark.parametrize(
    ("sources", "options", "says"),
    [
        (["places/helpers.c", "places/helpers_util.c"], [], "6 places leak "),
        (["leak_once.c"], ["--sample", "512KiB"], "record every allocation: leakscope run "),
        (["clean.c"], [], "nothing to mend; "),
        (["filling.c"], [], "run it for longer"),
    ],
)
def test_of_a_run_and_of_its_report(leakscope, tmp_path, sources, options, says):
    program = build(tmp_path, *sources)
    options = [*options, "-o", f"{tmp_path}/made.leakscope", "--no-debuginfod"]

    run = leakscope("run", *options, "--", program, cwd=tmp_path)
    report = leakscope("report", tmp_path / "made.leakscope", cwd=tmp_path)

    assert says in first_screen(run.stderr)
    assert says in first_screen(report.stdout)


def test_of_several_processes(leakscope, tmp_path):
    program = build(tmp_path, "places/helpers.c", "places/helpers_util.c")
    several = f"{program}; {program}; true"

    run = leakscope("run", "--no-debuginfod", "--", "sh", "-c", several, cwd=tmp_path)

    first_screen(run.stderr, subject="subject")
