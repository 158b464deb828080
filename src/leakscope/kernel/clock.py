# SPDX-License-Identifier: Apache-2.0
"""The kernel's own clock, in which it tells when an object was allocated (jiffies)."""

from __future__ import annotations

import re
import struct
import time
from dataclasses import dataclass

from leakscope.proc.text import read_lines

__all__ = ["Ticks", "read_ticks"]

_JIFFIES = re.compile(r"jiffies: (\d{1,20})")
_COARSE = 6  # CLOCK_MONOTONIC_COARSE
_WRAP = 1 << 32  # the count begins five minutes before it
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


def read_ticks() -> Ticks:
    """Return the kernel's clock. Its coarse clocks step with it, so their resolution is a tick."""
    hz = max(1, round(1.0 / time.clock_getres(_COARSE)))
    now = _started(hz) + round(time.clock_gettime(time.CLOCK_MONOTONIC) * hz)
    for number, line in enumerate(read_lines("/proc/timer_list")):
        found = _JIFFIES.search(line)
        if found is not None:
            return Ticks(int(found[1]), hz)
        if number > _HEADER_LINES:
            break
    return Ticks(now, hz)


def _started(hz: int) -> int:
    return _WRAP - 300 * hz
