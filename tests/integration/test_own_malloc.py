# SPDX-License-Identifier: Apache-2.0
"""A program that defines malloc itself cannot be traced by preloading, and is told so."""

import subprocess

from integration.claims import FOLDER
from integration.conftest import LEAKSCOPE


def test_a_program_with_its_own_malloc_is_refused(tmp_path):
    program = tmp_path / "own_malloc"
    source = FOLDER / "refused" / "own_malloc.c"
    subprocess.run(["gcc", "-O1", "-o", program, source], check=True)
    run = [*LEAKSCOPE, "run", "-o", tmp_path / "out", "--", program]

    done = subprocess.run(run, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert f"{program} defines malloc itself" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == "", "it was started all the same"
    assert not (tmp_path / "out").exists()
