# SPDX-License-Identifier: Apache-2.0
"""What a watch found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    command: str = "leakscope watch"  # that watches all of this again
