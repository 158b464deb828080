# SPDX-License-Identifier: Apache-2.0
"""Sizes as people read them, the same in a verdict's sentence and in every report."""

from __future__ import annotations

import math

from leakscope.words.numbers import number_text

__all__ = ["amount_text", "bytes_text", "signed_amount", "typed_size"]

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


def amount_text(value: float, unit: str) -> str:
    """Return a value of a gauge: bytes as a size, anything else as a number."""
    return bytes_text(value) if unit == "bytes" else number_text(value)


def signed_amount(value: float, unit: str) -> str:
    """Return a change of a gauge, such as "+4.1 MiB"; empty for none."""
    if not round(value):
        return ""
    return ("+" if value > 0 else "-") + amount_text(abs(value), unit)


def typed_size(size: int) -> str:
    """Return a size as somebody types it for an option, exact: "512KiB", "1000"."""
    unit = ""
    for name in _UNITS:
        if not size or size % 1024:
            break
        size, unit = size // 1024, name
    return f"{size}{unit}"
