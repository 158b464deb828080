# SPDX-License-Identifier: Apache-2.0
"""Simulated lives of blocks get the verdict that their simulation is the truth of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from leakscope.judge import judge
from leakscope.judge.suppressions import parse_suppressions
from leakscope.model.findings import Finding, Findings, Pattern, Verdict
from leakscope.model.reachability import Reachability
from unit.judge.lives import NEVER, cache, frames_of, lives, recording

if TYPE_CHECKING:
    from leakscope.model.recordings import Recording

SEEDS = range(8)


@pytest.fixture(params=SEEDS)
def generator(request) -> np.random.Generator:
    return np.random.default_rng(request.param)


def examined(made: Recording) -> Recording:
    """As a scan at its end leaves it when everything is still in use."""
    return replace(made, reachability=np.full(len(made.blocks), Reachability.REACHABLE, np.uint8))


def judged(*sites, **kw) -> Findings:
    return judge(examined(recording(*sites, **kw)), frames_of)


def only(findings: Findings) -> Finding:
    (found,) = findings.findings
    return found


def service(generator, seconds=10.0):
    """What a process has besides the site in question that serves: its tables, and its requests."""
    tables = lives(times(generator, 300, 0.0, 0.05 * seconds), NEVER, 1000)
    requests = lives(times(generator, 4000, 0.02 * seconds, seconds), 0.002)
    return tables, requests


def first(findings: Findings) -> Finding:
    (found,) = (each for each in findings.findings if each.site == 1)
    return found


def times(generator, count, start=0.0, end=10.0):
    return np.sort(generator.uniform(start, end, count))


def test_a_steady_leak_is_leaking_and_recurrent(generator):
    found = first(judged(lives(times(generator, 300), NEVER), *service(generator)))
    assert (found.verdict, found.pattern) == (Verdict.LEAKING, Pattern.RECURRENT)
    assert found.is_leak
    assert found.rate == pytest.approx(300 * 100 / 10, rel=0.15)
    assert found.rate_low < 3000 < found.rate_high
    assert 0.6 <= found.confidence < 0.99


def test_growth_to_the_end_of_a_job_is_growing_and_no_leak(generator):
    """The same course: what the rest of the process does tells a service from a job."""
    for given_back in (False, True):
        born = times(generator, 300)
        died = np.full(300, 9.99) if given_back else np.full(300, NEVER)
        found = only(judged((born, died, np.full(300, 100))))
        assert found.verdict is Verdict.GROWING
        assert not found.is_leak
        assert found.next_step


def test_a_moment_of_work_is_too_little_however_long_a_busy_machine_made_it_take(generator):
    """Ten milliseconds of a processor, in turns with others: no course over time."""
    turns = np.sort(generator.uniform(0.0, 0.6, 10))
    born = np.sort(np.repeat(turns, 300) + generator.uniform(0.0, 0.001, 3000))
    made = recording(lives(born, NEVER), seconds=0.61, rows=10)
    assert only(judge(made, frames_of)).verdict is Verdict.UNKNOWN
    assert only(judge(examined(made), frames_of)).verdict is Verdict.RETAINED
    # As many moments that a program slept between, a few blocks each: that is its course.
    slept = recording(lives(np.linspace(0.01, 0.6, 20), NEVER), seconds=0.61, rows=20)
    assert only(judge(slept, frames_of)).verdict in {Verdict.GROWING, Verdict.LEAKING}


def test_what_is_given_back_needs_more_time_to_be_a_leak(generator):
    """A job of a second takes five on a busy machine; a leak that stays is called one as before."""
    for seconds, verdict in ((5.0, Verdict.GROWING), (10.0, Verdict.LEAKING)):
        born = times(generator, 300, 0.0, 0.99 * seconds)
        died = np.full(300, 0.995 * seconds)
        site = (born, died, np.full(300, 100))
        found = first(judged(site, *service(generator, seconds), seconds=seconds))
        assert found.verdict is verdict


def test_work_that_dwarfs_the_level_is_a_job(generator):
    """An interpreter that started, and reads its input into a list, with temporaries of each line."""
    found = first(judged(lives(times(generator, 3000), NEVER, 5000), *service(generator)))
    assert found.verdict is Verdict.GROWING


def test_growth_at_one_rate_for_an_hour_is_a_leak(generator):
    found = only(judged(lives(times(generator, 600, 0.0, 3600.0), NEVER), seconds=3600.0))
    assert found.verdict is Verdict.LEAKING
    assert found.confidence < 0.95
    soon = only(judged(lives(times(generator, 600, 0.0, 600.0), NEVER), seconds=600.0))
    assert soon.verdict is Verdict.GROWING


def test_growth_that_was_not_examined_is_possibly_a_leak(generator):
    """Killed, a chroot, Go's own exit: whether anything points to the blocks is not known."""
    findings = judge(recording(lives(times(generator, 300), NEVER)), frames_of)
    assert only(findings).verdict is Verdict.LEAKING
    assert 0.6 <= only(findings).confidence < 0.85
    assert any("not examined" in note for note in findings.notes)
    assert any("not examined" in signal.text for signal in only(findings).evidence)
    # Data that is built at many places at once is a job's.
    many = judge(recording(*(lives(times(generator, 300), NEVER) for _ in range(5))), frames_of)
    assert not many.leaks


def test_what_a_supervisor_ended_while_it_grew_is_possibly_a_leak(generator):
    made = examined(recording(lives(times(generator, 300, 0.0, 30.0), NEVER), seconds=30.0))
    found = only(judge(made, frames_of))
    assert found.verdict is Verdict.GROWING
    ended = replace(made, process=replace(made.process, ended="killed by SIGTERM"))
    assert only(judge(ended, frames_of)).verdict is Verdict.LEAKING
    assert 0.6 <= only(judge(ended, frames_of)).confidence < 0.85


def test_a_process_that_idled_until_it_was_killed_is_judged_by_its_work(generator):
    """It loads for two seconds and waits for eight: that is no course of ten, and no rate of five."""
    made = recording(lives(times(generator, 400, 0.0, 2.0), NEVER))
    few = made.timeline.times_ns <= 2.0e9
    timeline = replace(
        made.timeline,
        **{
            name: getattr(made.timeline, name)[few]
            for name in ("times_ns", "live_bytes", "live_counts", "site_bytes", "site_counts")
        },
    )
    process = replace(made.process, ended="killed by SIGKILL")
    found = only(judge(replace(made, timeline=timeline, process=process), frames_of))
    assert found.verdict is Verdict.GROWING
    assert found.rate == pytest.approx(4000, rel=0.15)


def test_one_block_that_grows_for_ever_is_growth(generator):
    """Each realloc is a death and a birth: the number stays one, the bytes tell."""
    born = times(generator, 2000)
    died = np.append(born[1:], NEVER)
    size = 256 * np.arange(1, 2001)
    found = only(judged((born, died, size)))
    assert found.verdict is Verdict.GROWING
    assert "grew" in found.sentence
    served = first(judged((born, died, size // 8), *service(generator)))
    assert (served.verdict, served.pattern) == (Verdict.LEAKING, Pattern.IMPLICIT)
    # A buffer that is resized up and down does not grow.
    again = only(judged((born, died, generator.integers(100, 10_000, 2000))))
    assert again.verdict in {Verdict.CHURN, Verdict.BOUNDED}


def test_a_leak_on_a_rare_path_is_occasional(generator):
    lifetime = np.where(generator.random(3000) < 0.01, NEVER, generator.exponential(0.002, 3000))
    found = first(judged(lives(times(generator, 3000), lifetime), *service(generator)))
    assert (found.verdict, found.pattern) == (Verdict.LEAKING, Pattern.OCCASIONAL)


def test_a_leak_next_to_long_lived_blocks(generator):
    """Half is freed at ages all over the run: only the survival estimate sees the other half."""
    lifetime = np.where(generator.random(800) < 0.5, NEVER, generator.uniform(0, 6, 800))
    found = first(judged(lives(times(generator, 800), lifetime), *service(generator)))
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
    made = (born, np.full(400, 9.99), np.full(400, 100))
    found = first(judged(made, *service(generator)))
    assert (found.verdict, found.pattern) == (Verdict.LEAKING, Pattern.IMPLICIT)
    assert found.live_count == 0
    assert found.peak_bytes == pytest.approx(40000, rel=0.05)


def test_a_cache_freed_at_the_end_is_no_finding(generator):
    born, died, size = cache(generator, 100, times(generator, 3000))
    assert not judged((born, np.minimum(died, 9.99), size)).findings


def test_a_table_freed_at_the_end_is_no_finding(generator):
    born = times(generator, 500, 0.1, 1.0)
    assert not judged((born, np.full(500, 9.99), np.full(500, 100))).findings


@pytest.mark.parametrize("kept", [1, 20, 60])
def test_the_rest_of_what_comes_and_goes_is_told(kept):
    """Twenty rounds of 1,000 blocks; the last round is freed at the end but for a few old ones."""
    born = np.repeat(np.linspace(0.0, 9.5, 20), 1000)
    died = np.repeat(np.linspace(0.45, 9.95, 20), 1000)
    died[:kept] = np.inf
    findings = judged((born, died, np.full(20_000, 100)))
    assert [each.live_count for each in findings.findings] == [kept]
    assert findings.live_bytes == sum(each.live_bytes for each in findings.findings)
    assert not findings.leaks


@pytest.mark.parametrize("loaded", [0.3, 0.5, 0.75])
def test_a_table_that_was_filled_and_stood_did_not_grow_to_the_end(loaded):
    """The highest level is reached first when the table is full, and kept until it is given back."""
    born = np.linspace(0.0, 10.0 * loaded, 200)
    assert not judged((born, np.full(200, 9.99), np.full(200, 500))).findings


def test_a_short_run_proves_nothing(generator):
    findings = judge(
        recording(lives(times(generator, 300, 0, 0.05), NEVER), seconds=0.05), frames_of
    )
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
    assert found.lost_bytes == found.leak_bytes == 300
    assert "3 of 50 blocks" in found.sentence
    assert findings.verdict is Verdict.LOST
    assert findings.headline.startswith("1 place leaks 300 B")


def test_blocks_that_were_not_examined_are_a_number_of_their_own(generator):
    made = recording(lives(times(generator, 60), NEVER))
    kinds = np.full(60, Reachability.UNKNOWN, np.uint8)
    kinds[:30] = Reachability.DEFINITELY_LOST
    found = only(judge(replace(made, reachability=kinds), frames_of))
    assert (found.lost_count, found.lost_bytes) == (30, 3000)
    assert (found.unexamined_count, found.unexamined_bytes) == (30, 3000)
    assert "30 of 60 blocks" in found.sentence
    assert "30 more were not examined" in found.sentence


def test_a_loss_without_a_call_stack_is_a_loss(generator):
    made = recording(lives(times(generator, 400), NEVER))
    made.blocks["site"] = 0
    made.sites[0], made.sites[1] = made.sites[1].copy(), made.sites[0].copy()
    made.sites["node"][0] = 0
    unexamined = judge(made, frames_of)
    assert unexamined.verdict is Verdict.UNKNOWN
    assert unexamined.headline.startswith("no leak proven")
    kinds = np.full(400, Reachability.DEFINITELY_LOST, np.uint8)
    findings = judge(replace(made, reachability=kinds), lambda _: ())
    assert findings.leaks
    assert findings.headline.startswith("1 place leaks 39.1 KiB")


def test_a_missed_free_is_never_almost_certain(generator):
    made = recording(lives(times(generator, 400), NEVER))
    kinds = np.full(400, Reachability.DEFINITELY_LOST, np.uint8)
    coverage = replace(made.coverage, dropped={"duplicate": 3})
    found = only(judge(replace(made, reachability=kinds, coverage=coverage), frames_of))
    assert found.is_leak
    assert found.confidence < 0.85


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_samples_are_no_verdict_and_say_what_would_do(count):
    made = recording(lives(np.linspace(0.1, 9.0, count), 0.01, 1000))
    coverage = replace(made.coverage, mode="sampled", sample_bytes=512 << 10)
    findings = judge(replace(made, coverage=coverage), frames_of)
    assert findings.verdict is Verdict.UNKNOWN
    assert not findings.leaks
    assert "not enough data" in findings.headline
    assert {0: "no sample was", 1: "only 1 sample was", 5: "only 5 samples were"}[
        count
    ] in findings.headline
    assert "--sample" in findings.headline


def test_one_lost_sample_among_few_is_no_verdict():
    made = recording(lives([0.1, 0.2, 5.0], [0.01, 0.01, NEVER], 1000))
    coverage = replace(made.coverage, mode="sampled", sample_bytes=512 << 10)
    kinds = np.full(1, Reachability.DEFINITELY_LOST, np.uint8)
    found = only(judge(replace(made, coverage=coverage, reachability=kinds), frames_of))
    assert found.verdict is Verdict.UNKNOWN
    assert "3 samples in the whole run" in found.sentence


def test_a_suppressed_leak_is_not_called_held():
    made = recording(lives([0.5, 1.5], NEVER))
    kinds = np.full(2, Reachability.DEFINITELY_LOST, np.uint8)
    rules = parse_suppressions("leak:f1", "s")
    findings = judge(replace(made, reachability=kinds), frames_of, rules)
    assert findings.headline.startswith("no other leak found; 1 suppressed place leaks 200 B")
    assert "lost" not in findings.headline


@pytest.mark.parametrize("seconds", [0.004, 0.016, 0.1, 0.19])
def test_a_program_that_dies_young_gets_one_answer_whatever_the_clock_says(seconds):
    made = recording(lives(np.full(500, 0.001), NEVER), seconds=seconds)
    assert only(judge(made, frames_of)).verdict is Verdict.UNKNOWN
    kinds = np.full(500, Reachability.REACHABLE, np.uint8)
    found = only(judge(replace(made, reachability=kinds), frames_of))
    assert found.verdict is Verdict.RETAINED


def test_what_is_reachable_is_growth_and_no_proof(generator):
    made = recording(lives(times(generator, 300), NEVER))
    kinds = np.full(len(made.blocks), Reachability.REACHABLE, np.uint8)
    found = only(judge(replace(made, reachability=kinds), frames_of))
    assert found.verdict is Verdict.GROWING
    assert found.lost_count == 0


def test_findings_come_heaviest_first_and_totals_add_up(generator):
    findings = judged(
        lives([0.5], NEVER, 10), lives(times(generator, 300, 0, 3600.0), NEVER, 100), seconds=3600.0
    )
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
    assert steady.verdict is Verdict.GROWING
    lifetime = np.where(generator.random(3000) < 0.02, NEVER, generator.exponential(0.002, 3000))
    rare = only(judged(lives(times(generator, 3000), lifetime), rows=4))
    assert rare.verdict is Verdict.GROWING
    full = only(judged(cache(generator, 300, times(generator, 3000)), rows=4))
    assert full.verdict is not Verdict.GROWING
