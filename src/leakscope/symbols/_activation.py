# SPDX-License-Identifier: Apache-2.0
"""What debug information says of one function that is active at an address."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Activation"]


@dataclass(frozen=True, slots=True)
class Activation:
    """One function at an address; None where the file does not say."""

    name: str | None
    file: str | None
    line: int | None
    column: int | None
