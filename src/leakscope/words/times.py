# SPDX-License-Identifier: Apache-2.0
"""Durations, measured and foretold."""

from __future__ import annotations

__all__ = ["duration_text", "seconds_text"]


def duration_text(nanoseconds: int) -> str:
    """Return a duration of whole nanoseconds, as `seconds_text` does."""
    return seconds_text(nanoseconds / 1e9)


def seconds_text(seconds: float) -> str:
    """Return a duration in at most two units: "4.2 ms", "12.3 s", "2 h 5 min", "46 h"."""
    seconds = max(seconds, 0.0)
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f}".removesuffix(".0") + " ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 10:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if hours < 48:
        return f"{round(seconds / 3600)} h"
    days, hours = divmod(hours, 24)
    return f"{days:,} days {hours} h" if hours else f"{days:,} days"
