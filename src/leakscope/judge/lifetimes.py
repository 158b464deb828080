# SPDX-License-Identifier: Apache-2.0
"""What the lives of a site's blocks say: survivors by time of birth, ages, deaths, growth.

Everything here is a column over sites, computed without a loop over blocks or sites. The
survival part is the Kaplan-Meier estimate for grouped, right-censored ages (a living block
is censored at its age); the growth part is the Mann-Kendall test without its correction for
ties, which errs on the side of "no trend". Times are nanoseconds since the recording started.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.recordings import AGE_BUCKETS

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.model.recordings import Recording

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

__all__ = ["WINDOWS", "Lifetimes", "SiteGrowth", "growth", "lifetimes", "survivors_course"]

WINDOWS = 16
"""Parts of the run in which survivors are counted by time of birth."""

_POINTS = 24  # moments of the timeline that the trend is judged on
_SLAB = 1 << 18  # blocks at once: what fits in the cache …
_MANY = 1 << 14  # … unless the sums of so many sites do not fit either: then fewer, larger steps


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """One entry a site; all counts are recorded blocks, not estimates."""

    survivors: Ints  # living blocks
    by_window: Ints  # (sites, WINDOWS): living blocks by window of their birth
    square_bytes: Floats  # sum of squared sizes of the living, weighted when sampled
    variance: Floats  # of the estimate of live bytes; 0 when exact
    mean_birth: Floats  # mean birth of the living between first_birth and the end, 0..1
    deaths: Ints  # blocks whose death was seen
    lifetime_ns: Floats  # age that 99 % of the dead did not exceed; 0 without deaths
    median_age_ns: Floats  # median age at death, upper edge of its bucket; 0 without deaths
    outlived: Ints  # living blocks older than lifetime_ns
    immortal: (
        Floats  # share of births that live beyond lifetime_ns (Kaplan-Meier); 1 without deaths
    )
    immortal_low: Floats  # lower end of its 95 % interval (Greenwood)


@dataclass(frozen=True, slots=True)
class SiteGrowth:
    """The course of live blocks, one entry a site of `sites`."""

    sites: Ints
    rows: int  # moments judged; below 8 nothing is known
    times_ns: Ints  # (rows,)
    counts: Floats  # (len(sites), rows)
    sizes: Floats  # (len(sites), rows) bytes
    p_value: Floats  # Mann-Kendall, one-sided: the number grows
    gained: Floats  # share of the final level gained since the second quarter, may be negative
    late: Floats  # share of the whole growth that fell into the last quarter
    fall: Floats  # deepest fall below an earlier level, as a share of the highest
    bytes_p_value: Floats  # the same four for bytes: one block may grow
    bytes_gained: Floats
    bytes_late: Floats
    bytes_fall: Floats


def lifetimes(recording: Recording) -> Lifetimes:
    """Summarise births, ages and deaths of every site."""
    sites = len(recording.sites)
    end = max(recording.duration_ns, 1)
    deaths = recording.deaths
    edges = recording.tick_ns * np.concatenate([[1.0], 2.0 ** np.arange(1, AGE_BUCKETS)])
    dead = deaths.sum(axis=1).astype(np.int64)
    below = np.cumsum(deaths, axis=1, dtype=np.float64)
    bucket99 = (below < (0.99 * below[:, -1])[:, None]).sum(axis=1).clip(max=AGE_BUCKETS - 1)
    bucket50 = (below < (0.5 * below[:, -1])[:, None]).sum(axis=1).clip(max=AGE_BUCKETS - 1)
    lifetime = np.where(dead > 0, edges[bucket99], 0.0)
    median = np.where(dead > 0, edges[bucket50], 0.0)
    begin = np.minimum(recording.sites["first_birth_ns"].astype(np.int64), end - 1)

    living = _Living(sites)
    slab = _SLAB if sites < _MANY else 4 * _SLAB
    sample = recording.coverage.sample_bytes if recording.coverage.mode == "sampled" else None
    for table, size_name in ((recording.blocks, "size"), (recording.ranges, "length")):
        for start in range(0, len(table), slab):
            part = table[start : start + slab]
            living.add(
                part["site"].astype(np.int64),
                part["birth_ns"].astype(np.int64).clip(0, end),
                part[size_name].astype(np.float64),
                end=end,
                begin=begin,
                lifetime=lifetime,
                edges=edges,
                sample=sample if size_name == "size" else None,  # mappings are recorded whole
            )
    count = living.count
    there = count > 0
    living.outlived[dead == 0] = count[dead == 0]
    immortal, immortal_low = np.ones(sites), np.ones(sites)
    mortal = np.flatnonzero(dead > 0)
    immortal[mortal], immortal_low[mortal] = _kaplan_meier(
        deaths[mortal], living.ages[mortal], bucket99[mortal]
    )
    return Lifetimes(
        survivors=count,
        by_window=living.windows,
        square_bytes=living.square,
        variance=living.variance,
        mean_birth=np.divide(living.births, count, out=np.full(sites, 0.5), where=there),
        deaths=dead,
        lifetime_ns=lifetime,
        median_age_ns=median,
        outlived=living.outlived,
        immortal=immortal,
        immortal_low=immortal_low,
    )


class _Living:
    """Sums over living blocks, by site."""

    def __init__(self, sites: int) -> None:
        self.sites = sites
        self.count = np.zeros(sites, np.int64)
        self.windows = np.zeros((sites, WINDOWS), np.int64)
        self.ages = np.zeros((sites, AGE_BUCKETS), np.int64)
        self.outlived = np.zeros(sites, np.int64)
        self.births = np.zeros(sites)
        self.square = np.zeros(sites)
        self.variance = np.zeros(sites)

    def add(
        self,
        site: Ints,
        birth: Ints,
        size: Floats,
        *,
        end: int,
        begin: Ints,
        lifetime: Floats,
        edges: Floats,
        sample: int | None,
    ) -> None:
        sites = self.sites
        self.count += np.bincount(site, minlength=sites)
        window = (birth * (WINDOWS / (end + 1))).astype(np.int64)
        window += site * WINDOWS
        flat = np.bincount(window, minlength=sites * WINDOWS)
        self.windows += flat.reshape(sites, WINDOWS)
        mortal = lifetime[site] > 0
        if mortal.any():  # ages are compared with those of the dead, where there are any
            of, age = site[mortal], (end - birth[mortal]).astype(np.float64)
            bucket = np.searchsorted(edges, age, side="right").clip(max=AGE_BUCKETS - 1)
            flat = np.bincount(of * AGE_BUCKETS + bucket, minlength=sites * AGE_BUCKETS)
            self.ages += flat.reshape(sites, AGE_BUCKETS)
            self.outlived += np.bincount(of[age > lifetime[of]], minlength=sites)
        since = begin[site]
        share = (birth - since) / (end - since)
        self.births += np.bincount(site, share.clip(0.0, 1.0), minlength=sites)
        square = size * size
        if sample:
            seen = -np.expm1(-size / sample)
            weight = np.divide(1.0, seen, out=np.ones(len(size)), where=seen > 0)
            spread = square * (weight - 1) * weight  # Horvitz-Thompson
            self.variance += np.bincount(site, spread, minlength=sites)
            square *= weight
        self.square += np.bincount(site, square, minlength=sites)


def _kaplan_meier(deaths: npt.NDArray[np.uint64], ages: Ints, last: Ints) -> tuple[Floats, Floats]:
    """Survival up to the end of bucket `last`, and the lower end of its 95 % interval."""
    died = deaths.astype(np.float64)
    lived = ages.astype(np.float64)
    both = died + lived
    at_risk = both[:, ::-1].cumsum(axis=1)[:, ::-1] - lived / 2
    use = (np.arange(died.shape[1]) <= last[:, None]) & (at_risk > 0) & (died > 0)
    hazard = np.divide(died, at_risk, out=np.zeros_like(died), where=use).clip(0.0, 1.0)
    survival: Floats = np.prod(1.0 - hazard, axis=1)
    left = at_risk * (at_risk - died)
    greenwood = np.divide(died, left, out=np.zeros_like(died), where=use & (left > 0)).sum(axis=1)
    low = survival * (1.0 - 1.96 * np.sqrt(greenwood))
    return survival, low.clip(min=0.0)


def growth(recording: Recording, sites: Ints, until_ns: int | None = None) -> SiteGrowth:
    """Judge the course of live blocks of `sites` up to `until_ns` (default: the end)."""
    end = recording.duration_ns if until_ns is None else until_ns
    timeline = recording.timeline
    known = np.flatnonzero(timeline.times_ns <= end)
    if len(known) >= _POINTS:
        known = known[np.linspace(0, len(known) - 1, _POINTS - 1).astype(np.int64)]
    times = timeline.times_ns[known]
    counts = timeline.site_counts[np.ix_(known, sites)].T.astype(np.float64)
    sizes = timeline.site_bytes[np.ix_(known, sites)].T.astype(np.float64)
    if until_ns is None:
        now = recording.sites[sites]
        times = np.append(times, end)
        counts = np.concatenate([counts, now["live_count"][:, None].astype(np.float64)], axis=1)
        sizes = np.concatenate([sizes, now["live_bytes"][:, None].astype(np.float64)], axis=1)
    return _judged(sites, times, counts, sizes, end)


def survivors_course(recording: Recording, lives: Lifetimes, sites: Ints) -> SiteGrowth:
    """Judge growth by when the living were born, where the timeline has too few moments.

    That is the true course only where hardly anything dies, or where what dies lives so briefly
    that it is none of the course; other sites show no growth.
    """
    end = recording.duration_ns
    times = (np.arange(1, WINDOWS + 1) * end) // WINDOWS
    counts = lives.by_window[sites].cumsum(axis=1).astype(np.float64)
    each = recording.sites["live_bytes"][sites] / np.maximum(lives.survivors[sites], 1)
    found = _judged(sites, times, counts, counts * each[:, None], end)
    mortal = lives.deaths[sites] > 0.05 * (lives.deaths[sites] + lives.survivors[sites])
    mortal &= lives.lifetime_ns[sites] > 0.05 * end
    found.p_value[mortal] = 1.0
    found.bytes_p_value[:] = 1.0  # sizes at earlier moments are not known
    return found


def _judged(sites: Ints, times: Ints, counts: Floats, sizes: Floats, end: int) -> SiteGrowth:
    return SiteGrowth(
        sites,
        len(times),
        times,
        counts,
        sizes,
        *_course(counts, times, end),
        *_course(sizes, times, end),
    )


def _course(values: Floats, times: Ints, end: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Of each row of `values`: p of "rises", share gained, share of it that came late, deepest fall."""
    sites, rows = values.shape
    score = np.zeros(sites)
    for step in range(1, rows):
        score += np.sign(values[:, step:] - values[:, :-step]).sum(axis=1)
    spread = np.sqrt(max(rows * (rows - 1) * (2 * rows + 5) / 18.0, 1.0))
    p_value = _upper_tail((score - 1) / spread)
    gained, late, fall = np.zeros(sites), np.zeros(sites), np.zeros(sites)
    quarters = np.minimum(times * 4 // max(end, 1), 3)
    second, last = quarters == 1, quarters == 3
    if second.any() and last.any():
        level = values[:, -1]
        top = values[:, last].mean(axis=1)
        np.divide(top - values[:, second].mean(axis=1), top, out=gained, where=top > 0)
        before = values[:, ~last][:, -1]
        whole = level - values[:, 0]
        np.divide(level - before, whole, out=late, where=whole > 0)
    if rows:
        highest = np.maximum.accumulate(values, axis=1)
        np.divide(
            (highest - values).max(axis=1), highest[:, -1], out=fall, where=highest[:, -1] > 0
        )
    return p_value, gained, late, fall


def _upper_tail(z: Floats) -> Floats:
    """P(Z > z) of the normal distribution: Abramowitz & Stegun 26.2.17, error below 1e-7."""
    t = 1.0 / (1.0 + 0.2316419 * np.abs(z))
    series = t * (
        0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
    )
    tail = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * series
    result: Floats = np.where(z >= 0, tail, 1.0 - tail)
    return result
