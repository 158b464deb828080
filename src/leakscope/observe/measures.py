# SPDX-License-Identifier: Apache-2.0
"""What one pass over the machine read."""

from __future__ import annotations

from dataclasses import dataclass

from leakscope.model.measures import Measure

__all__ = ["Measure", "Pass"]


@dataclass(frozen=True, slots=True)
class Pass:
    """Everything read at one moment, and what reading it cost."""

    time_ns: int  # CLOCK_BOOTTIME
    measures: tuple[Measure, ...]
    processes: int
    cpu_s: float
    wall_s: float
    missing: tuple[str, ...] = ()
