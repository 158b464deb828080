# SPDX-License-Identifier: Apache-2.0
"""Sizes and times in the sentences of a verdict."""

from __future__ import annotations

__all__ = ["amount", "duration"]


def amount(value: float, unit: str) -> str:
    if unit != "bytes":
        return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"
    for name in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or name == "TiB":
            break
        value /= 1024
    return f"{value:.3g} {name}" if abs(value) < 1000 else f"{value:.0f} {name}"


def duration(seconds: float) -> str:
    for size, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size or (size != 86400.0 and seconds >= size):
            return (
                f"{seconds / size:.2g} {name}"
                if seconds < 10 * size
                else f"{seconds / size:.0f} {name}"
            )
    return f"{seconds:.0f} s"
