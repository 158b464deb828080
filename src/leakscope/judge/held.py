# SPDX-License-Identifier: Apache-2.0
"""What is said of memory whose source knows what is held, and not how long blocks live.

Without births and ages nothing is asked of them: no site leaks by its course, and none is
called bounded or a one-off. What points to the blocks is evidence of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.judge.lifetimes import WINDOWS, Lifetimes, SiteGrowth
from leakscope.judge.rules import PROVEN, Judged, Reach
from leakscope.model.columns import Column
from leakscope.model.findings import Verdict

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.judge.options import Options
    from leakscope.model.recordings import Recording

    Ints = npt.NDArray[np.int64]

__all__ = ["judge_held"]

_CONFIDENCE = {"lost": PROVEN, "pointed to": 0.9, "possibly lost": 0.6, "held": 0.1}


def judge_held(recording: Recording, options: Options) -> Judged:
    """Judge every site that holds memory by what points to it, where that is known."""
    table = recording.sites
    reach = _reach(recording)
    weight = table["live_bytes"].astype(np.int64)
    count = table["live_count"].astype(np.int64)
    wanted = ((weight > 0) | (count > 0)) & (weight >= options.min_bytes)
    sites = np.flatnonzero(wanted)
    sites = sites[np.argsort(-weight[sites], kind="stable")]
    verdicts: list[Verdict] = []
    reasons: list[str] = []
    for site in sites.tolist():
        if reach is None or not (reach.lost[site] or reach.possible[site] or reach.reachable[site]):
            verdicts.append(Verdict.UNKNOWN)
            reasons.append("held")
        elif reach.lost[site]:
            verdicts.append(Verdict.LOST)
            reasons.append("lost")
        else:
            verdicts.append(Verdict.RETAINED)
            reasons.append("possibly lost" if reach.possible[site] else "pointed to")
    size, judged = len(table), len(sites)
    no = np.zeros(judged, dtype=bool)
    births = count + table["frees"].astype(np.int64)
    return Judged(
        sites=sites,
        weight=weight,
        verdicts=verdicts,
        patterns=[None] * judged,
        reasons=reasons,
        confidence=np.array([_CONFIDENCE[reason] for reason in reasons], float),
        lives=_no_lives(size, count),
        births=births,
        growth=_no_growth(sites),
        trend=no,
        survival=no,
        windows=np.zeros(judged, np.int64),
        possible_windows=np.zeros(judged, np.int64),
        slowdown=np.ones(judged),
        service=[None] * judged,
        reach=reach,
        end_ns=recording.duration_ns,
        samples=None,
        by_lifetimes=False,
    )


def _reach(recording: Recording) -> Reach | None:
    told = recording.site_reach
    if told is None:
        return None

    def of(*names: str) -> Ints:
        found: Ints = np.zeros(len(told), np.int64)
        for name in names:
            found += told[name].astype(np.int64)
        return found

    examined = of("definite_count", "indirect_count", "possible_count", "reachable_count")
    unknown, unknown_bytes = np.zeros_like(examined), np.zeros_like(examined)
    if recording.knows(Column.LIVE_COUNT, Column.LIVE_BYTES):
        unknown = np.maximum(recording.sites["live_count"].astype(np.int64) - examined, 0)
        of_all = of("definite_bytes", "indirect_bytes", "possible_bytes", "reachable_bytes")
        held = recording.sites["live_bytes"].astype(np.int64)
        unknown_bytes = np.where(unknown > 0, np.maximum(held - of_all, 0), 0)
    return Reach(
        lost=of("definite_count", "indirect_count"),
        lost_count=of("definite_count", "indirect_count"),
        lost_bytes=of("definite_bytes", "indirect_bytes"),
        indirect=of("indirect_count"),
        possible=of("possible_count"),
        possible_bytes=of("possible_bytes"),
        reachable=of("reachable_count"),
        unknown=unknown,
        unknown_bytes=unknown_bytes,
    )


def _no_lives(size: int, count: Ints) -> Lifetimes:
    """Lives of which only the number of the living is known."""
    none, zero = np.zeros(size, np.int64), np.zeros(size)
    return Lifetimes(
        survivors=count,
        by_window=np.zeros((size, WINDOWS), np.int64),
        square_bytes=zero,
        variance=zero,
        mean_birth=zero,
        deaths=none,
        lifetime_ns=zero,
        median_age_ns=zero,
        outlived=none,
        immortal=zero,
        immortal_low=zero,
    )


def _no_growth(sites: Ints) -> SiteGrowth:
    """A course without any moment."""
    empty, zero = np.zeros((len(sites), 0)), np.zeros(len(sites))
    return SiteGrowth(
        sites=sites,
        rows=0,
        times_ns=np.zeros(0, np.int64),
        counts=empty,
        sizes=empty,
        p_value=np.ones(len(sites)),
        gained=zero,
        late=zero,
        fall=zero,
        bytes_p_value=np.ones(len(sites)),
        bytes_gained=zero,
        bytes_late=zero,
        bytes_fall=zero,
    )
