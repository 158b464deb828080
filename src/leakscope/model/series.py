# SPDX-License-Identifier: Apache-2.0
"""A gauge over time: what one subject's memory, descriptors or threads were at known moments."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from leakscope.model.growth import Growth

__all__ = ["Cause", "Cut", "Series", "Standing", "Subject", "Trend", "TrendVerdict"]


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose gauge it is. `key` never names two things in one run: pid reuse makes a new key."""

    kind: str  # "system", "process", "cgroup", "slab", "tmpfs", …
    key: str  # "1234@887766" (pid@start in clock ticks), "/system.slice/x.service", "dentry"
    name: str  # what people call it: the executable's or cgroup's name
    pid: int | None = None
    exe: str | None = None
    started_ns: int | None = None  # CLOCK_BOOTTIME of its start: age = time - started
    limit: float | None = None  # the bound it runs into (memory.max, RLIMIT_NOFILE), in `unit`
    limit_of: str | None = None  # whose limit that is, in words: "the limit of its cgroup"
    home: str | None = None  # where it lives: "nginx.service", "docker container 4e05f3c1b2a9"


@dataclass(frozen=True, slots=True)
class Cut:
    """A moment across which values must not be compared."""

    time_ns: int
    reason: str  # "restart", "clock step", "suspend", "gap"


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one subject. `times_ns` ascend (CLOCK_BOOTTIME), same length as `values`."""

    subject: Subject
    metric: str  # "pss", "anon", "fds", "threads", "slab_unreclaimable", …
    unit: str  # "bytes" or "count"
    times_ns: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    cuts: tuple[Cut, ...] = field(default_factory=tuple)

    def newest_course(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return times and values from the last cut on, without those that are no numbers."""
        times, values = self.times_ns, self.values
        if self.cuts and len(times):
            cut = max(cut.time_ns for cut in self.cuts)
            first = int(np.searchsorted(times, cut, side="left"))
            times, values = times[first:], values[first:]
        good = np.isfinite(values)
        return (times, values) if good.all() else (times[good], values[good])


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one gauge stands now, without its course."""

    subject: Subject
    metric: str
    unit: str
    first: float
    last: float
    rate: float = 0.0  # of its newest values, in `unit` per second


class TrendVerdict(enum.StrEnum):
    """What the course of one gauge looks like (see docs/explanation/trends.md)."""

    LEAK = "leak"
    WARM_UP = "warm-up"
    PLATEAU = "plateau"
    SAWTOOTH = "sawtooth"
    STEP = "step"
    SEASONAL = "seasonal"
    FILLING = "filling"
    CACHE = "cache"
    GROWING = "growing fast"  # steadily, and it may be a job that loads its input
    NOT_ENOUGH_DATA = "not enough data"


@dataclass(frozen=True, slots=True)
class Trend:
    """The verdict on one series. Rates are in the series' unit per hour."""

    series: Series
    verdict: TrendVerdict
    confidence: float  # 0..1
    rate: float | None
    rate_low: float | None
    rate_high: float | None
    sentence: str
    next_step: str | None
    exhausted_in_s: float | None = None  # time until `subject.limit`, at this rate
    exhausted_low_s: float | None = None
    exhausted_high_s: float | None = None
    more_s: float | None = None  # for "not enough data": how much longer to watch
    evidence: tuple[tuple[str, float], ...] = ()  # name of the statistic, its value
    growth: Growth | None = None  # what was measured at present, whatever the verdict


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that leaks: the gauge that says it best, and the gauges that only follow it.

    `alike` are other processes of the same executable whose same gauge leaks as well.
    """

    trend: Trend
    follows: tuple[Trend, ...] = ()
    alike: tuple[Trend, ...] = ()
