# SPDX-License-Identifier: Apache-2.0
"""Whatever the lives of the blocks, the answer is one, in bounds, and says no more than it knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from leakscope.judge import judge
from leakscope.model.findings import Verdict
from leakscope.model.reachability import Reachability
from leakscope.words import confidence_words
from unit.judge.lives import NEVER, Lives, frames_of, recording

ENDS = ("exited", "killed by SIGKILL", "killed by SIGTERM", "running", "replaced by exec", None)


def _lives(seed: int, seconds: float) -> Lives:
    dice = np.random.default_rng(seed)
    count = int(dice.integers(1, 200))
    born = np.sort(dice.uniform(0, seconds * dice.uniform(0.01, 1.0), count))
    age = dice.exponential(seconds * dice.uniform(0.001, 1.0), count)
    age[dice.random(count) < dice.random()] = NEVER
    return born, born + age, dice.integers(1, 100_000, count)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 2**32), max_size=6),
    st.floats(0.001, 1e5),
    st.integers(0, 63),
    st.sampled_from(ENDS),
    st.sampled_from(["exact", "sampled"]),
    st.integers(0, 2**32) | st.none(),
)
def test_any_recording_is_answered(seeds, seconds, rows, ended, mode, kinds):
    made = recording(*(_lives(seed, seconds) for seed in seeds), seconds=seconds, rows=max(rows, 1))
    coverage = replace(made.coverage, mode=mode, sample_bytes=4096 if mode == "sampled" else None)
    made = replace(made, process=replace(made.process, ended=ended), coverage=coverage)
    if kinds is not None:
        drawn = np.random.default_rng(kinds).integers(0, len(Reachability), len(made.blocks))
        made = replace(made, reachability=drawn.astype(np.uint8))
    with np.errstate(all="raise", under="ignore"):
        found = judge(made, frames_of)
        again = judge(made, frames_of)
    assert found == again
    for each in found.findings:
        assert 0.0 <= each.confidence <= 1.0
        assert each.sentence
        if mode == "exact" and each.lost_bytes is not None:
            assert each.lost_bytes + (each.unexamined_bytes or 0) <= each.live_bytes
            assert each.leak_bytes <= max(each.live_bytes, each.peak_bytes or 0)
        if confidence_words(each.confidence) == "almost certain" and each.is_leak:
            assert each.verdict is Verdict.LOST
        if each.verdict is Verdict.LOST:
            assert each.lost_count
    assert bool(found.leaks) == (found.verdict in {Verdict.LOST, Verdict.LEAKING})
