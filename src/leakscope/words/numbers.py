# SPDX-License-Identifier: Apache-2.0
"""Counts, shares and intervals."""

from __future__ import annotations

import math

__all__ = ["count_text", "interval_text", "number_text", "percent_text", "plural", "share_text"]


def count_text(count: int | None) -> str:
    """Return a whole number with thousands separated: "1,204"; None is not known."""
    if count is None:
        return "an unknown number"
    return f"{count:,}"


def number_text(value: float) -> str:
    """Return a number that need not be whole: "12", "1.5", "1,204"."""
    if not math.isfinite(value):
        return "?"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}".removesuffix(".0")


def plural(count: int | None, one: str, many: str | None = None) -> str:
    """Return "1 block", "1,204 blocks"; None is not known."""
    if count is None:
        return f"an unknown number of {many or one + 's'}"
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def percent_text(part: float, whole: float) -> str:
    """Return a share without pretending precision: "<1 %", "3 %", "100 %"."""
    return share_text(part / whole if whole > 0 else 0.0)


def share_text(share: float) -> str:
    """Return the same of 1: what is not all of it is never 100 %, and what is there not 0 %."""
    percent = 100.0 * share
    if not percent > 0:
        return "0 %"
    if percent < 1:
        return "<1 %"
    return f"{min(int(percent), 99) if share < 1 else round(percent)} %"


def interval_text(low: str, high: str) -> str:
    """Join two amounts, naming a shared unit once: "3.8 to 4.4 KiB/s"."""
    number, _, unit = low.partition(" ")
    return f"{number if unit and high.endswith(' ' + unit) else low} to {high}"
