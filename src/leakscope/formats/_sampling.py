# SPDX-License-Identifier: Apache-2.0
"""What samples of a heap stand for: the estimate of jemalloc, gperftools and Go."""

from __future__ import annotations

import math

__all__ = ["unsampled"]


def unsampled(count: int, size: int, period: int) -> tuple[float, float]:
    """Return the estimated number of blocks, and their bytes, that samples of one stack stand for.

    A block of s bytes is sampled with probability 1 - exp(-s / period), `period` being the mean
    number of bytes between samples; up to 1 every block is. Stacks are scaled one by one: the mean
    size of a sum of them says nothing.
    """
    if count <= 0 or size <= 0 or period <= 1:
        return float(count), float(size)
    factor = 1 / -math.expm1(-size / count / period)
    return count * factor, size * factor
