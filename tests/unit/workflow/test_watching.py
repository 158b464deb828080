# SPDX-License-Identifier: Apache-2.0
"""When a watch looks."""

from __future__ import annotations

import numpy as np
import pytest

from leakscope.judge.trends import judge_series
from leakscope.model.series import Series, Subject, TrendVerdict
from leakscope.workflow.watching import Watch

MIB = 1 << 20


class Nobody:
    """Stands for a gatherer: no look is taken."""


@pytest.fixture
def watch(monkeypatch):
    made = Watch(Nobody(), 10.0)  # type: ignore[arg-type]
    monkeypatch.setattr(Watch, "watched_s", property(lambda _: 3600.0))
    return made


def test_looks_are_as_far_apart_as_was_asked_for_on_average(watch):
    pauses = [watch.pause_s for _ in range(4000)]
    assert min(pauses) >= 7.5
    assert max(pauses) <= 12.5
    assert np.mean(pauses) == pytest.approx(10.0, abs=0.2)


@pytest.mark.parametrize("period_s", [9.99, 4.995])
def test_work_that_repeats_in_step_with_the_looks_does_not_grow(watch, period_s):
    times = np.cumsum([watch.pause_s for _ in range(360)])
    values = (100 + 400 * (times / period_s % 1)) * MIB  # 400 MiB in each round, given back
    subject = Subject("process", "a", "a", pid=7, exe="/bin/a", started_ns=0)
    series = Series(subject, "anon", "bytes", (times * 1e9).astype(np.int64), values)
    (trend,) = judge_series([series])
    assert trend.verdict not in {TrendVerdict.LEAK, TrendVerdict.GROWING}
