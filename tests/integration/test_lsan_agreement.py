# SPDX-License-Identifier: Apache-2.0
"""What leakscope calls lost at exit is what LeakSanitizer calls lost, line by line."""

import pytest

from integration.lsan_agreement import Comparison, measure

# LeakSanitizer takes a stale copy of the pointer, left on its stack, for a way to the blocks.
# The program says itself that they are lost, and valgrind agrees.
HIDDEN_FROM_LSAN = {"reach_containers"}


@pytest.mark.timeout(400)
def test_the_same_lines_lose_the_same_blocks():
    compared: list[Comparison] = list(measure())
    assert [(c.name, c.lsan, c.ours) for c in compared if c.lsan - c.ours] == []
    differ = [c for c in compared if not c.same and c.name not in HIDDEN_FROM_LSAN]
    assert [(c.name, c.lsan, c.ours) for c in differ] == []
    assert len(compared) >= 25
    assert sum(c.lsan.total() for c in compared) > 20_000
