# SPDX-License-Identifier: Apache-2.0
"""While leakscope waits for a program, no thread but its main one takes a signal."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LEAKSCOPE = (sys.executable, "-m", "leakscope")
_WANTED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_SHOULD_BE_UP_S = 60


def _open_signals(pid):
    """The threads other than the main one, and which of the signals each would take."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        if int(task.name) != pid:
            status = (task / "status").read_text()
            (line,) = (each for each in status.splitlines() if each.startswith("SigBlk:"))
            blocked = int(line.split()[1], 16)
            found[task.name] = {each for each in _WANTED if not blocked >> (each - 1) & 1}
    return found


@pytest.mark.parametrize(
    "options",
    [
        ["run"],
        ["run", "--baseline", "BASELINE"],
        ["run", "--with", "lsan"],
        ["run", "--with", "heaptrack"],
        ["compare", "--with", "dmalloc"],
    ],
    ids=" ".join,
)
def test_other_threads_take_no_signal(tmp_path, options):
    baseline, up = tmp_path / "baseline.json", tmp_path / "up"
    first = ["run", "-o", tmp_path / "first", "--json", "--report-file", baseline, "--", "true"]
    subprocess.run([*LEAKSCOPE, *first], check=False, capture_output=True)
    words = [f"{baseline}" if word == "BASELINE" else word for word in options]
    command = [*LEAKSCOPE, *words, "--", "sh", "-c", f'echo > "{up}"; exec sleep 300']
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"},
        start_new_session=True,
    )
    try:
        until = time.monotonic() + _SHOULD_BE_UP_S
        while not up.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert up.exists()
        assert not any(_open_signals(process.pid).values())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
