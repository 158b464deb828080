# SPDX-License-Identifier: Apache-2.0
"""CI runs what developers run before a commit, but for the hooks that are tests of their own."""

import os
import subprocess

import yaml

from architecture.test_house import tool
from conftest import ROOT

TESTED_ALONE = "ruff,ruff-format,mypy"  # in test_house.py


def test_every_file_passes_the_hooks(tmp_path):
    done = subprocess.run(
        [tool("pre-commit"), "run", "--all-files", "--color=never"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"SKIP": TESTED_ALONE, "PRE_COMMIT_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Passed") == 4


def test_hooks_fetch_nothing():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in hooks["repos"]] == ["local"]
    assert {hook["language"] for hook in hooks["repos"][0]["hooks"]} == {"system"}
