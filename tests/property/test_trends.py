# SPDX-License-Identifier: Apache-2.0
"""Whatever the data, one honest verdict per series comes back, and units do not change it."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from leakscope.judge.trends import judge_series
from leakscope.model.series import Cut, Series, Subject, TrendVerdict

VALUES = hnp.arrays(
    np.float64,
    st.integers(0, 300),
    elements=st.floats(0, 1e15) | st.sampled_from([math.nan, math.inf, 0.0, 4096.0]),
)


@settings(max_examples=150, deadline=None)
@given(
    VALUES,
    st.integers(0, 2**32),
    st.lists(st.integers(0, 10**13), max_size=3),
    st.sampled_from(["bytes", "count"]),
)
def test_any_series_is_answered(values, seed, cuts, unit):
    gaps = np.random.default_rng(seed).integers(0, 40_000_000_000, len(values))
    times = np.cumsum(gaps).astype(np.int64)
    subject = Subject("process", "k", "n", pid=1, exe="/e", started_ns=0, limit=1e15)
    one = Series(subject, "m", unit, times, values, tuple(Cut(c, "gap") for c in sorted(cuts)))
    with np.errstate(all="raise", under="ignore"):
        got = judge_series([one, one])
    assert len(got) == 2
    for trend in got:
        assert trend.series is one
        assert 0.0 <= trend.confidence <= 1.0
        assert trend.sentence
        assert (trend.verdict is not TrendVerdict.NOT_ENOUGH_DATA) or (trend.more_s or 0) > 0
        if trend.verdict is TrendVerdict.LEAK:
            assert trend.rate is not None
            assert trend.rate > 0
        if trend.rate is not None:
            assert trend.rate_low <= trend.rate <= trend.rate_high


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.02, 0.1, -0.05]), st.integers(1, 10))
def test_the_verdict_does_not_depend_on_the_origin_of_time(seed, rate, later):
    rng = np.random.default_rng(seed)
    t = np.arange(400) * 60
    values = 1e9 * (1 + rate * t / 3600 + rng.normal(0, 0.02, 400))
    shift = later * 10**15

    def at(origin):
        subject = Subject("process", "k", "n", started_ns=origin)
        return Series(subject, "m", "bytes", (t * 10**9 + origin).astype(np.int64), values)

    assert judge_series([at(0)])[0].sentence == judge_series([at(shift)])[0].sentence
