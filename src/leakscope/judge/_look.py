# SPDX-License-Identifier: Apache-2.0
"""What was measured of one series, on its way to a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.model.series import Series, TrendVerdict

if TYPE_CHECKING:
    from leakscope.judge import _series_stats as stats
    from leakscope.model.growth import Growth

__all__ = ["Look"]


@dataclass(slots=True)
class Look:
    """What was measured of one series, before the series are weighed together."""

    series: Series
    verdict: TrendVerdict = TrendVerdict.NOT_ENOUGH_DATA
    line: stats.Line | None = None
    why: str = ""
    p: float = 1.0
    floor_z: float = 0.0
    window_h: float = 0.0
    last: float = 0.0
    more_s: float | None = None
    tail_from: float = 0.0  # hours, where the line starts
    sure: float = 0.0
    growth: Growth | None = None
    extra: tuple[tuple[str, float], ...] = ()
