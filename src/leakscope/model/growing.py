# SPDX-License-Identifier: Apache-2.0
"""Measuring the growth of a series: the present rate, since when, and what fell before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leakscope.model.growth import Growth

if TYPE_CHECKING:
    from leakscope.model.series import Series

__all__ = ["growth_of"]

_Array = npt.NDArray[np.float64]

_POINTS = 24  # groups of values that are looked at: cheap for thousands of gauges
_STEPS = 6  # stretches in each of which steady growth is seen to rise
_HINGE = 0.35  # of the straight line's squared error is left when growth began in between
_FALL = 0.25  # of its range: a fall after which growth begins anew
_REST = 0.002  # of the level: what moves less rests
_PAGE = 65_536.0  # bytes that no program means
_FEWEST = 5  # values a bend can be seen in


def growth_of(series: Series, newest: int | None = None) -> Growth | None:
    """Measure a series from its last cut on; None when there are fewer than two values.

    With `newest` only so many of its last values are measured, and those before give the peak.
    """
    times, values = series.newest_course()
    before = 0.0
    if newest is not None and len(values) > newest:
        before = float(values[:-newest].max())
        times, values = times[-newest:], values[-newest:]
    if len(values) < 2 or times[-1] <= times[0]:
        return None
    seconds = (times - times[0]) / 1e9
    t, y = _grouped(seconds, np.asarray(values, dtype=np.float64))
    bytes_too_few = _PAGE if series.unit == "bytes" else 0.5
    rest = max(bytes_too_few, _REST * abs(float(np.median(y))))
    falls, peak = 0, before
    begin = 0
    span = float(np.ptp(y))
    if span > rest:
        sharp = np.flatnonzero(np.diff(y) < -max(rest, _FALL * span))
        if len(sharp):
            falls, peak, begin = (
                len(sharp),
                max(before, float(y[: sharp[-1] + 1].max())),
                int(sharp[-1]) + 1,
            )
    t1, y1 = t[begin:], y[begin:]
    held_s = 0.0
    at = _began(t1, y1, rest)
    if at:
        held_s = float(t1[at] - t1[0])
        t1, y1 = t1[at:], y1[at:]
    if len(t1) < 2:  # it has just fallen
        t1, y1 = t[-2:], y[-2:]
    rate, low, high = _slope(t1, y1)
    slowing = 1.0
    if len(t1) >= _FEWEST + 1:
        half = len(t1) // 2
        early, late = _slope(t1[: half + 1], y1[: half + 1])[0], _slope(t1[half:], y1[half:])
        slowing = late[0] / early if early > 0.0 else math.inf
        if slowing < 0.7 or slowing > 1.4:  # the present counts
            rate, low, high = late
    grown = float(y1[-1] - y1[0])
    rose, steps = _rose(t1, y1, rest)
    if float(np.ptp(y1)) <= rest:
        rate = low = high = 0.0
    subject = series.subject
    return Growth(
        metric=series.metric,
        unit=series.unit,
        first=float(values[0]),
        last=float(values[-1]),
        looks=len(values),
        watched_s=float(seconds[-1]),
        rate=rate,
        rate_low=low,
        rate_high=high,
        rose=rose,
        steps=steps,
        since_s=float(t1[-1] - t1[0]),
        grown=grown,
        from_first_look=not at and not falls and not before,
        held_s=held_s,
        slowing=slowing,
        falls=falls,
        peak=peak,
        limit=subject.limit,
        limit_of=subject.limit_of,
    )


def _grouped(t: _Array, y: _Array) -> tuple[_Array, _Array]:
    """Return at most `_POINTS` values, the newest always as it is."""
    if len(y) <= _POINTS:
        return t, y
    edges = np.linspace(0, len(y), _POINTS + 1).round().astype(int)[:-1]
    counts = np.diff(np.r_[edges, len(y)])
    means_t, means = np.add.reduceat(t, edges) / counts, np.add.reduceat(y, edges) / counts
    return np.r_[t[0], means_t[1:-1], t[-1]], np.r_[means[0], means[1:-1], y[-1]]


def _began(t: _Array, y: _Array, rest: float) -> int:
    """Return from which value on it grows, after a level that it held; 0: from the first one."""
    n = len(y)
    if n < _FEWEST or float(np.ptp(y)) <= rest:
        return 0
    centred = t - t.mean()
    slope = float(centred @ y) / float(centred @ centred)
    straight = float(np.sum((y - y.mean() - slope * centred) ** 2))
    best, where = straight * _HINGE, 0
    for k in range(2, n - 1):
        x = np.maximum(0.0, t - t[k])
        x = x - x.mean()
        rise = float(x @ y) / float(x @ x)
        left = float(np.sum((y - y.mean() - rise * x) ** 2))
        if rise > 0.0 and left < best:
            best, where = left, k
    return where


def _slope(t: _Array, y: _Array) -> tuple[float, float, float]:
    """Theil-Sen slope (Sen 1968) with its 95 % interval by the spread of the residuals."""
    i, j = np.triu_indices(len(y), 1)
    dt = t[j] - t[i]
    good = dt > 0
    if not good.any():
        return 0.0, 0.0, 0.0
    slope = float(np.median((y[j] - y[i])[good] / dt[good]))
    residuals = y - slope * t
    residuals = residuals - residuals.mean()
    spread = float(np.sum((t - t.mean()) ** 2))
    if len(y) < 3 or spread <= 0.0:
        return slope, slope, slope
    error = math.sqrt(float(residuals @ residuals) / (len(y) - 2) / spread)
    return slope, slope - 1.96 * error, slope + 1.96 * error


def _rose(t: _Array, y: _Array, rest: float) -> tuple[int, int]:
    """Return in how many of at most `_STEPS` stretches of equal length it rose."""
    steps = min(_STEPS, len(y) - 1)
    edges = np.linspace(float(t[0]), float(t[-1]), steps + 1)
    change = np.diff(np.interp(edges, t, y))
    least = max(0.1 * float(y[-1] - y[0]) / steps, 0.1 * rest)
    return int((change > least).sum()), steps
