# SPDX-License-Identifier: Apache-2.0
"""When growth is called fast: enough to look at it now, and never enough to call it a leak.

A job that loads its input looks the same as a leak for as long as it loads. *Growing fast* is
therefore `POSSIBLE` at most; a leak needs a second signal, or the time that slow growth needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leakscope.model.growth import Growth

__all__ = ["POSSIBLE", "grows_fast"]

POSSIBLE = 0.6  # the confidence that growth alone can have

_LOOKS = 5
_SHORTEST_S = 15.0
_STEADY = 0.75
_STRAIGHT = 0.5  # what slows down more is a cache that fills, or a warm-up
_PER_MINUTE = 0.05
_BYTES_PER_S = float(1 << 20)
_SOON_S = 3600.0  # until its limit
_LEAST_BYTES, _LEAST_COUNT = float(1 << 20), 8.0
_OVER_PEAK = 1.1  # a sawtooth rises as well: only what exceeds its teeth is growth
_FALLS = 3  # its floors tell, later


def grows_fast(growth: Growth) -> bool:
    """Whether it grows steadily and so fast that nobody should wait for a verdict."""
    least = _LEAST_BYTES if growth.unit == "bytes" else _LEAST_COUNT
    seen = growth.looks >= _LOOKS and growth.since_s >= _SHORTEST_S and growth.grown >= least
    steady = (
        growth.rate_low > 0.0
        and growth.steadiness >= _STEADY
        and growth.slowing >= _STRAIGHT
        and growth.falls < _FALLS
        and growth.last >= _OVER_PEAK * growth.peak
    )
    if not seen or not steady:
        return False
    until = growth.until_limit_s
    return (
        growth.per_minute >= _PER_MINUTE
        or (growth.unit == "bytes" and growth.rate >= _BYTES_PER_S)
        or (until is not None and until <= _SOON_S)
    )
