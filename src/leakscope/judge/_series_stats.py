# SPDX-License-Identifier: Apache-2.0
"""Robust statistics of one irregular series: decimation, slope, trend test, saturation, steps, floors, season.

Everything is a pure function of arrays. Time is in hours, values in the unit of the series.
"""

from __future__ import annotations

import math
from collections.abc import Callable  # noqa: TC003 (typing.get_type_hints works)
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = [
    "Line",
    "benjamini_hochberg",
    "daily_strength",
    "daily_wave",
    "decimate",
    "fit_line",
    "floors",
    "move_together",
    "relaxation",
    "saturation",
    "step_at",
    "warm_up_and_line",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """A robust straight line: slope per hour, its standard error, Mann-Kendall z and one-sided p of "rises"."""

    slope: float
    error: float
    z: float
    p: float
    sigma: float  # of the residuals
    inflation: float  # variance inflation by autocorrelation, >= 1


_ROUNDING = 1e-11
_SURE = 2e-4  # below it the signs alone decide


@lru_cache(maxsize=128)
def _pairs(n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    return np.triu_indices(n, 1)


def decimate(t: Array, v: Array, bins: int) -> tuple[Array, Array, Array]:
    """Mean time, 10 %-trimmed mean and minimum of `bins` groups of (nearly) equal count, oldest first."""
    size = len(v) // bins
    if size <= 1:
        return t, v, v
    skip = len(v) - size * bins  # the oldest few, so that the newest always count
    groups = np.sort(v[skip:].reshape(bins, size), axis=1)
    trim = size // 10
    middle = groups[:, trim : size - trim].mean(axis=1)
    return t[skip:].reshape(bins, size).mean(axis=1), middle, groups[:, 0].copy()


def _inflation(residuals: Array) -> float:
    """How many times the variance of a sum grows by autocorrelation (AR(1) of lag 1, or the positive lags' sum)."""
    n = len(residuals)
    x = residuals - residuals.mean()
    power = float(x @ x)
    if power <= 0.0 or n < 6:
        return 1.0
    total = 1.0
    first = 0.0
    for lag in range(1, max(2, n // 4)):
        r = float(x[lag:] @ x[:-lag]) / power
        if lag == 1:
            # Kendall (1954): the estimate is low by (1 + 4 r) / n when a trend was removed.
            first = min(0.97, r + (1.0 + 4.0 * r) / n)
            if first < 1.0 / math.sqrt(n):
                return 1.0  # within what white noise shows
        if r <= 0.0:
            break
        total += 2.0 * r
    return max(1.0, total, (1.0 + first) / (1.0 - first))


def fit_line(t: Array, y: Array) -> Line:
    """Theil-Sen slope, and Mann-Kendall with its variance corrected by the residuals' autocorrelation.

    Source: Sen 1968; Hamed and Rao 1998 for the effective sample size; Cox and Stuart 1955 for signs.
    """
    n = len(y)
    i, j = _pairs(n)
    dt, dy = t[j] - t[i], y[j] - y[i]
    good = dt > 0
    if n < 3 or not good.any():
        return Line(0.0, math.inf, 0.0, 1.0, 0.0, 1.0)
    slope = float(np.median(dy[good] / dt[good]))
    residuals = y - slope * t
    residuals = residuals - np.median(residuals)
    # What the sums of floating-point numbers leave of a straight line is no noise.
    residuals[np.abs(residuals) < _ROUNDING * float(np.max(np.abs(y)))] = 0.0
    sigma = float(np.sqrt(residuals @ residuals / max(1, n - 2)))
    inflation = _inflation(residuals)
    spread = float(np.std(t)) * math.sqrt(n)
    error = sigma * math.sqrt(inflation) / spread if spread > 0 else math.inf
    s = float(np.sign(dy).sum())
    variance = n * (n - 1) * (2 * n + 5) / 18.0 * inflation
    z = (s - math.copysign(1.0, s)) / math.sqrt(variance) if s else 0.0
    p = 0.5 * math.erfc(z / math.sqrt(2.0))
    # A curve that a line fits badly has autocorrelated residuals without any noise. Whether nearly
    # every value is above the one before it does not depend on the line.
    signs = _sign_test(y)
    if signs < min(p, _SURE):
        p = signs
        z = NormalDist().inv_cdf(1.0 - max(signs, 1e-15))
    return Line(slope, error, z, p, sigma, inflation)


def _sign_test(y: Array) -> float:
    """One-sided p that so many values exceed the one before: valid for noise and for random walks."""
    change = np.diff(y)
    up, down = int((change > 0).sum()), int((change < 0).sum())
    n = up + down
    return sum(math.comb(n, k) for k in range(up, n + 1)) / 2.0**n if n else 1.0


def saturation(t: Array, y: Array) -> tuple[float, float, float]:
    """Best a + b (1 - exp(-t/tau)): (tau, its squared error over the straight line's, fraction of b reached)."""
    span = float(t[-1] - t[0])
    x = t - t[0]
    line = np.polynomial.polynomial.polyfit(x, y, 1)
    straight = float(np.sum((y - line[0] - line[1] * x) ** 2))
    if span <= 0 or straight <= len(y) * (_ROUNDING * float(np.max(np.abs(y)))) ** 2:
        return math.inf, 1.0, 0.0
    yc = y - y.mean()
    best = (math.inf, 1.0, 0.0)
    for tau in span * np.geomspace(0.03, 2.0, 16):
        f = 1.0 - np.exp(-x / tau)
        fc = f - f.mean()
        b = float(fc @ yc) / float(fc @ fc)
        ratio = float(np.sum((yc - b * fc) ** 2)) / straight
        if b > 0 and ratio < best[1]:
            best = (float(tau), ratio, float(f[-1]))
    return best


def warm_up_and_line(t: Array, y: Array) -> tuple[float, float, float]:
    """Best a + b (1 - exp(-t/tau)) + c t with tau below a sixth of the span: (tau, squared error over the line's, c)."""
    span = float(t[-1] - t[0])
    x = t - t[0]
    line = np.polynomial.polynomial.polyfit(x, y, 1)
    straight = float(np.sum((y - line[0] - line[1] * x) ** 2))
    best = (math.inf, 1.0, 0.0)
    if span <= 0 or straight <= 0:
        return best
    for tau in span * np.geomspace(0.02, 0.16, 8):
        design = np.column_stack([np.ones_like(x), 1.0 - np.exp(-x / tau), x])
        found = np.linalg.lstsq(design, y, rcond=None)[0]
        ratio = float(np.sum((y - design @ found) ** 2)) / straight
        if found[1] > 0 and ratio < best[1]:
            best = (float(tau), ratio, float(found[2]))
    return best


def relaxation(t: Array, y: Array) -> tuple[float, float]:
    """(z of the bend, slope late / slope early): negative z bends down. A quadratic fit, autocorrelation handled."""
    x = (t - t[0]) / max(t[-1] - t[0], 1e-12) * 2 - 1
    basis = np.stack([np.ones_like(x), x, x * x], axis=1)
    coefficients, *_ = np.linalg.lstsq(basis, y, rcond=None)
    residuals = y - basis @ coefficients
    sigma2 = float(residuals @ residuals) / max(1, len(y) - 3) * _inflation(residuals)
    error = math.sqrt(max(sigma2 * float(np.linalg.pinv(basis.T @ basis)[2, 2]), 0.0))
    bend = float(coefficients[2])
    z = bend / error if error > 0 else 0.0
    early, late = float(coefficients[1]) - bend, float(coefficients[1]) + bend
    return z, late / early if early > 0 else math.inf


def step_at(y: Array) -> tuple[int, float, float]:
    """The best single change of level: (index of the first value after, squared error over a line's, height)."""
    n = len(y)
    x = np.arange(n, dtype=np.float64)
    line = np.polynomial.polynomial.polyfit(x, y, 1)
    straight = float(np.sum((y - line[0] - line[1] * x) ** 2))
    total = np.cumsum(y)
    k = np.arange(3, n - 2)
    if not len(k) or straight <= 0:
        return 0, 1.0, 0.0
    left = total[k - 1] / k
    right = (total[-1] - total[k - 1]) / (n - k)
    gain = k * (n - k) / n * (right - left) ** 2
    best = int(np.argmax(gain))
    rest = float(np.sum((y - y.mean()) ** 2)) - float(gain[best])
    return int(k[best]), max(rest, 0.0) / straight, float(right[best] - left[best])


def floors(t: Array, y: Array) -> tuple[Array, Array, float]:
    """Times and values of the lowest points between sharp drops, and the median drop (0 if there is no sawtooth)."""
    empty = np.empty(0)
    if len(y) < 8:
        return empty, empty, 0.0
    change = np.diff(y)
    typical = 1.4826 * float(np.median(np.abs(change - np.median(change))))
    span = float(np.ptp(y))
    sharp = np.flatnonzero(change < -max(6.0 * typical, 0.2 * span))
    # neighbouring sharp changes are one drop
    sharp = sharp[np.r_[True, np.diff(sharp) > 2]] if len(sharp) else sharp
    if len(sharp) < 3:
        return empty, empty, 0.0
    ends = np.r_[sharp[1:], len(y) - 1]
    at = np.array(
        [
            a + 1 + int(np.argmin(y[a + 1 : b + 1]))
            for a, b in zip(sharp, ends, strict=True)
            if b > a
        ]
    )
    return t[at], y[at], float(np.median(-change[sharp]))


def daily_strength(t: Array, y: Array) -> float:
    """Correlation of the detrended series with itself 24 h earlier; 0 when there are less than two days."""
    span = float(t[-1] - t[0])
    if span < 44.0:
        return 0.0
    grid = np.arange(t[0], t[-1], 0.5)
    x = np.interp(grid, t, y)
    x = x - np.polynomial.polynomial.polyval(grid, np.polynomial.polynomial.polyfit(grid, x, 1))
    a, b = x[48:] - x[48:].mean(), x[:-48] - x[:-48].mean()
    if len(a) < 24:
        return 0.0
    power = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / power if power > 0 else 0.0


def daily_wave(t: Array, y: Array) -> Callable[[Array], Array]:
    """The daily rhythm of a series, to be subtracted: three harmonics of 24 h, fitted beside a line.

    Weights are re-fitted (Huber) so that a few wild values do not bend the wave.
    """
    omega = 2.0 * math.pi / 24.0

    def waves(at: Array) -> Array:
        turns = [f(omega * k * at) for k in (1, 2, 3) for f in (np.cos, np.sin)]
        return np.stack(turns, axis=1)

    design = np.column_stack([np.ones_like(t), t, waves(t)])
    weights = np.ones_like(y)
    found = np.zeros(design.shape[1])
    for _ in range(4):
        root = np.sqrt(weights)
        found = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
        rest = np.abs(y - design @ found)
        scale = 1.4826 * float(np.median(rest)) or 1.0
        weights = 1.0 / np.maximum(1.0, rest / (1.5 * scale))
    return lambda at: np.asarray(waves(at) @ found[2:])


def move_together(t: Array, y: Array, other_t: Array, other_y: Array) -> float:
    """Return the correlation of the increments of two series; 0 where they tell nothing.

    Increments are those of at most 24 equal spans of the first series. Two straight lines always
    rise together, so both have to rise in bursts (their increments spread by a third of the mean).
    """
    if len(t) < 12 or len(other_t) < 12:
        return 0.0
    edges = np.linspace(float(t[0]), float(t[-1]), min(25, len(t)))
    mine = np.diff(np.interp(edges, t, y))
    others = np.diff(np.interp(edges, other_t, other_y))
    for steps in (mine, others):
        if float(np.std(steps)) <= abs(float(np.mean(steps))) / 3.0:
            return 0.0
    return float(np.corrcoef(mine, others)[0, 1])


def benjamini_hochberg(p: Array, q: float) -> npt.NDArray[np.bool_]:
    """Which hypotheses survive at false-discovery rate `q` (Benjamini and Hochberg 1995)."""
    if not len(p):
        return np.zeros(0, dtype=bool)
    order = np.argsort(p)
    passed = p[order] <= q * np.arange(1, len(p) + 1) / len(p)
    last = int(np.flatnonzero(passed)[-1]) + 1 if passed.any() else 0
    kept = np.zeros(len(p), dtype=bool)
    kept[order[:last]] = True
    return kept
