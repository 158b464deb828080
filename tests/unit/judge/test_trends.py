# SPDX-License-Identifier: Apache-2.0
"""A gauge's course gets the verdict a person would give it, and says how sure it is."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as oracle

from leakscope.judge import _series_stats
from leakscope.judge.trends import TrendOptions, judge_series
from leakscope.model.series import Cut, Series, Subject, TrendVerdict

MIB = float(1 << 20)


def series(values, *, step_s=10.0, age_s=0.0, limit=None, unit="bytes", name="a", cuts=()):
    values = np.asarray(values, dtype=np.float64)
    times = ((age_s + np.arange(len(values)) * step_s) * 1e9).astype(np.int64)
    subject = Subject("process", name, name, pid=7, exe="/bin/server", started_ns=0, limit=limit)
    return Series(subject, "anon", unit, times, values, cuts)


def hours(n=2160, step_s=10.0):
    return np.arange(n) * step_s / 3600


def noise(n, sigma, seed=3):
    return np.random.default_rng(seed).normal(0.0, sigma, n)


def judge(one):
    return judge_series([one])[0]


def test_a_leak_is_told_with_its_rate_and_the_time_its_limit_lasts():
    t = hours()
    got = judge(series((400 + 12 * t) * MIB + noise(2160, 4 * MIB), limit=1024 * MIB))
    assert got.verdict is TrendVerdict.LEAK
    assert got.rate_low < 12 * MIB < got.rate_high
    assert got.rate == pytest.approx(12 * MIB, rel=0.05)
    left_s = (1024 - 472) / 12 * 3600
    assert got.exhausted_in_s == pytest.approx(left_s, rel=0.1)
    assert got.exhausted_low_s < got.exhausted_in_s < got.exhausted_high_s
    assert "MiB/h" in got.sentence
    assert "the memory it can get lasts 46 h" in got.sentence
    assert got.confidence >= 0.9


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (lambda t: 400 + 0 * t, TrendVerdict.PLATEAU),
        (lambda t: 200 + 200 * (1 - np.exp(-t / 0.3)), TrendVerdict.WARM_UP),
        (lambda t: 400 + 150 * (t > 3), TrendVerdict.STEP),
        (lambda t: 300 + 150 * ((t / 0.3) % 1), TrendVerdict.SAWTOOTH),
        (lambda t: 300 + 15 * t + 150 * ((t / 0.3) % 1), TrendVerdict.LEAK),
        (lambda t: 200 + 400 * (1 - np.exp(-t / 3)), TrendVerdict.FILLING),
    ],
)
def test_each_course_gets_its_name(values, verdict):
    t = hours()
    got = judge(series(values(t) * MIB + noise(len(t), MIB)))
    assert got.verdict is verdict, got.sentence


def test_three_days_of_a_daily_rhythm_are_seasonal():
    t = hours(4320, 60.0)
    got = judge(
        series((400 + 60 * np.sin(2 * np.pi * t / 24)) * MIB + noise(4320, MIB), step_s=60.0)
    )
    assert got.verdict is TrendVerdict.SEASONAL


def test_a_leak_below_a_daily_rhythm_is_found_and_its_rate_is_its_own():
    t = hours(7200, 60.0)
    wave = 80 * np.sin(2 * np.pi * t / 24 + 1.0)
    got = judge(series((400 + 2 * t + wave) * MIB + noise(7200, 4 * MIB), step_s=60.0))
    assert got.verdict is TrendVerdict.LEAK
    assert got.rate == pytest.approx(2 * MIB, rel=0.1)
    assert "daily rhythm and grows" in got.sentence


def test_a_young_process_never_cries_wolf():
    t = hours(120)  # 20 minutes
    got = judge(series((100 + 1000 * t) * MIB))
    assert got.verdict is TrendVerdict.GROWING
    assert got.confidence <= 0.6  # never above possible: it may be loading
    assert got.more_s == pytest.approx(TrendOptions().min_age_s - 1190, abs=1)
    old = judge(series((100 + 1000 * t) * MIB, age_s=86400))
    assert old.verdict is TrendVerdict.LEAK


def test_steady_growth_of_10_percent_a_minute_is_called_fast_within_two_minutes():
    t = hours(13)  # 2 minutes of looks
    values = 200 * (1 + 6 * t) * MIB + noise(13, MIB)
    got = judge(series(values, age_s=30, limit=400 * MIB))
    assert got.verdict is TrendVerdict.GROWING
    assert got.rate / 3600 == pytest.approx(200 * MIB * 0.1 / 60, rel=0.1)
    assert got.exhausted_in_s == pytest.approx(480, rel=0.1)
    assert got.exhausted_low_s < got.exhausted_in_s < got.exhausted_high_s
    assert "for 2 min, since the first look" in got.sentence
    assert "its limit (400 MiB) is reached in 8" in got.sentence
    assert got.next_step == "leakscope find 7"


@pytest.mark.parametrize("age_s", [0, 86400])
def test_a_server_that_rested_for_hours_and_grows_fast_now(age_s):
    t = np.arange(400.0) * 10
    got = judge(series((300 + np.maximum(0, t - 3850) * 0.5) * MIB, age_s=age_s))
    assert got.verdict is TrendVerdict.GROWING
    assert got.growth.held_s > 60
    assert "held its level" in got.sentence


def test_what_fits_under_an_earlier_peak_or_has_ended_does_not_grow_fast():
    t = np.arange(100.0) * 10
    saw = series((300 + 300 * ((t / 600) % 1)) * MIB)
    assert judge(saw).verdict is not TrendVerdict.GROWING
    ended = series((100 + t[:20]) * MIB, name="ended")
    alive = series(100 * MIB + 0 * t, name="alive")
    assert [x.verdict for x in judge_series([ended, alive])] == [TrendVerdict.NOT_ENOUGH_DATA] * 2


def test_without_a_verdict_the_growth_is_told_all_the_same():
    got = judge(series((100 + np.arange(4.0)) * MIB))
    assert got.verdict is TrendVerdict.NOT_ENOUGH_DATA
    assert "so far +102 KiB/s" in got.sentence
    assert "rose in 3 of 3 stretches" in got.sentence


def test_a_growth_too_small_to_matter_is_no_leak():
    t = hours()
    assert (
        judge(series((400 + 0.5 * t) * MIB)).verdict is TrendVerdict.PLATEAU
    )  # 0.75 % in six hours
    assert judge(series(20 + np.floor(t / 2), unit="count")).verdict is not TrendVerdict.LEAK


def test_values_are_never_compared_across_a_cut():
    low, high = np.full(1080, 100.0 * MIB), np.full(1080, 900.0 * MIB)
    one = series(np.r_[low, high] + noise(2160, MIB))
    assert judge(one).verdict is TrendVerdict.STEP
    cut = replace(one, cuts=(Cut(int(one.times_ns[1080]), "restart"),))
    assert judge(cut).verdict is TrendVerdict.PLATEAU
    late = replace(one, cuts=(Cut(int(one.times_ns[2150]), "restart"),))
    assert judge(late).verdict is TrendVerdict.NOT_ENOUGH_DATA


def test_a_rise_the_elders_made_too_and_stopped_higher_is_a_warm_up():
    t = hours(720)
    young = series((100 + 50 * t) * MIB, name="young")
    assert judge(young).verdict is TrendVerdict.LEAK
    elder = series(np.full(2160, 500 * MIB) + noise(2160, MIB), age_s=86400, name="elder")
    assert judge_series([young, elder])[0].verdict is TrendVerdict.WARM_UP
    lower = replace(elder, values=elder.values / 10)
    assert judge_series([young, lower])[0].verdict is TrendVerdict.LEAK


def test_bad_samples_and_tiny_series_are_answered():
    t = hours()
    values = (400 + 12 * t) * MIB
    values[::7] = np.nan
    values[5] = np.inf
    assert judge(series(values)).verdict is TrendVerdict.LEAK
    for n in (0, 1, 2, 3):
        got = judge(series(np.arange(n) * MIB))
        assert got.verdict is TrendVerdict.NOT_ENOUGH_DATA
        assert got.more_s > 0
    assert judge_series([]) == []


def test_slope_and_trend_test_agree_with_scipy():
    rng = np.random.default_rng(5)
    t = np.sort(rng.uniform(0, 6, 60))
    y = 3 * t + rng.normal(0, 1, 60)
    line = _series_stats.fit_line(t, y)
    assert line.slope == pytest.approx(oracle.theilslopes(y, t).slope)
    tau = oracle.kendalltau(t, y)
    s = tau.statistic * 60 * 59 / 2
    expected = (s - 1) / np.sqrt(60 * 59 * 125 / 18 * line.inflation)
    assert line.z == pytest.approx(expected)


def test_false_discovery_control_agrees_with_scipy():
    p = np.random.default_rng(1).uniform(0, 1, 50) ** 3
    assert (
        _series_stats.benjamini_hochberg(p, 0.05) == (oracle.false_discovery_control(p) <= 0.05)
    ).all()


def test_sixty_thousand_points_take_milliseconds():
    values = np.full(60_000, 400 * MIB) + noise(60_000, MIB)
    many = [series(values, name=str(i)) for i in range(20)]
    began = time.process_time()
    judge_series(many)
    assert time.process_time() - began < 2.0  # measured about 0.1 s


def test_growth_after_a_step_is_judged_by_itself():
    t = hours()
    values = 400 + 200 * (t > 2) + 30 * np.maximum(0.0, t - 2)
    got = judge(series(values * MIB + noise(len(t), MIB)))
    assert got.verdict is TrendVerdict.LEAK
    assert got.rate == pytest.approx(30 * MIB, rel=0.15)


def alike(count, *, rate, name="w", age_s=0.0, level=400.0, seed=5):
    t = hours(1080)
    return [
        series(
            (level + rate * t) * MIB + noise(1080, MIB, seed + n), age_s=age_s, name=f"{name}{n}"
        )
        for n in range(count)
    ]


def test_several_processes_of_one_executable_that_grow_alike_are_said_to():
    three = judge_series(alike(3, rate=30.0))
    two = judge_series(alike(2, rate=30.0))
    assert all("3 processes of this executable grow alike" in one.sentence for one in three)
    assert not any("alike" in one.sentence for one in two)


def test_elders_that_rest_higher_up_make_growth_a_warm_up():
    young = alike(1, rate=30.0, age_s=3600.0, name="young")
    higher = alike(2, rate=0.0, age_s=90000.0, name="elder", level=600.0)
    lower = alike(2, rate=0.0, age_s=90000.0, name="elder", level=300.0)
    assert judge_series(young + higher)[0].verdict is TrendVerdict.WARM_UP
    assert judge_series(young + lower)[0].verdict is TrendVerdict.LEAK


def test_floors_that_rise_without_any_noise_are_a_leak_though_a_line_fits_them_badly():
    """From a recorded program: the heap of a collector, flat at first, then 24 MiB an hour."""
    t = hours(300)
    floor = 45 + np.maximum(0.0, t - 0.17) * 24
    got = judge(series((floor + 20 * ((t * 30) % 1.0)) * MIB))
    assert got.verdict is TrendVerdict.LEAK
    assert got.rate == pytest.approx(24 * MIB, rel=0.1)


def test_signs_alone_convince_only_when_nearly_all_point_up():
    assert _series_stats.fit_line(hours(30), np.arange(30.0)).p < 1e-8
    walk = np.cumsum(np.random.default_rng(2).normal(0, 1, (200, 40)), axis=1)
    called = sum(_series_stats._sign_test(one) < 2e-4 for one in walk)
    assert called == 0
    exact = oracle.binomtest(27, 29, alternative="greater").pvalue
    bent = np.arange(30.0)
    bent[10], bent[20] = 8.5, 18.5
    assert _series_stats._sign_test(bent) == pytest.approx(exact)


def test_a_leak_below_a_long_finished_warm_up_is_no_filling():
    """From a recorded program: 25 MiB within ten minutes, then 30 MiB an hour without noise."""
    t = hours(300)
    values = 40 + 20 * (1 - np.exp(-t / 0.06)) + 30 * t
    got = judge(series(values * MIB, age_s=3000))
    assert got.verdict is TrendVerdict.LEAK
    assert got.rate == pytest.approx(30 * MIB, rel=0.1)
    slower = 40 + 40 * (1 - np.exp(-t / 0.5))
    assert judge(series(slower * MIB, age_s=3000)).verdict is TrendVerdict.FILLING


def slab(name, metric, values):
    subject = Subject("slab", name, name)
    times = (np.arange(len(values)) * 10.0e9).astype(np.int64)
    return Series(subject, metric, "bytes", times, np.asarray(values, dtype=np.float64))


def test_a_cache_that_belongs_to_cached_files_is_no_leak():
    steady = np.linspace(1e8, 2e8, 360)
    files = slab("ext4_inode_cache", "reclaimable", 10 * steady)
    alone, beside = slab("lsm_inode_cache", "unreclaimable", steady), files
    assert judge_series([alone])[0].verdict is TrendVerdict.LEAK
    assert judge_series([alone, beside])[0].verdict is TrendVerdict.CACHE


def test_a_cache_that_grows_in_bursts_with_the_files_is_not_called_a_leak():
    bursts = np.cumsum(np.random.default_rng(4).pareto(1.5, 360)) * 1e5 + 1e8
    files = slab("ext4_inode_cache", "reclaimable", 5 * bursts)
    found = judge_series([slab("kmalloc-rnd-64", "unreclaimable", bursts), files])[0]
    assert found.verdict is not TrendVerdict.LEAK
    leaks = slab("kmalloc-rnd-64", "unreclaimable", np.linspace(1e8, 2e8, 360))
    assert judge_series([leaks, files])[0].verdict is TrendVerdict.LEAK
