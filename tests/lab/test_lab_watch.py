# SPDX-License-Identifier: Apache-2.0
"""Three quarters of an hour of a kernel that leaks slowly, in minutes: while it sleeps, its clock runs ahead."""

import pytest

from lab_boot import boot, document, source_lines

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
section watch $L kernel watch --for 43m --every 60s --json
"""


@pytest.fixture(scope="module")
def watched(lab_kernel, tmp_path_factory):
    # Nobody waits for the clock: it goes on when there is nothing to do.
    return boot(
        SCRIPT.format(module=f"{lab_kernel}/leaks"),
        tmp_path_factory.mktemp("lab"),
        kernel=lab_kernel / "arch/x86/boot/bzImage",
        append="page_owner=on slub_debug=U kmemleak=on",
        options=("-icount", "shift=2,sleep=off"),
    )["watch"]


def test_what_leaks_slowly_is_called_a_leak_with_its_line(watched, lab_kernel):
    assert watched.status == 1
    line = source_lines(lab_kernel / "leaks/leaks.c")["leaks_slowly"]
    leaks = document(watched)["leaks"]
    (own,) = [leak for leak in leaks if leak["gauge"]["kind"] == "allocinfo"]
    assert f"leaks.c:{line}:leaks_slowly:leaks" in own["gauge"]["key"]
    assert own["next_step"].startswith("sudo leakscope kernel scan")


def test_descriptors_that_hold_kernel_memory_are_their_programs_leak(watched):
    leaks = document(watched)["leaks"]
    assert [leak["gauge"]["metric"] for leak in leaks if leak["gauge"]["kind"] == "process"] == ["fds"]  # fmt: skip


def test_nothing_else_is_called_a_leak(watched):
    kinds = sorted(leak["gauge"]["kind"] for leak in document(watched)["leaks"])
    assert kinds == ["allocinfo", "process"]
    bounded = [g for g in document(watched)["gauges"] if "leaks_remember" in g["key"]]
    assert all(g["verdict"] == "plateau" for g in bounded)
