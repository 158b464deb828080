# SPDX-License-Identifier: Apache-2.0
"""The thresholds of the verdict engine, all in one place, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from leakscope.model.recordings import MOMENT_NS

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """Thresholds. The defaults were chosen on the programs of tests/programs."""

    min_bytes: int = 0
    """Leave out sites that hold less, now and at their peak."""
    most_findings: int = 10_000
    """So many sites are described, leaks first; the rest is summed up in a note."""
    min_age_ns: int = MOMENT_NS
    """A run shorter than this shows no trend: start-up is all there was."""
    busy_moments: int = 32
    """... and so does one that worked in fewer of its clock's ticks, or at every second of its
    allocations, however long a busy machine let it wait in between ..."""
    busy_age_ns: int = 2_000_000_000
    """... which is not for longer than this."""
    min_survivors: int = 5
    """Fewer blocks show no course over time."""
    min_rows: int = 8
    """Fewer moments of the timeline show no trend."""
    false_discovery_rate: float = 0.01
    """Expected share of false trends among all trends found (Benjamini-Hochberg)."""
    min_gain: float = 0.15
    """Growth since the second quarter of the run, as a share of the level at its end. Steady
    growth from nothing gains 0.57, a cache that is full gains nothing."""
    min_late: float = 0.08
    """Share of all growth that falls into the last quarter. Steady growth has 0.25."""
    outlived_share: float = 0.2
    """Share of living blocks that are older than nearly all of the dead became."""
    immortal_share: float = 0.1
    """Share of births that survive the age at which the others die."""
    slowing: float = 0.35
    """Filling: births at the end are at most this share of those at the start."""
    slowing_z: float = 3.0
    """... by this many standard errors."""
    silence: float = 0.25
    """Warm-up: nothing was born in this last share of the run."""
    teardown: float = 0.2
    """Implicit growth: what was given back at once in this last share of the run."""
    median_lifetime: float = 0.02
    """Churn: half of the dead lived less than this share of the run."""
    min_samples: int = 30
    """Sampled mode: fewer samples in the whole run can have missed a tenth of all memory."""
    lost_samples: int = 10
    """... and fewer lost samples of a site do not say how often it loses what."""
    steady_s: float = 1800.0
    """Growth that went on at one rate for so long is more than a job that loads."""
    steady: float = 0.6
    """... at the end still at this share of the rate at the start."""
    serving_s: float = 3.0
    """... or for so long after the rest of the process had reached its level."""
    given_back_s: float = 6.0
    """... for so long when it gave all back at its end, as a job does that a busy machine held up;"""
    stopped_s: float = 10.0
    """... or for so long until somebody ended the process, all of it reachable."""
    few_sites: int = 2
    """So many sites that grow at once may be a leak ..."""
    few_share: float = 0.2
    """... or this share of the sites that work on; a job builds its data at more."""
    kernel_sites: int = 32
    """The kernel ends with no job: so many of its sites that grow at once may be one leak (one
    socket is 5 allocations); when more processes run, about 50 grow ..."""
    kernel_s: float = 20.0
    """... in a trace of this length; before that, what was started meanwhile grows as well."""
    level: float = 0.3
    """A level: all moments within this share of their median."""
    level_by: float = 0.4
    """... reached in this first share of the run."""
    level_ratio: float = 1.0
    """Growth of more than so many times that level is the work itself."""
    fall: float = 0.25
    """What once fell by this share of its highest goes up and down."""
    occasional: float = 0.5
    """A leak is occasional when a smaller share of births survives."""
