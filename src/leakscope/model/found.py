# SPDX-License-Identifier: Apache-2.0
"""What `find` answers on one process: does it leak, what, how fast, and who holds it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from leakscope.model.census import HeapGrowth
from leakscope.model.earlier import Earlier
from leakscope.model.growth import Growth

__all__ = ["Found", "FoundVerdict", "GrownMapping", "Rival"]


class FoundVerdict(enum.StrEnum):
    """What the evidence says about a process."""

    LEAK = "leak"  # lost bytes grow
    GROWING = "growing"  # something grows, and no proof that nobody needs it
    KEPT = "kept by the allocator"  # free inside the allocator, more than in use
    CLEAN = "no growth"


@dataclass(frozen=True, slots=True)
class GrownMapping:
    """Mappings of like name and size of which more is in memory than before. Sizes in bytes."""

    name: str  # "anonymous memory", "/dev/shm/ring"
    size: int  # of each; 0 when they differ
    count_then: int
    count_now: int
    resident_then: int
    resident_now: int


@dataclass(frozen=True, slots=True)
class Rival:
    """Another process of the same name, and how fast it grew."""

    pid: int
    rate: float  # bytes a second


@dataclass(frozen=True, slots=True)
class Found:
    """The answer on one process. Times are seconds, sizes bytes, rates bytes a second."""

    pid: int
    name: str  # as people call it: "python3 manage.py (shop.service)"
    program: str  # what to start again under `leakscope run`
    verdict: FoundVerdict
    kind: str  # what grows: "heap (glibc 2.36)", "open descriptors", "shared memory"; "" if nothing
    rate: float  # of what grows, in its unit; 0 when nothing grows
    seconds: float  # of looking, all together
    stopped_ms: float
    next_step: str
    growth: Growth | None = None  # of private memory
    others: tuple[Growth, ...] = ()  # other gauges that grow, fastest first
    heap: HeapGrowth | None = None  # None: it was not walked
    mappings: tuple[GrownMapping, ...] = ()  # that grew outside the heap
    descriptors: tuple[tuple[str, int], ...] = ()  # what they point to, how many came
    runtimes: tuple[str, ...] = ()  # a sentence on each run-time with a heap of its own
    settings: tuple[str, ...] = ()  # of the allocator, that would give memory back
    rivals: tuple[Rival, ...] = ()  # other processes of that name
    earlier: Earlier | None = None  # the heap before it was attached to; None: it was not walked
    unseen: tuple[str, ...] = ()  # what was not done or not seen, and why

    @property
    def status(self) -> int:
        """Exit status: 0 nothing grows, 1 a leak, 3 growth without a proof."""
        if self.verdict is FoundVerdict.LEAK:
            return 1
        return 3 if self.kind else 0
