# SPDX-License-Identifier: Apache-2.0
"""Verdicts from a few exact looks at what lives."""

import pytest

from leakscope.judge.live_sets import judge_live_set
from leakscope.model.findings import Verdict

MIB = 1 << 20


def judge(*sizes, place=True, **more):
    times = [60.0 * n for n in range(len(sizes))]
    counts = [size // 100 for size in sizes]
    found = judge_live_set(
        times, sizes, counts, [50 * MIB] * len(sizes), held_in_one_place=place, **more
    )
    return None if found is None else found.verdict


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [
        ((5, 6), Verdict.GROWING),
        ((5, 6, 7), Verdict.LEAKING),
        ((5, 6, 7, 8, 9), Verdict.LEAKING),
        ((5, 9, 11, 12), Verdict.FILLING),
        ((5, 9, 9, 9), Verdict.WARM_UP),
        ((5, 9, 13, 13), Verdict.WARM_UP),
        ((5, 9, 5, 9), Verdict.BOUNDED),
        ((5, 9, 5, 5), Verdict.BOUNDED),
        ((9, 5), None),
        ((5, 5, 5), None),
        ((0, 3, 6), Verdict.LEAKING),
    ],
)
def test_courses(sizes, verdict):
    assert judge(*(size * MIB for size in sizes)) == verdict


def test_one_signal_is_no_leak():
    assert judge(5 * MIB, 6 * MIB, 7 * MIB, place=False) is Verdict.GROWING


def test_what_was_watched_briefly_is_no_leak():
    assert judge(5 * MIB, 6 * MIB, 7 * MIB, least_s=900.0) is Verdict.GROWING
    assert judge(5 * MIB, 6 * MIB, 7 * MIB, least_s=100.0) is Verdict.LEAKING


def test_what_is_little_has_no_verdict():
    assert judge(5 * MIB, 5 * MIB + 1000, 5 * MIB + 2000) is None
    assert judge(10, 25, 41, unit="count") is None


def test_dumps_of_one_moment_have_no_rate():
    found = judge_live_set([0, 0, 0], [MIB, 2 * MIB, 3 * MIB], [1, 2, 3], [9 * MIB] * 3, held_in_one_place=True)  # fmt: skip
    assert found.rate is None
    assert found.verdict is Verdict.LEAKING
