# SPDX-License-Identifier: Apache-2.0
"""Simulated lives of blocks get the verdict that their simulation is the truth of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leakscope.judge import judge
from leakscope.model.findings import Finding, Findings, Pattern, Verdict
from leakscope.model.reachability import Reachability
from unit.judge.lives import NEVER, cache, frames_of, lives, recording

SEEDS = range(8)


@pytest.fixture(params=SEEDS)
def generator(request) -> np.random.Generator:
    return np.random.default_rng(request.param)


def judged(*sites, **kw) -> Findings:
    return judge(recording(*sites, **kw), frames_of)


def only(findings: Findings) -> Finding:
    (found,) = findings.findings
    return found


def times(generator, count, start=0.0, end=10.0):
    return np.sort(generator.uniform(start, end, count))


def test_a_steady_leak_is_leaking_and_recurrent(generator):
    found = only(judged(lives(times(generator, 300), NEVER)))
    assert (found.verdict, found.pattern) == (Verdict.LEAKING, Pattern.RECURRENT)
    assert found.is_leak
    assert found.rate == pytest.approx(300 * 100 / 10, rel=0.15)
    assert found.rate_low < 3000 < found.rate_high
    assert found.confidence > 0.9


def test_a_leak_on_a_rare_path_is_occasional(generator):
    lifetime = np.where(generator.random(3000) < 0.01, NEVER, generator.exponential(0.002, 3000))
    found = only(judged(lives(times(generator, 3000), lifetime)))
    assert (found.verdict, found.pattern) == (Verdict.LEAKING, Pattern.OCCASIONAL)


def test_a_leak_next_to_long_lived_blocks(generator):
    """Half is freed at ages all over the run: only the survival estimate sees the other half."""
    lifetime = np.where(generator.random(800) < 0.5, NEVER, generator.uniform(0, 6, 800))
    found = only(judged(lives(times(generator, 800), lifetime)))
    assert found.verdict is Verdict.LEAKING


@pytest.mark.parametrize("fifo", [True, False])
@pytest.mark.parametrize("slots", [20, 300])
def test_a_full_cache_is_bounded(generator, slots, fifo):
    found = only(judged(cache(generator, slots, times(generator, 3000), fifo=fifo)))
    # Entries of the small one live for a hundredth of the run: that is churn as well.
    assert found.verdict in (
        {Verdict.BOUNDED} if slots == 300 else {Verdict.BOUNDED, Verdict.CHURN}
    )


def test_a_cache_with_favourites_is_bounded(generator):
    """A fifth of the entries is never replaced: old ones do not die, but nothing grows."""
    born, died, size = cache(generator, 80, times(generator, 3000))
    kept = lives(times(generator, 20, 0.0, 0.3), NEVER)
    together = tuple(np.concatenate(pair) for pair in zip((born, died, size), kept, strict=True))
    assert only(judged(together)).verdict is Verdict.BOUNDED


def test_tables_built_at_the_start_are_warm_up(generator):
    found = only(judged(lives(times(generator, 500, 0.1, 1.5), NEVER)))
    assert found.verdict is Verdict.WARM_UP


def test_one_block_is_a_one_off():
    found = only(judged(lives([0.5], NEVER)))
    assert (found.verdict, found.pattern) == (Verdict.ONE_OFF, Pattern.ONE_OFF)


def test_a_burst_in_the_middle_is_a_one_off(generator):
    assert only(judged(lives(times(generator, 100, 6.0, 6.2), NEVER))).verdict is Verdict.ONE_OFF


def test_a_table_that_fills_up_is_filling(generator):
    """Keys of a limited set, drawn at a steady rate: births slow down as the set runs out."""
    keys = generator.integers(0, 1500, 2500)
    _, first = np.unique(keys, return_index=True)
    found = only(judged(lives(np.linspace(0, 10, 2500)[first], NEVER)))
    assert found.verdict is Verdict.FILLING


def test_blocks_in_flight_are_churn(generator):
    found = only(judged(lives(times(generator, 20000), generator.exponential(0.01, 20000))))
    assert found.verdict is Verdict.CHURN


def test_what_grows_until_the_end_frees_it_is_implicit_growth(generator):
    born = times(generator, 400)
    found = only(judged((born, np.full(400, 9.99), np.full(400, 100))))
    assert (found.verdict, found.pattern) == (Verdict.LEAKING, Pattern.IMPLICIT)
    assert found.live_count == 0
    assert found.peak_bytes == pytest.approx(40000, rel=0.05)


def test_a_cache_freed_at_the_end_is_no_finding(generator):
    born, died, size = cache(generator, 100, times(generator, 3000))
    assert not judged((born, np.minimum(died, 9.99), size)).findings


def test_a_table_freed_at_the_end_is_no_finding(generator):
    born = times(generator, 500, 0.1, 1.0)
    assert not judged((born, np.full(500, 9.99), np.full(500, 100))).leaks


def test_a_short_run_proves_nothing(generator):
    findings = judged(lives(times(generator, 300, 0, 0.05), NEVER), seconds=0.05)
    found = only(findings)
    assert found.verdict is Verdict.UNKNOWN
    assert found.next_step
    assert not findings.leaks


def test_three_survivors_are_too_few():
    lifetime = np.full(1000, 0.001)
    lifetime[[200, 500, 900]] = NEVER
    found = only(judged(lives(np.linspace(0, 9.9, 1000), lifetime)))
    assert found.verdict is Verdict.UNKNOWN
    assert "3 blocks of 1,000" in found.sentence


def test_growing_load_without_a_leak_is_no_leak(generator):
    """Twice the load at the end, blocks live for a second: the number grows, nothing stays."""
    born = 10 * np.sqrt(times(generator, 4000, 0.0, 1.0))
    found = only(judged(lives(born, generator.exponential(1.0, 4000))))
    assert not found.is_leak


def test_thousands_of_healthy_sites_raise_no_alarm():
    """The false-discovery rate over all sites is what keeps this at zero."""
    generator = np.random.default_rng(99)
    sites = []
    for _ in range(400):
        count = int(generator.integers(50, 400))
        born = np.sort(generator.uniform(0, 10, count))
        sites.append(lives(born, generator.exponential(generator.uniform(0.05, 3.0), count)))
    findings = judged(*sites)
    assert len(findings.findings) > 300
    assert not findings.leaks


def test_lost_beats_every_statistic(generator):
    made = recording(cache(generator, 50, times(generator, 1000)))
    kinds = np.full(len(made.blocks), Reachability.REACHABLE, np.uint8)
    kinds[:3] = Reachability.DEFINITELY_LOST
    findings = judge(replace(made, reachability=kinds), frames_of)
    found = only(findings)
    assert found.verdict is Verdict.LOST
    assert found.lost_count == 3
    assert "3 of 50 blocks" in found.sentence
    assert findings.verdict is Verdict.LOST


def test_reachable_changes_no_verdict(generator):
    made = recording(lives(times(generator, 300), NEVER))
    kinds = np.full(len(made.blocks), Reachability.REACHABLE, np.uint8)
    found = only(judge(replace(made, reachability=kinds), frames_of))
    assert found.verdict is Verdict.LEAKING
    assert found.lost_count == 0


def test_findings_come_heaviest_first_and_totals_add_up(generator):
    findings = judged(lives([0.5], NEVER, 10), lives(times(generator, 300), NEVER, 100))
    assert [found.live_bytes for found in findings.findings] == [30000, 10]
    assert (findings.live_bytes, findings.live_count) == (30010, 301)
    assert findings.headline.startswith("1 place leaks 29.3 KiB")


def test_nothing_allocated():
    findings = judged()
    assert findings.verdict is None
    assert not findings.findings
    assert findings.headline == "no leak found: every block was freed"


def test_every_finding_says_why_in_numbers(generator):
    findings = judged(
        lives(times(generator, 300), NEVER),
        lives([0.5], NEVER),
        cache(generator, 50, times(generator, 1000)),
    )
    for found in findings.findings:
        assert found.sentence.endswith(".")
        assert found.evidence
        assert all(signal.text for signal in found.evidence)


def test_sampled_estimates_come_with_an_interval(generator):
    made = recording(lives(times(generator, 300), NEVER, 1000))
    coverage = replace(made.coverage, mode="sampled", sample_bytes=4096)
    found = only(judge(replace(made, coverage=coverage), frames_of))
    assert found.live_bytes_low < found.live_bytes < found.live_bytes_high


def test_min_bytes_leaves_small_sites_out(generator):
    from leakscope.judge import Options

    made = recording(lives([0.5], NEVER, 10), lives(times(generator, 300), NEVER, 100))
    assert len(judge(made, frames_of, options=Options(min_bytes=100)).findings) == 1


def test_a_little_growth_on_a_large_level_is_no_verdict(generator):
    """A significant trend that adds one block in twenty is an effect too small to call a leak."""
    many = cache(generator, 900, times(generator, 6000))
    kept = lives(times(generator, 300, 0.0, 0.5), NEVER)
    few = lives(times(generator, 60, 0.5, 10.0), NEVER)
    together = tuple(np.concatenate(parts) for parts in zip(many, kept, few, strict=True))
    assert not only(judged(together)).is_leak


def test_a_thin_timeline_is_made_up_for_by_the_births_of_the_living(generator):
    steady = only(judged(lives(times(generator, 300), NEVER), rows=4))
    assert steady.verdict is Verdict.LEAKING
    lifetime = np.where(generator.random(3000) < 0.02, NEVER, generator.exponential(0.002, 3000))
    rare = only(judged(lives(times(generator, 3000), lifetime), rows=4))
    assert rare.verdict is Verdict.LEAKING
    full = only(judged(cache(generator, 300, times(generator, 3000)), rows=4))
    assert not full.is_leak
