# SPDX-License-Identifier: Apache-2.0
"""Three quarters of an hour of a kernel that leaks slowly, in minutes: while it sleeps, its clock runs ahead.

The watch is killed at the end, and its recording judged here: the same code, and emulated
arithmetic takes longer than all the looks.
"""

import base64
import json
import subprocess

import pytest

from lab_boot import LEAKSCOPE, boot, source_lines

pytestmark = pytest.mark.timeout(2400)

# The module takes 1,000 bytes five times a second for ever, and remembers the newest 64 of
# something. A program opens a descriptor every other second and closes none.
SCRIPT = """
insmod {module}/leaks.ko
(echo loop >/proc/leaks)
(echo slowly >/proc/leaks)
ulimit -n 8192
python3 -I -c 'import os, time
kept = []
while True:
    kept.append(os.pipe())
    time.sleep(2)' &
section watch timeout -s KILL 43m $L kernel watch --every 60s --record /run/watched
section recording base64 /run/watched
"""


@pytest.fixture(scope="module")
def watched(lab_kernel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    # Nobody waits for the clock: it goes on when there is nothing to do.
    said = boot(
        SCRIPT.format(module=f"{lab_kernel}/leaks"),
        folder,
        kernel=lab_kernel / "arch/x86/boot/bzImage",
        append="page_owner=on slub_debug=U kmemleak=on",
        options=("-icount", "shift=2,sleep=off"),
    )
    recording = folder / "watched"
    recording.write_bytes(base64.b64decode(said["recording"].text))
    done = subprocess.run(
        [LEAKSCOPE, "report", "--json", recording],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return json.loads(done.stdout)


def test_what_leaks_slowly_is_called_a_leak_with_its_line(watched, lab_kernel):
    line = source_lines(lab_kernel / "leaks/leaks.c")["leaks_slowly"]
    leaks = watched["leaks"]
    (own,) = [leak for leak in leaks if leak["gauge"]["kind"] == "allocinfo"]
    assert f"leaks.c:{line}:leaks_slowly:leaks" in own["gauge"]["key"]
    assert own["next_step"].startswith("sudo leakscope kernel scan")


def test_descriptors_that_hold_kernel_memory_are_their_programs_leak(watched):
    leaks = watched["leaks"]
    assert [leak["gauge"]["metric"] for leak in leaks if leak["gauge"]["kind"] == "process"] == ["fds"]  # fmt: skip


def test_nothing_else_is_called_a_leak(watched):
    kinds = sorted(leak["gauge"]["kind"] for leak in watched["leaks"])
    assert kinds == ["allocinfo", "process"]
    bounded = [g for g in watched["gauges"] if "leaks_remember" in g["key"]]
    assert all(g["verdict"] == "plateau" for g in bounded)
