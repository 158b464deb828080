# SPDX-License-Identifier: Apache-2.0
"""What two walks of a heap prove, and what they put together."""

from __future__ import annotations

import pytest

from leakscope.model.census import HeapGrowth, Spaces, Tally
from leakscope.model.reachability import ScanFacts
from leakscope.scan.census import _grown

FACTS = ScanFacts("copied", 1.0, 1.0, 0, 1)


def growth(then: Tally, now: Tally, lost_gone: int = 0) -> HeapGrowth:
    return HeapGrowth(
        1, "glibc 2.36", 10.0, then, now, None, None, (), Spaces((), ()), FACTS, FACTS, lost_gone
    )


@pytest.mark.parametrize(
    ("then", "now", "gone", "proved"),
    [
        (Tally(9, 900, 0, 0), Tally(99, 9900, 90, 9000), 0, True),
        (Tally(9, 900, 9, 900), Tally(99, 9900, 9, 900), 0, False),  # lost, and no more come
        (Tally(9, 900, 0, 0), Tally(10, 1000, 1, 100), 0, False),  # one may be in a thread's hands
        # What is lost is never freed: this program has pointers that nobody recognised.
        (Tally(99, 9900, 90, 9000), Tally(199, 19900, 190, 19000), 30, False),
    ],
)
def test_lost_bytes_prove_a_leak_when_they_grow_and_stay(then, now, gone, proved):
    assert growth(then, now, gone).proves_leak is proved


def test_like_sizes_are_one_row_unless_one_of_them_stands_out():
    then = {("text", 600 + i): Tally(1, 600 + i) for i in range(100)}
    now = {("text", 600 + i): Tally(3, 3 * (600 + i)) for i in range(100)}
    now |= {("zeros", 4104): Tally(50, 50 * 4104), ("zeros", 4200): Tally(1, 4200)}

    rows = _grown(then, now)

    assert [(row.what, row.low, row.high, row.blocks) for row in rows] == [
        ("zeros", 4104, 4104, 50),
        ("text", 600, 699, 200),
        ("zeros", 4200, 4200, 1),
    ]
