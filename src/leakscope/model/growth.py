# SPDX-License-Identifier: Apache-2.0
"""Growth as a fact: how fast one gauge grows now, how steadily, since when, and what it runs into.

This is a measurement and no verdict: two values are enough for it. What it means is for
`leakscope.judge` to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Growth"]


@dataclass(frozen=True, slots=True)
class Growth:
    """How one gauge grew until its last value. Rates are in `unit` per second, times in seconds."""

    metric: str  # "anon", "virtual", "fds", …
    unit: str  # "bytes" or "count"
    first: float
    last: float
    looks: int  # how many values it was measured from
    watched_s: float
    rate: float  # at present; negative when it falls, 0 when it rests
    rate_low: float  # where 95 % of such measurements lie
    rate_high: float
    rose: int  # in so many …
    steps: int  # … of so many stretches of equal length since the growth began
    since_s: float  # how long it has grown, as far as was seen
    grown: float  # in that time
    from_first_look: bool  # it grew when it was first looked at: perhaps longer than `since_s`
    held_s: float = 0.0  # how long it had held a level before that, as far as was seen
    slowing: float = 1.0  # rate of the later half of that time over the rate of the earlier one
    falls: int = 0  # sharp falls in what was seen
    peak: float = 0.0  # what it had held before they, or what is measured, began; 0: unknown
    limit: float | None = None  # what it runs into, in `unit`
    limit_of: str | None = None  # whose limit that is, in words: "the limit of its cgroup"

    @property
    def steadiness(self) -> float:
        """0 to 1: the share of the stretches since the growth began in which it rose."""
        return self.rose / self.steps if self.steps else 0.0

    @property
    def per_minute(self) -> float:
        """Growth in a minute as a share of what it held on average meanwhile (0.1 is 10 %)."""
        return 60.0 * self.rate / max(self.last - 0.5 * self.grown, 1.0)

    @property
    def until_limit_s(self) -> float | None:
        """When the limit is reached at this rate; None: there is none, or it does not grow."""
        if self.limit is None or not math.isfinite(self.limit) or self.rate <= 0.0:
            return None
        return max(0.0, self.limit - self.last) / self.rate
