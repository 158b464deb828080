# SPDX-License-Identifier: Apache-2.0
"""What differs between two looks at a program's memory: two builds, two runs, two tools."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from leakscope.model.frames import Frame

__all__ = ["Amount", "Change", "Comparison", "Side", "StackChange"]


class Change(enum.StrEnum):
    """How the memory of one call stack changed."""

    NEW = "new"
    GROWN = "grown"
    SHRUNK = "shrunk"
    GONE = "gone"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Amount:
    """What one side holds at a stack, in bytes and blocks. None: that side does not know."""

    held_bytes: int | None
    held_count: int | None
    lost_bytes: int | None = None
    lost_count: int | None = None
    low_bytes: int | None = None  # 95 % interval of a sampled estimate of what is held …
    high_bytes: int | None = None  # … None where it is exact


@dataclass(frozen=True, slots=True)
class StackChange:
    """One call stack, and what it holds on both sides. None: it is not there.

    `measure` is "lost" where the change is one of lost memory, else "held". `renamed` tells that
    the stacks of both sides differ in frames that a compiler leaves out, or in what a tool tells.
    """

    change: Change
    measure: str
    before: Amount | None
    after: Amount | None
    kind: str
    verdict_before: str | None
    verdict_after: str | None
    stable_fingerprint: str
    stack: tuple[Frame, ...]  # of the newer side, where it is there
    source: Frame | None
    renamed: bool = False
    p_value: float | None = None  # of sampled amounts: how likely chance alone does this

    @property
    def bytes_before(self) -> int:
        """What it held, or had lost, before: 0 where it was not there."""
        return self._bytes(self.before)

    @property
    def bytes_after(self) -> int:
        """The same of the newer side."""
        return self._bytes(self.after)

    @property
    def count_before(self) -> int | None:
        """The blocks of `bytes_before`, None where they are not counted."""
        return self._count(self.before)

    @property
    def count_after(self) -> int | None:
        """The same of the newer side."""
        return self._count(self.after)

    @property
    def bytes(self) -> int:
        """By how much it changed: negative where there is less."""
        return self.bytes_after - self.bytes_before

    def _bytes(self, amount: Amount | None) -> int:
        if amount is None:
            return 0
        found = amount.lost_bytes if self.measure == "lost" else amount.held_bytes
        return found or 0

    def _count(self, amount: Amount | None) -> int | None:
        if amount is None:
            return 0
        return amount.lost_count if self.measure == "lost" else amount.held_count


@dataclass(frozen=True, slots=True)
class Side:
    """What stands on one side. `limits` are sentences on what it cannot tell."""

    labels: tuple[str, ...]
    live_bytes: int | None
    live_count: int | None
    duration_ns: int | None  # of the longest
    sampled: bool
    limits: tuple[str, ...] = ()
    blind: str | None = None  # why it says nothing at all; None: it does


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides compared, the largest changes first; what is the same is counted only."""

    before: Side
    after: Side
    measure: str  # "lost and held", "held", "lost", "nothing"
    changes: tuple[StackChange, ...]
    same_count: int
    same_bytes: int
    noise_count: int  # changes of estimates that chance alone may make
    quiet_count: int  # what is known and suppressed, and was left out
    notes: tuple[str, ...] = ()
    same: tuple[StackChange, ...] = field(default=(), repr=False)  # the stacks of `same_count`

    def of(self, change: Change) -> tuple[StackChange, ...]:
        """Return the changes of one kind."""
        return tuple(each for each in self.changes if each.change is change)

    @property
    def undecided(self) -> bool:
        """Whether it says neither that something changed nor that nothing did."""
        return self.measure == "nothing" or (
            self.before.blind is not None or self.after.blind is not None
        )
