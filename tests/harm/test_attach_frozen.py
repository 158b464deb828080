# SPDX-License-Identifier: Apache-2.0
"""A process that its cgroup's freezer holds: that is said, nothing waits for it, nothing is lost."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from harm.attaching import MAX_PAUSE_S, build, started
from harm.conftest import LEAKSCOPE, environment
from leakscope.errors import TargetError
from leakscope.proc.freezer import freezing_cgroup
from leakscope.target.frozen import Frozen, apart
from leakscope.trace.attach.beat import is_heard
from leakscope.trace.attach.island import find_attached
from leakscope.trace.attach.plan import make_plan

FREEZER = Path("/sys/fs/cgroup/freezer")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(FREEZER / "cgroup.procs", os.W_OK),
    reason="there is no freezer of version 1 here, or no cgroup may be made",
)


@pytest.fixture
def leaky(tmp_path):
    with started([str(build("leaky", tmp_path))], tmp_path) as process:
        yield process


@pytest.fixture
def freezer(leaky):
    """The state of a cgroup that holds the program."""
    folder = FREEZER / f"leakscope-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    (folder / "cgroup.procs").write_text(str(leaky.pid))
    state = folder / "freezer.state"
    try:
        yield state
    finally:
        state.write_text("THAWED")
        (FREEZER / "cgroup.procs").write_text(str(leaky.pid))
        folder.rmdir()


def freeze(state):
    end = time.monotonic() + 60
    while state.read_text().strip() != "FROZEN":
        assert time.monotonic() < end
        state.write_text("FROZEN")
        time.sleep(0.02)


def leakscope(*arguments):
    return subprocess.run(
        [*LEAKSCOPE, *arguments], env=environment(), check=False, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


def test_it_is_named_before_anything_is_touched(leaky, freezer):
    name = f"/{freezer.parent.name}"
    assert freezing_cgroup(leaky.pid) is None
    freeze(freezer)
    assert freezing_cgroup(leaky.pid) == name
    plan = make_plan(leaky.pid)
    assert plan.refusal == f"the freezer of its cgroup {name} holds it"
    assert "- attach" in (told := leakscope("doctor", str(leaky.pid)).stdout), told
    assert name in told
    done = leakscope("attach", str(leaky.pid), "--for", "1s")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert f"the freezer of its cgroup {name} holds it" in done.stderr
    assert "Traceback" not in done.stderr


def test_who_stops_it_names_it_too(leaky, freezer):
    freeze(freezer)
    with pytest.raises(TargetError, match=r"the freezer of its cgroup .* holds it"):
        apart(lambda: Frozen(leaky.pid, patience_s=0.2).__enter__())
    freezer.write_text("THAWED")
    end = time.monotonic() + 60
    while "\nTracerPid:\t0" not in Path(f"/proc/{leaky.pid}/status").read_text():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_process_that_cannot_be_detached_loses_no_recording(leaky, freezer, tmp_path):
    attach = subprocess.Popen(
        [*LEAKSCOPE, "attach", str(leaky.pid), "--max-pause", str(MAX_PAUSE_S), "--for", "6s",
         "-o", f"{tmp_path}/"],
        cwd=tmp_path, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + 60
    while (found := find_attached(leaky.pid)) is None or not found.patches or not is_heard(found):
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(2)
    freeze(freezer)
    out, told = attach.communicate(timeout=120)
    assert "leaky.c" in out, told
    assert f"leakscope detach {leaky.pid}" in told
    assert "nothing of leakscope is left in it" not in told
    assert attach.returncode == 2
    (path,) = tmp_path.glob("*.leakscope")
    assert "leaky.c" in leakscope("report", str(path)).stdout
    freezer.write_text("THAWED")
    assert leakscope("detach", str(leaky.pid)).returncode == 0
    assert find_attached(leaky.pid) is None
