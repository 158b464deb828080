# SPDX-License-Identifier: Apache-2.0
"""What was seen of Java virtual machines that run: gauges over time, classes, whose growth it is."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from leakscope.model.findings import Evidence, Verdict
from leakscope.model.series import Trend

__all__ = ["ClassCourse", "GrowthOf", "MachineFacts", "MachineSeen", "MachineWatched"]


class GrowthOf(enum.StrEnum):
    """Whose growth it is."""

    HEAP = "the Java heap"
    CLASSES = "class data (metaspace)"
    THREADS = "threads"
    BUFFERS = "direct buffers"
    UNSAFE = "memory that Java code takes outside the heap (Unsafe)"
    MACHINE = "the virtual machine itself"
    NATIVE = "native code that the virtual machine does not track"


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """One virtual machine now. Sizes in bytes; None: it does not tell us."""

    pid: int
    user: str
    name: str
    version: str
    heap_used: int | None  # after the last collection
    heap_most: int | None
    collections: int | None  # None as well: it counts something else
    full_collections: int | None
    collecting_s: float
    metaspace: int | None
    classes: int | None
    threads: int | None
    memory: int | None  # private memory, swap included
    unseen: str | None  # why it does not tell us
    remark: str | None = None  # how what it tells is to be read


@dataclass(frozen=True, slots=True)
class MachineSeen:
    """A virtual machine that was looked at for a while, with a verdict on each gauge."""

    facts: MachineFacts
    trends: tuple[Trend, ...]


@dataclass(frozen=True, slots=True)
class ClassCourse:
    """A class in several histograms of what lives."""

    class_name: str
    counts: tuple[int, ...]
    sizes: tuple[int, ...]
    verdict: Verdict
    confidence: float
    rate: float | None
    sentence: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class MachineWatched:
    """The answer of `java watch`. Changes are (what, first, last, unit)."""

    seen: MachineSeen
    seconds: float
    classes: tuple[ClassCourse, ...]
    changes: tuple[tuple[str, float, float, str], ...]
    growth_of: GrowthOf | None  # None: nothing grows
    verdict: Verdict | None
    sentence: str
    next_step: str
    histograms: int
    paused_ms: float  # the longest histogram took so long
    notes: tuple[str, ...]
