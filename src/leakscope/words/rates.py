# SPDX-License-Identifier: Apache-2.0
"""Growth, in the unit of time that keeps it readable."""

from __future__ import annotations

import math

from leakscope.words.sizes import amount_text

__all__ = ["rate_text", "signed_rate"]

_UNITS = {
    True: ((1.0, "s"), (3600.0, "h"), (86_400.0, "day")),
    False: ((1.0, "s"), (60.0, "min"), (3600.0, "h"), (86_400.0, "day")),
}


def rate_text(rate: float, unit: str = "bytes", per: str | None = None) -> str:
    """Return a rate a second of bytes or of things: "4.1 KiB/s", "9 B/day", "12/min".

    `per` names the unit of time, for rates that are to be compared.
    """
    if not math.isfinite(rate):
        return "?"
    units = _UNITS[unit == "bytes"]
    size = abs(rate)
    fitting = (u for u in units if (size * u[0] >= 1 if per is None else u[1] == per))
    seconds, name = next(fitting, units[-1 if size else 0])
    return f"{'-' if rate < 0 else ''}{amount_text(size * seconds, unit)}/{name}"


def signed_rate(rate: float, unit: str = "bytes") -> str:
    """Return the same with its sign: "+4.0 MiB/s", "-12/min"."""
    return f"{'' if rate < 0 else '+'}{rate_text(rate, unit)}"
