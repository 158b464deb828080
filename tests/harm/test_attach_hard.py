# SPDX-License-Identifier: Apache-2.0
"""Programs that make attaching hard: each goes on as if nothing had been, or is refused with a reason."""

import subprocess
import time

from harm.attaching import build, started
from harm.conftest import LEAKSCOPE, environment
from leakscope.errors import LeakscopeError
from leakscope.target.frozen import Frozen
from leakscope.trace.attach.island import find_attached
from leakscope.trace.attach.plan import make_plan
from leakscope.trace.attach.session import Session

PAUSE_S = 0.3


def test_a_thread_that_the_kernel_holds_makes_no_other_one_wait(tmp_path):
    """The threads are not held up together with one that waits for the child of its vfork."""
    with started([str(build("vforks", tmp_path))], tmp_path) as process:
        done = 0
        for _ in range(6):
            try:
                with Session(make_plan(process.pid), max_pause_s=PAUSE_S) as session:
                    time.sleep(0.7)
            except LeakscopeError as error:
                assert "inside the kernel" in str(error)  # noqa: PT017 - it need not come
                time.sleep(0.4)
                continue
            done += 1
            assert session.removed.unmapped
            assert session.removed.pause_ms < 1500
        assert done
        assert find_attached(process.pid) is None


def test_a_filter_that_forbids_what_a_stop_makes_the_kernel_do(tmp_path):
    """A process under a filter is read from outside: its sleeps go on by themselves."""
    with started([str(build("no_restart", tmp_path))], tmp_path) as process:
        for _ in range(8):
            time.sleep(0.07)
            with Frozen(process.pid):
                pass
        done = subprocess.run(
            [*LEAKSCOPE, "scan", str(process.pid)], env=environment(), check=False,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "Scan: " in done.stdout, done.stderr
        time.sleep(0.5)
