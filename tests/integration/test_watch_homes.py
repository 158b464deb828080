# SPDX-License-Identifier: Apache-2.0
"""`leakscope watch` says where a process that grows lives: its container, as its cgroup tells."""

import json
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

GROUPS = next(
    (
        p
        for p in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
        if (p / "cgroup.procs").exists()
    ),
    Path("/sys/fs/cgroup"),
)
GROWS = "import time\nkept = []\nwhile True: kept.append(b'x' * (1 << 20)); time.sleep(0.2)"


@pytest.fixture
def container():
    """A cgroup as docker makes it; gives its folder and its name."""
    if os.geteuid() != 0 or not os.access(GROUPS, os.W_OK):
        pytest.skip("cgroups may not be made")
    parent = GROUPS / "docker"
    made = not parent.exists()
    parent.mkdir(exist_ok=True)
    folder = parent / secrets.token_hex(32)
    folder.mkdir()
    yield folder
    folder.rmdir()
    if made:
        parent.rmdir()


def test_a_growing_process_is_named_with_its_container(leakscope, container, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", GROWS])
    try:
        (container / "cgroup.procs").write_text(str(process.pid))
        text = leakscope(
            "watch", process.pid, "--for", "5s", "--every", "0.5s", "--record", tmp_path / "w"
        )
    finally:
        process.kill()
        process.wait()
    # It has one name, whoever asks.
    assert f"(pid {process.pid}) holds now:" in text.stdout
    names = set(re.findall(rf"(\S+ \S+) \(pid {process.pid}\)", text.stdout))
    assert len(names) == 1, names
    home = f"docker container {container.name[:12]}"
    assert f"in {home}" in " ".join(text.stdout.split())

    again = leakscope("report", tmp_path / "w", "--json")
    gauges = json.loads(again.stdout)["gauges"]
    assert {gauge["home"] for gauge in gauges if gauge["pid"] == process.pid} == {home}
    assert {gauge["home"] for gauge in gauges if gauge["pid"] is None} <= {None}
