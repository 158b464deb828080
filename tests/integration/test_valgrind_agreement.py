# SPDX-License-Identifier: Apache-2.0
"""What leakscope saw outstanding at exit is what valgrind saw, stack by stack."""

import pytest

from integration import valgrind_agreement
from integration.valgrind_agreement import Outstanding, compare, measure


@pytest.mark.timeout(300)
def test_programs_of_debian_packages():
    seen = agreed = 0
    leaking = []
    for name, of_valgrind, _, same, disagreements in measure():
        unexplained = [d for d in disagreements if d.reason == "unexplained"]
        assert not unexplained, f"{name}: {unexplained}"
        seen += of_valgrind
        agreed += same
        if same:
            leaking.append(name)
    assert len(leaking) >= 10, leaking
    assert agreed >= 0.98 * seen, f"{agreed} of {seen}"


def test_a_missing_block_is_a_disagreement():
    one, other = Outstanding(), Outstanding()
    key = (("app", 0x10),)
    one.blocks[key], one.bytes[key] = 2, 20
    other.blocks[key], other.bytes[key] = 1, 10
    agreed, (disagreement,) = compare(one, other)
    assert agreed == 0
    assert disagreement.reason == "unexplained"


def test_inlined_frames_and_what_lies_below_start_do_not_count():
    frames = [("app", 1), ("app", 1), ("libc", 2), ("?", 3), ("?", 4)]
    assert valgrind_agreement.stack_key(frames) == (("app", 1), ("libc", 2))
