# SPDX-License-Identifier: Apache-2.0
"""Which verdict a site gets from its lifetimes (docs/verdicts.md explains each rule).

Two independent signals make a verdict: *old ones do not die* (survival of blocks) and *still
growing* (trend of live blocks, tested at a controlled false-discovery rate over all sites).
One alone is a suspicion, and then the verdict is unknown. Both are growth, and that is a leak
where the process serves (`service`). Reachability, where it was examined, beats all.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from leakscope.judge.lifetimes import (
    WINDOWS,
    Lifetimes,
    SiteGrowth,
    growth,
    lifetimes,
    survivors_course,
)
from leakscope.judge.runtimes import arena_sites
from leakscope.judge.service import Service, serving
from leakscope.model.findings import Pattern, Verdict
from leakscope.model.reachability import Reachability

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.judge.options import Options
    from leakscope.model.recordings import Recording

    Flags = npt.NDArray[np.bool_]
    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

__all__ = ["PROVEN", "Judged", "Reach", "judge_sites"]


@dataclass(frozen=True, slots=True)
class Reach:
    """Living blocks by what points to them, one entry a site."""

    lost: Ints  # definitely and indirectly lost
    lost_count: Ints  # the same; estimated when sampled
    lost_bytes: Ints
    indirect: Ints  # those of `lost` that only other lost blocks point to
    possible: Ints
    possible_bytes: Ints
    reachable: Ints
    unknown: Ints
    unknown_bytes: Ints


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on each of `sites`, and the signals it was made from."""

    sites: Ints  # site numbers, heaviest first
    weight: Ints  # bytes: held now, or at the peak for what was given back at the end
    verdicts: list[Verdict]
    patterns: list[Pattern | None]
    reasons: list[str]  # name of the rule that decided, see `sentences`
    confidence: Floats
    lives: Lifetimes  # of all sites
    births: Ints  # of all sites: recorded blocks, living and dead
    growth: SiteGrowth  # rows as `sites`
    trend: Flags  # growing significantly, rows as `sites`
    survival: Flags  # old ones do not die, rows as `sites`
    windows: Ints  # windows between first birth and the end that have survivors
    possible_windows: Ints
    slowdown: Floats  # fitted birth rate at the end over that at the start
    service: list[Service | None]  # what makes a leak of growth
    reach: Reach | None
    end_ns: int
    samples: int | None  # taken in the whole run; None when exact
    by_lifetimes: bool = True  # False: births and ages are not known, see `held`


def judge_sites(recording: Recording, options: Options, still_held: Flags | None = None) -> Judged:
    """Judge every site that holds memory, or gave a grown share of it back at the end.

    Sites in `still_held` are judged by what they hold, though they gave much back.
    """
    whole, end = max(recording.duration_ns, 1), _busy_until(recording)
    given = recording
    if end < whole:
        recording = replace(recording, duration_ns=end)
    table = recording.sites
    live_bytes = table["live_bytes"].astype(np.int64)
    lives = lifetimes(recording)
    births = lives.survivors + lives.deaths

    given_back, peak = _given_back(recording, live_bytes, options)
    if still_held is not None:
        given_back &= ~still_held
    weight = np.where(given_back, peak, live_bytes)
    wanted = (lives.survivors > 0) | given_back
    wanted &= weight >= options.min_bytes
    sites = np.flatnonzero(wanted)
    sites = sites[np.argsort(-weight[sites], kind="stable")]

    n = lives.survivors[sites]
    dead = lives.deaths[sites]
    born = births[sites]
    tested = n + dead >= options.min_survivors
    worked = end >= options.min_age_ns and _worked_on(recording, options)

    course = growth(recording, sites)
    if course.rows < options.min_rows:
        course = survivors_course(recording, lives, sites)
    back = given_back[sites]
    if back.any():
        course = _until_teardown(recording, course, back, options)
    long_enough = worked and course.rows >= options.min_rows
    trend = _trend(course, tested, options) & long_enough
    # What comes and goes is at its peak when it goes, too: what did not grow is held, or not.
    rest = back & ~trend & (n > 0)
    if rest.any():
        held = np.zeros(len(live_bytes), dtype=bool) if still_held is None else still_held.copy()
        held[sites[rest]] = True
        return judge_sites(given, options, held)

    first = table["first_birth_ns"][sites].astype(np.int64)
    last = table["last_birth_ns"][sites].astype(np.int64)
    span = np.maximum(last - first, 0)
    silence = end - last
    gap = span / np.maximum(born - 1, 1)

    old = lives.outlived[sites]
    survival = (dead == 0) & (n > 0)
    survival |= (old >= np.maximum(4, options.outlived_share * n)) | (
        (lives.immortal_low[sites] >= options.immortal_share) & (old > 0)
    )
    survival |= back
    # The same number of ever larger blocks: each gives way to the next.
    larger = _significant(course.bytes_p_value, tested, options) & long_enough & ~trend
    larger &= (course.bytes_late >= options.min_late) & (course.bytes_gained >= options.min_gain)
    larger &= (course.bytes_fall <= options.fall) & (dead >= n) & ~back

    window = first * WINDOWS // (end + 1)
    windows = (lives.by_window[sites] > 0).sum(axis=1)
    possible = WINDOWS - window
    slowdown, slowing_z = _slowdown(np.where(back, 0.5, lives.mean_birth[sites]), n)
    late_rate = course.late * 4

    stopped = (silence >= options.silence * end) & (silence >= 5 * gap)
    stopped &= end >= options.min_age_ns
    # One burst: a fixed number of blocks, at whatever time.
    burst = (span <= end / WINDOWS) & (silence >= 2 * span)
    few = n < options.min_survivors
    short_lived = (dead > 0) & (lives.median_age_ns[sites] <= options.median_lifetime * end)
    spread = windows >= np.minimum(0.6 * _expected(n, possible), possible - 1)
    slowing = (
        (slowing_z >= options.slowing_z)
        & (slowdown <= options.slowing)
        & (late_rate <= 0.8)
        & (dead <= 0.2 * born)
    )
    turnover = dead >= np.maximum(n, 1)
    growing = ~few & survival & trend & spread & ~back
    reach = _reach(recording)
    seen = np.zeros(len(sites), np.int64)
    examined = np.zeros(len(sites), dtype=bool)
    if reach is not None:
        seen = reach.reachable[sites] + reach.possible[sites]
        examined = (reach.unknown[sites] == 0) & (seen > 0)
    unseen = (2 * seen < n) & ~arena_sites(recording)[sites]
    grows = (back & trend) | growing | larger
    slower = (slowing_z >= options.slowing_z) & (slowdown <= options.steady)
    service = serving(recording, course, grows, unseen, slower, options, idle=end < whole)
    serves = np.array([why is not None for why in service], dtype=bool)
    serves &= (np.where(larger, course.bytes_fall, course.fall) <= options.fall) | back
    nowhere = sites == 0  # what could not be attributed: many sites in one

    rules: list[tuple[str, Verdict, Flags]] = [
        ("no stack", Verdict.UNKNOWN, nowhere),
        ("single", Verdict.ONE_OFF, (born == 1) & ~back),
        ("fixed", Verdict.ONE_OFF, few & ~back & (born <= 4) & stopped),
        (
            "stopped",
            Verdict.WARM_UP,
            ~back & ~few & stopped & (dead <= 0.5 * born) & (last <= end / 2),
        ),
        ("burst", Verdict.ONE_OFF, ~back & burst & (dead <= 0.5 * born) & long_enough),
        ("stopped", Verdict.WARM_UP, ~back & ~few & stopped & survival),
        ("filling", Verdict.FILLING, ~few & survival & slowing & long_enough & ~back),
        ("given back", Verdict.LEAKING, back & trend & serves),
        ("given back", Verdict.GROWING, back & trend),
        ("growing", Verdict.LEAKING, growing & serves),
        ("growing", Verdict.GROWING, growing),
        ("larger", Verdict.LEAKING, larger & serves),
        ("larger", Verdict.GROWING, larger),
        ("in flight", Verdict.CHURN, turnover & short_lived & ~survival & ~trend),
        ("turnover", Verdict.BOUNDED, turnover & ~survival & ~trend),
        ("level", Verdict.BOUNDED, turnover & ~trend & (course.gained < 0.05) & long_enough & ~few),
        ("early few", Verdict.ONE_OFF, few & stopped & survival),
        ("reachable", Verdict.RETAINED, examined & (not long_enough)),
        ("no time", Verdict.UNKNOWN, np.full(len(sites), not long_enough)),
        ("few", Verdict.UNKNOWN, few),
        ("only survival", Verdict.UNKNOWN, survival & ~trend),
        ("only trend", Verdict.UNKNOWN, trend & ~survival),
        ("neither", Verdict.UNKNOWN, np.ones(len(sites), dtype=bool)),
    ]
    chosen = np.select([r[2] for r in rules], list(range(len(rules))), len(rules) - 1)
    verdicts = [rules[i][1] for i in chosen]
    reasons = [rules[i][0] for i in chosen]
    # What was given back without having grown is no finding.
    keep = ~(back & ~nowhere & np.array([r != "given back" for r in reasons], dtype=bool))

    confidence = _confidence(verdicts, reasons, service, end)
    patterns: list[Pattern | None] = [
        _pattern(v, r, float(i), options)
        for v, r, i in zip(
            verdicts, reasons, _surviving_share(lives, sites, dead, old), strict=True
        )
    ]
    samples = int(births.sum()) if recording.coverage.mode == "sampled" else None
    sparse = samples is not None and samples < options.min_samples
    if reach is not None:
        for i in np.flatnonzero(reach.lost[sites] > 0):
            lost = reach.lost[sites[i]]
            if sparse and lost < 2:  # what one sample in a few stands for is anybody's guess
                verdicts[i], reasons[i], patterns[i] = Verdict.UNKNOWN, "few samples", None
                confidence[i] = _BASE["few samples"]
                continue
            often = lost >= options.occasional * born[i]
            many = Pattern.RECURRENT if often else Pattern.OCCASIONAL
            patterns[i] = Pattern.ONE_OFF if few[i] and not nowhere[i] else many
            verdicts[i], reasons[i] = Verdict.LOST, "lost"
            confidence[i] = _lost(recording, int(lost), int(reach.possible[sites[i]]), options)
    return Judged(
        sites=sites[keep],
        weight=weight,
        verdicts=[v for v, k in zip(verdicts, keep, strict=True) if k],
        patterns=[p for p, k in zip(patterns, keep, strict=True) if k],
        reasons=[r for r, k in zip(reasons, keep, strict=True) if k],
        confidence=confidence[keep],
        lives=lives,
        births=births,
        growth=_rows(course, keep),
        trend=trend[keep],
        survival=survival[keep],
        windows=windows[keep],
        possible_windows=possible[keep],
        slowdown=slowdown[keep],
        service=[s for s, k in zip(service, keep, strict=True) if k],
        reach=reach,
        end_ns=whole,
        samples=samples,
    )


def _busy_until(recording: Recording) -> int:
    """When the program last did anything that was seen: silence after it says nothing of a site."""
    end = max(recording.duration_ns, 1)
    rows = recording.timeline.times_ns
    last = max(
        int(recording.sites["last_birth_ns"].max(initial=0)), int(rows[-1]) if len(rows) else 0
    )
    return end if last > _IDLE * end else max(last, 1)


def _worked_on(recording: Recording, options: Options) -> bool:
    """Whether enough ticks of the clock saw work for a course over time.

    What needs a few milliseconds of a processor may get them over half a second when others
    want it too, and looks then like a program that lives for so long.
    """
    if recording.duration_ns >= options.busy_age_ns:
        return True
    table = recording.sites
    rows = len(recording.timeline.times_ns)
    wanted = min(options.busy_moments, int(table["allocs"].sum()) // 2)
    if rows >= wanted:
        return True
    ticks = [
        np.rint(times / max(recording.tick_ns, 1.0)).astype(np.int64)
        for times in (
            *(recording.blocks["birth_ns"], recording.ranges["birth_ns"]),
            *(table["first_birth_ns"], table["last_birth_ns"]),
        )
    ]
    return len(np.unique(np.concatenate(ticks))) >= wanted


def _given_back(recording: Recording, live: Ints, options: Options) -> tuple[Flags, Ints]:
    """Sites that held most right before the end, and freed nearly all of it there."""
    end = recording.duration_ns
    timeline = recording.timeline
    nothing = np.zeros(len(live), dtype=bool)
    if len(timeline.times_ns) < options.min_rows or end < options.min_age_ns:
        return nothing, live
    late = timeline.times_ns >= (1 - options.teardown) * end
    if not late.any() or late.all():
        return nothing, live
    peak_late = timeline.site_bytes[late].max(axis=0).astype(np.int64)
    peak_early = timeline.site_bytes[~late].max(axis=0).astype(np.int64)
    count = timeline.site_counts[late].max(axis=0).astype(np.int64)
    back = (
        (live <= peak_late // 10) & (peak_late >= peak_early) & (count >= 4 * options.min_survivors)
    )
    return back, peak_late


def _until_teardown(
    recording: Recording, course: SiteGrowth, back: Flags, options: Options
) -> SiteGrowth:
    """Judge the sites in `back` up to the moment at which they held most."""
    timeline = recording.timeline
    held = timeline.site_counts[:, course.sites[back]]
    # The last moment near the highest: a table that was filled stands until it is given back.
    high = held >= 0.95 * held.max(axis=0)
    last = len(high) - 1 - np.argmax(high[::-1], axis=0)
    moment = int(np.median(timeline.times_ns[last]))
    other = growth(recording, course.sites[back], moment)
    for name in ("p_value", "gained", "late", "fall"):
        getattr(course, name)[back] = getattr(other, name)
    if other.rows < options.min_rows:
        course.p_value[back] = 1.0
    return course


def _trend(course: SiteGrowth, tested: Flags, options: Options) -> Flags:
    """Whether the number of blocks grew, by a test of many, late as well, and by how much."""
    trend = _significant(course.p_value, tested, options)
    # Few births at a steady rate may leave the last quarter thin: three standard deviations.
    late_due = 0.25 - 3 * np.sqrt(0.1875 / np.maximum(course.counts.max(axis=1, initial=1), 1))
    trend &= course.late >= np.minimum(options.min_late, late_due)
    return np.asarray(trend & (course.gained >= options.min_gain), dtype=bool)


def _significant(p_value: Floats, judged: Flags, options: Options) -> Flags:
    """Benjamini & Hochberg 1995: the largest k with p(k) <= k/m * rate, and all before it."""
    found = np.zeros(len(p_value), dtype=bool)
    tested = np.flatnonzero(judged)
    if len(tested) == 0:
        return found
    order = tested[np.argsort(p_value[tested], kind="stable")]
    limits = options.false_discovery_rate * np.arange(1, len(order) + 1) / len(order)
    passed = np.flatnonzero(p_value[order] <= limits)
    if len(passed):
        found[order[: passed[-1] + 1]] = True
    return found


_IDLE = 0.7  # what came in the rest of the run after it is a pause

_RATES = np.concatenate([[1e-3], np.linspace(0.05, 20.0, 400)])
_MEANS = 1.0 / _RATES - 1.0 / np.expm1(_RATES)


def _slowdown(mean: Floats, count: Ints) -> tuple[Floats, Floats]:
    """Fit births at a rate exp(-k u), u from 0 to 1, to their mean time.

    Returns exp(-k), the rate at the end over that at the start, and the number of standard
    errors by which the mean is below that of steady births. The mean is the maximum-likelihood
    statistic of this family; its inverse is read from a table.
    """
    k = np.interp(-mean, -_MEANS, _RATES)
    slow = np.where(mean < 0.5, np.exp(-k), 1.0)
    return slow, (0.5 - mean) * np.sqrt(12.0 * count)


def _expected(count: Ints, windows: Ints) -> Floats:
    """Expected number of windows hit by `count` births at a steady rate."""
    return windows * (1.0 - (1.0 - 1.0 / np.maximum(windows, 1)) ** count)


def _surviving_share(lives: Lifetimes, sites: Ints, dead: Ints, old: Ints) -> Floats:
    # Blocks too young to tell count neither way.
    return np.where(dead > 0, old / np.maximum(old + dead, 1), 1.0) + 0 * lives.immortal[sites]


def _pattern(verdict: Verdict, reason: str, share: float, options: Options) -> Pattern | None:
    if verdict is Verdict.LEAKING:
        if reason in {"given back", "larger"}:
            return Pattern.IMPLICIT
        return Pattern.OCCASIONAL if share < options.occasional else Pattern.RECURRENT
    return Pattern.ONE_OFF if verdict is Verdict.ONE_OFF else None


_BASE = {
    "no stack": 0.1,
    "single": 0.9,
    "fixed": 0.7,
    "burst": 0.6,
    "stopped": 0.8,
    "filling": 0.7,
    "given back": 0.5,
    "growing": 0.5,
    "larger": 0.5,
    "in flight": 0.9,
    "turnover": 0.9,
    "level": 0.7,
    "early few": 0.6,
    "reachable": 0.7,
    "no time": 0.1,
    "few": 0.2,
    "few samples": 0.2,
    "only survival": 0.4,
    "only trend": 0.4,
    "neither": 0.1,
}

# Share of leaks among what benchmarks/verdicts calls leaking in its set `train`, by evidence and
# seconds of the run: the lower ends of 95 % intervals, never falling with time.
_LEAKS = {
    Service.LEVEL: ((3.0, 0.65), (10.0, 0.83), (300.0, 0.87), (3600.0, 0.93)),
    Service.STEADY: ((1800.0, 0.78), (3600.0, 0.93)),
    Service.KILLED: ((0.0, 0.68),),
    Service.UNSEEN: ((0.0, 0.6),),
}
PROVEN = 0.99
"""How sure a lost block is one, where nothing speaks against it."""
_DOUBTED = 0.7
_FEW_SAMPLES = 0.85


def _confidence(
    verdicts: list[Verdict], reasons: list[str], service: list[Service | None], end: int
) -> Floats:
    """How sure, 0..1. For what leaks it is measured: the share of leaks among such findings."""
    sure = np.array([_BASE[reason] for reason in reasons])
    for i, (verdict, why) in enumerate(zip(verdicts, service, strict=True)):
        if verdict is Verdict.LEAKING and why is not None:
            sure[i] = max(share for least, share in _LEAKS[why] if end >= least * 1e9)
    return sure


def _lost(recording: Recording, lost: int, possible: int, options: Options) -> float:
    """How sure a site leaks of which `lost` blocks are, and `possible` others may be.

    Frees that by-pass us leave records of blocks that are gone. Where most addresses were seen in
    another form, the rest may be kept in one as well. A few samples are a few.
    """
    coverage = recording.coverage
    if coverage.dropped.get("duplicate", 0) or "own_malloc" in coverage.troubles:
        return _DOUBTED
    if possible > lost:
        return _DOUBTED
    return _FEW_SAMPLES if coverage.mode == "sampled" and lost < options.lost_samples else PROVEN


def _reach(recording: Recording) -> Reach | None:
    kinds = recording.reachability
    if kinds is None:
        return None
    sites = len(recording.sites)
    site = recording.blocks["site"].astype(np.int64)

    def count(*wanted: Reachability) -> Ints:
        return np.bincount(site[np.isin(kinds, wanted)], minlength=sites)

    size = recording.blocks["size"].astype(np.float64)
    weight = np.ones(len(size))
    if recording.coverage.mode == "sampled" and recording.coverage.sample_bytes:
        seen = -np.expm1(-size / recording.coverage.sample_bytes)
        np.divide(1.0, seen, out=weight, where=seen > 0)
    lost = np.isin(kinds, (Reachability.DEFINITELY_LOST, Reachability.INDIRECTLY_LOST))
    unknown = kinds == Reachability.UNKNOWN

    def estimate(which: Flags, of: Floats) -> Ints:
        return np.rint(np.bincount(site[which], of[which], minlength=sites)).astype(np.int64)

    return Reach(
        lost=np.bincount(site[lost], minlength=sites),
        lost_count=estimate(lost, weight),
        lost_bytes=estimate(lost, weight * size),
        indirect=count(Reachability.INDIRECTLY_LOST),
        possible=count(Reachability.POSSIBLY_LOST),
        possible_bytes=estimate(kinds == Reachability.POSSIBLY_LOST, weight * size),
        reachable=count(Reachability.REACHABLE),
        unknown=count(Reachability.UNKNOWN),
        unknown_bytes=estimate(unknown, weight * size),
    )


def _rows(course: SiteGrowth, keep: Flags) -> SiteGrowth:
    by_site = {
        field.name: getattr(course, field.name)[keep]
        for field in fields(course)
        if field.name not in {"rows", "times_ns"}
    }
    return replace(course, **by_site)
