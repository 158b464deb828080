# SPDX-License-Identifier: Apache-2.0
"""The kernel's own clock, in which it tells when an object was allocated (jiffies)."""

from __future__ import annotations

import re
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.proc.text import read_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Ticks", "read_ticks"]

_JIFFIES = re.compile(r"jiffies: (\d{1,20})")
_RATES = (100, 250, 300, 1000)  # that CONFIG_HZ can be; the kernel starts five minutes before zero
_WRAP = 1 << 32
_HEADER_LINES = 4000


@dataclass(frozen=True, slots=True)
class Ticks:
    """`now` in ticks, `hz` of them in a second."""

    now: int
    hz: int

    def age_s(self, jiffies: int) -> float | None:
        """Return how old something allocated then is; None for a time that cannot be."""
        bits = 64 if struct.calcsize("P") == 8 else 32
        passed = (self.now - jiffies) % (1 << bits)
        age = passed / self.hz
        return age if age <= self.now / self.hz + 600 else None


def read_ticks(config: Mapping[str, str] | None = None) -> Ticks | None:
    """Return the kernel's clock; None where neither it nor its configuration tells it."""
    up = time.clock_gettime(time.CLOCK_MONOTONIC)
    shown = None
    for number, line in enumerate(read_lines("/proc/timer_list")):
        found = _JIFFIES.search(line)
        if found is not None:
            shown = int(found[1])
            break
        if number > _HEADER_LINES:
            break
    known = (config or {}).get("CONFIG_HZ", "")
    if known.isascii() and known.isdecimal() and 0 < int(known[:6]) <= 10_000:
        hz = int(known[:6])
    elif shown is not None:
        hz = min(_RATES, key=lambda rate: abs(_started(rate) + up * rate - shown))
    else:
        return None
    return Ticks(shown if shown is not None else round(_started(hz) + up * hz), hz)


def _started(hz: int) -> int:
    return _WRAP - 300 * hz
