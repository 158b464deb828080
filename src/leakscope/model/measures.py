# SPDX-License-Identifier: Apache-2.0
"""One value of one gauge at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leakscope.model.series import Subject

__all__ = ["Measure"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One value of one gauge. A `sparse` gauge is not read in every pass."""

    subject: Subject
    metric: str
    unit: str  # "bytes" or "count"
    value: int
    sparse: bool = False
