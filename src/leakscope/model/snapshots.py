# SPDX-License-Identifier: Apache-2.0
"""Looks at memory that somebody saved: tables of who held how much, and gauges at one moment.

A snapshot says nothing about leaks. Several of one subject, in order, are a course.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from leakscope.model.frames import FrameName
from leakscope.model.measures import Measure
from leakscope.model.series import Subject, Trend

__all__ = ["Course", "GrownRow", "Row", "Snapshot", "Snapshots"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: bytes and count are None where the source does not tell them."""

    name: str
    bytes: int | None = None
    count: int | None = None
    frames: tuple[FrameName, ...] = ()
    """Where it was allocated, innermost first."""
    told: tuple[tuple[str, int], ...] = ()
    """What else the source tells of it, in bytes."""

    @property
    def key(self) -> str:
        """What tells it from all other rows of its table, in every look."""
        if len(self.frames) < 2:
            return self.name
        return " < ".join(frame.function or frame.file or "?" for frame in self.frames)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at one subject.

    The rows add up to `total` bytes and `total_count` things, where these are not None.
    """

    source: str
    """What it was read from, for people: "/proc/slabinfo"."""
    subject: Subject
    rows: tuple[Row, ...] = ()
    measures: tuple[Measure, ...] = ()
    time_ns: int | None = None
    """When it was taken, since 1970; only differences are to be trusted."""
    total: int | None = None
    total_count: int | None = None
    of: str = "bytes"
    """What the bytes of a row are: "resident", "committed"."""
    things: str = "blocks"
    """What is counted: "objects", "instances"."""
    kind: str | None = None
    """The kind of allocations that the rows are; None: they are no allocations."""
    facts: tuple[tuple[str, int, str], ...] = ()
    """Other figures: name, value, unit ("bytes" or "count")."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GrownRow:
    """One row in the first and in the last snapshot of a course."""

    name: str
    first_bytes: int | None
    last_bytes: int | None
    first_count: int | None
    last_count: int | None
    rises: int = 0
    """Steps from one snapshot to the next in which it rose; `falls` likewise."""
    falls: int = 0
    frames: tuple[FrameName, ...] = ()

    @property
    def bytes(self) -> int:
        """How many bytes more it is at the end."""
        return (self.last_bytes or 0) - (self.first_bytes or 0)

    @property
    def count(self) -> int:
        """How many more it is at the end."""
        return (self.last_count or 0) - (self.first_count or 0)


@dataclass(frozen=True, slots=True)
class Course:
    """The snapshots of one subject, in order.

    `spacing_s` is the distance that was assumed, None where the snapshots tell their times.
    """

    label: str
    snapshots: tuple[Snapshot, ...]
    grown: tuple[GrownRow, ...] = ()
    """Rows that changed, those that grew most first."""
    trends: tuple[Trend, ...] = ()
    spacing_s: float | None = None
    account: tuple[tuple[str, int, str], ...] = ()
    """The newest snapshot divided into lines that add up: name, bytes, meaning."""

    @property
    def last(self) -> Snapshot:
        """The newest snapshot."""
        return self.snapshots[-1]


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Everything that a report on saved snapshots shows."""

    courses: tuple[Course, ...]
    causes: tuple[Trend, ...] = ()
    """Trends that are leaks, without those that follow another."""
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def trends(self) -> tuple[Trend, ...]:
        """The verdicts on all gauges."""
        return tuple(trend for course in self.courses for trend in course.trends)
