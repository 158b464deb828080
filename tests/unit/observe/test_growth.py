# SPDX-License-Identifier: Apache-2.0
"""Growth is measured from the second look on, in the words and numbers that a command needs."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np
import pytest

from leakscope.errors import TargetError
from leakscope.judge.growing import grows_fast
from leakscope.model.growing import growth_of
from leakscope.model.series import Series, Subject
from leakscope.observe.growth import GrowthObserver, observe_growth

MIB = float(1 << 20)


def growth(values, *, step_s=1.0, limit=None, unit="bytes"):
    values = np.asarray(values, dtype=np.float64)
    times = (np.arange(len(values)) * step_s * 1e9).astype(np.int64)
    subject = Subject("process", "7@1", "a", 7, limit=limit, limit_of=limit and "its limit")
    return growth_of(Series(subject, "anon", unit, times, values))


def test_two_looks_are_enough_for_the_rate_and_the_time_to_the_limit():
    got = growth([100 * MIB, 104 * MIB], limit=224 * MIB)
    assert got.rate == pytest.approx(4 * MIB)
    assert (got.rose, got.steps, got.from_first_look) == (1, 1, True)
    assert got.until_limit_s == pytest.approx(30.0)
    assert not grows_fast(got)  # a fact, before any verdict


def test_one_look_is_no_growth():
    assert growth([100 * MIB]) is None


def test_growth_after_a_level_tells_since_when_and_how_long_the_level_was_held():
    t = np.arange(60.0)
    got = growth((100 + 2 * np.maximum(0.0, t - 40)) * MIB)
    assert got.since_s == pytest.approx(19, abs=3)
    assert got.held_s == pytest.approx(40, abs=3)
    assert got.rate == pytest.approx(2 * MIB, rel=0.1)
    assert not got.from_first_look


T = np.arange(121.0)
FAST = {
    "10 % a minute": (200 * (1 + 0.1 * T / 60), True),
    "4 MiB a second in 8 GiB": (8192 + 4 * T, True),
    "slow": (200 * (1 + 0.005 * T / 60), False),
    "loaded, then at rest": (100 + 4 * np.minimum(T, 60), False),
    "a cache that fills": (300 * (1 - np.exp(-T / 30)), False),
    "a sawtooth": (100 + (4 * T) % 100, False),
    "rest": (100 + 0 * T, False),
    "falls": (800 - 4 * T, False),
    "noise": (400 + np.random.default_rng(1).normal(0, 20, 121), False),
}


@pytest.mark.parametrize(("values", "fast"), FAST.values(), ids=list(FAST))
def test_what_is_fast(values, fast):
    assert grows_fast(growth(values * MIB)) is fast
    # The default pace of a watch says the same.
    assert grows_fast(growth(values[::10] * MIB, step_s=10.0)) is fast


def test_a_limit_that_is_near_makes_slow_growth_urgent():
    slow = 2000 * (1 + 0.01 * T / 60) * MIB
    assert not grows_fast(growth(slow))
    assert grows_fast(growth(slow, limit=2200 * MIB))


GROWER = """
import time
kept = []
while True:
    kept.append(b"x" * (1 << 20))
    time.sleep(0.1)
"""


@pytest.fixture
def grower():
    process = subprocess.Popen([sys.executable, "-c", GROWER])
    resource.prlimit(process.pid, resource.RLIMIT_AS, (4 << 30, 4 << 30))
    yield process.pid
    process.kill()
    process.wait()


def test_a_process_that_grows_is_measured_with_its_own_limit(grower):
    time.sleep(0.5)
    with GrowthObserver(grower, 0.5) as observer:
        for _ in range(4):
            assert observer.look()
            time.sleep(0.5)
        both = observer.growths()
    assert both["anon"].rate > MIB  # the machine may be busy
    assert both["anon"].limit_of == "RLIMIT_AS (ulimit -v)"
    assert both["virtual"].limit == pytest.approx(4 << 30)
    assert both["virtual"].last > both["anon"].last  # reserved, not resident
    assert observe_growth(grower, 1.0).grown > 0


def test_what_ended_cannot_be_measured():
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(TargetError, match="could not be looked at twice"):
        observe_growth(ended.pid, 0.5)
