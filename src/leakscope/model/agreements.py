# SPDX-License-Identifier: Apache-2.0
"""What two tools say of one program, side by side, and why they differ where they do."""

from __future__ import annotations

from dataclasses import dataclass

from leakscope.model.findings import Finding

__all__ = ["Agreement", "Opinion", "SideBySide"]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one tool says of a place; bytes and blocks."""

    verdict: str  # "lost", "held", or a verdict of leakscope's
    bytes: int
    count: int | None  # None: the tool does not count blocks


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One place. `ours` or `theirs` is None where that side says nothing of it."""

    finding: Finding  # for its stack: ours, where there is one
    ours: Opinion | None
    theirs: Opinion | None
    agree: bool
    why: str | None  # they differ; also why what looks different agrees
    by_function: bool = False  # matched by the innermost function: one side has no more


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two runs of one program. The heaviest rows first, those that differ before all others."""

    tool: str
    ours: str  # what each says as a whole
    theirs: str
    rows: tuple[SideBySide, ...]
    notes: tuple[str, ...] = ()

    @property
    def differing(self) -> tuple[SideBySide, ...]:
        """The places on which they differ."""
        return tuple(row for row in self.rows if not row.agree)
