# SPDX-License-Identifier: Apache-2.0
"""A run that finds nothing loads nothing that is only for other tasks: it is what a build pays."""

import os
import re
import subprocess
import sys

ELSEWHERE = {
    "hashlib",
    "leakscope.formats",  # files of other tools
    "leakscope.judge.diff",
    "leakscope.judge.free_errors",
    "leakscope.judge.gate",  # baselines and budgets
    "leakscope.judge.held",
    "leakscope.judge.stands",
    "leakscope.judge.suppressions",
    "leakscope.report.html",
    "leakscope.report.json_",
    "leakscope.scan.process",
    "leakscope.symbols",
    "rich",
    "textual",
}


def test_a_run_that_finds_nothing_loads_nothing_for_other_tasks(tmp_path, agent):
    command = [sys.executable, "-X", "importtime", "-m", "leakscope", "run", "-q", "--", "true"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))
    assert "leakscope.judge.engine" in loaded
    assert loaded & ELSEWHERE == set()
