# SPDX-License-Identifier: Apache-2.0
"""Memory faults in the kernel's log: programs' and the kernel's own, each counted once."""

from __future__ import annotations

import pytest

from leakscope.proc.faults import parse_faults, read_faults

PROGRAM = {
    "w[24812]: segfault at 1234567888 ip 00007f79b78b6f0a sp 00007ffd5ebcfef0 error 4 in "
    "libc.so.6[98f0a,7f79b7844000+156000] likely on CPU 1 (core 1, socket 0)": "w (pid 24812) in libc.so.6",
    "traps: my prog[77] general protection fault ip:55d1 sp:7ffc error:0 in prog[55d0+1000]": "my prog (pid 77) in prog",
    "traps: a[8] trap invalid opcode ip:1 sp:2 error:0 in a[1000+1000]": "a (pid 8) in a",
    "b[9]: unhandled level 1 translation fault (11) at 0x10, esr 0x82, in b[400000+1000]": "b (pid 9) in b",
    "c[10]: segfault at 0 ip 0000000000000000 sp 00007ffe error 14": "c (pid 10)",
}


@pytest.mark.parametrize(("text", "who"), PROGRAM.items())
def test_a_program(text, who):
    (fault,) = parse_faults([(90.0, text)], 100.0)
    assert (fault.kernel, fault.text, fault.age_s) == (False, who, 10.0)


def test_an_oops_of_several_lines_is_one():
    records = [
        (50.0, "BUG: kernel NULL pointer dereference, address: 0000000000000008"),
        (50.1, "Oops: 0002 [#1] PREEMPT SMP PTI"),
        (
            80.0,
            "general protection fault, probably for non-canonical address 0xdead: 0000 [#2] SMP",
        ),
    ]
    first, second = parse_faults(records, 100.0)
    assert first.kernel
    assert first.text.startswith("BUG: kernel NULL pointer")
    assert second.age_s == 20.0


def test_other_lines_are_no_faults():
    texts = ["usb 1-1: new device", "Out of memory: Killed process 5 (a)", "page fault handler set"]
    assert parse_faults([(1.0, text) for text in texts], 2.0) == []


def test_a_log_that_may_not_be_read(tmp_path):
    assert read_faults(str(tmp_path / "none")) is None
