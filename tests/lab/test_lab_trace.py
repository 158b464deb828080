# SPDX-License-Identifier: Apache-2.0
"""What leaks slowly is seen by the kernel's tracepoints, with its stack and its line."""

import pytest

from lab_boot import boot, document, source_lines

pytestmark = pytest.mark.timeout(2400)

SCRIPT = """
insmod {module}/leaks.ko
(echo slowly >/proc/leaks)
section bpf $L kernel trace --for 40s --kinds kmalloc --sample 1 --bpf --json --debug-dir {module}
"""


@pytest.fixture(scope="module")
def traced(lab_kernel, tmp_path_factory):
    return boot(
        SCRIPT.format(module=f"{lab_kernel}/leaks"),
        tmp_path_factory.mktemp("lab"),
        kernel=lab_kernel / "arch/x86/boot/bzImage",
    )["bpf"]


def by_function(answer):
    (process,) = document(answer)["processes"]
    return {f["source"]["function"]: f for f in process["findings"] if f["source"]}


def test_the_line_that_leaks_is_named_and_what_is_bounded_is_not(traced, lab_kernel):
    assert traced.status == 1
    found = by_function(traced)
    lines = source_lines(lab_kernel / "leaks/leaks.c")
    leak = found["leaks_slowly"]
    assert (leak["verdict"], leak["source"]["line"]) == ("leaking", lines["leaks_slowly"])
    assert 100 <= leak["live_count"] <= 300  # five a second
    assert {f["source"]["function"] for f in found.values() if f["verdict"] == "leaking"} == {
        "leaks_slowly"
    }
