# SPDX-License-Identifier: Apache-2.0
"""A process that an interpreter runs is called by its script, whichever command is asked."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def service(tmp_path):
    script = tmp_path / "service.py"
    script.write_text("import time; kept = [bytes(5000) for _ in range(9)]; time.sleep(600)")
    # A name of its own for the interpreter, as a distribution gives it.
    python = tmp_path / "python3"
    python.symlink_to(Path(sys.executable).resolve())
    process = subprocess.Popen([python, script])
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    "command",
    [["scan"], ["attach", "--for", "1s"], ["find", "--no-stop"], ["watch", "--for", "1s"]],
)
def test_it_is_called_by_its_script(command, service, leakscope, tmp_path):
    done = leakscope(command[0], service, *command[1:], cwd=tmp_path)
    said = " ".join((done.stdout + done.stderr).split())
    assert "python3 service.py" in said, said
