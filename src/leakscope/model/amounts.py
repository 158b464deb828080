# SPDX-License-Identifier: Apache-2.0
"""Sums of what may not be known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["sum_known"]


def sum_known(values: Iterable[int | None]) -> int | None:
    """Return the sum, None when one of the values is not known."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total
