# SPDX-License-Identifier: Apache-2.0
"""What a watch found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from leakscope.model.census import HeapGrowth
    from leakscope.model.growth import Growth
    from leakscope.model.series import Cause, Series, Subject, Trend

__all__ = ["Watched"]


@dataclass(frozen=True, slots=True)
class Watched:
    """Everything a report on a watch shows. `held` says what a subject holds, by its key."""

    trends: Sequence[Trend]
    causes: Sequence[Cause]
    watched_s: float
    cost: str
    look_s: float = 0.0
    missing: Sequence[str] = ()
    killed: Sequence[tuple[Subject, int]] = ()  # where the kernel ran out of memory, how often
    held: Mapping[str, Sequence[str]] = field(default_factory=dict)
    reserved: Sequence[tuple[Series, Growth]] = ()  # address space that grows
    heaps: Mapping[int, HeapGrowth] = field(default_factory=dict)  # walked twice, by pid
    unwalked: Mapping[int, str] = field(default_factory=dict)  # why a heap was not, by pid
    command: str = "leakscope watch"  # that watches all of this again

    @property
    def losing(self) -> tuple[HeapGrowth, ...]:
        """The heaps whose lost bytes grew and of whose process no gauge is known to leak."""
        known = {cause.trend.series.subject.pid for cause in self.causes}
        return tuple(
            heap for pid, heap in self.heaps.items() if heap.proves_leak and pid not in known
        )

    @property
    def leak_count(self) -> int:
        """How many leaks are proven, by gauges and by heaps."""
        return len(self.causes) + len(self.losing)
