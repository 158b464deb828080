# SPDX-License-Identifier: Apache-2.0
"""Sizes as people read them, the same in a verdict's sentence and in every report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["bytes_text", "sum_known"]

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def bytes_text(size: float) -> str:
    """Return a size with binary units: "512 B", "4.1 KiB", "318 MiB"."""
    if not math.isfinite(size):
        return "?"
    if size < 0:
        return "-" + bytes_text(-size)
    if size < 1023.5:
        return f"{size:,.0f} B"
    for unit in _UNITS:
        size /= 1024
        if size < 1023.5 or unit == _UNITS[-1]:
            # Three significant digits: enough to compare, few enough to read.
            return f"{size:,.1f} {unit}" if size < 99.95 else f"{size:,.0f} {unit}"
    raise AssertionError("unreachable")


def sum_known(values: Iterable[int | None]) -> int | None:
    """Return the sum, None when one of the values is not known."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total
