# SPDX-License-Identifier: Apache-2.0
"""How one of several recordings in a file is called."""

from __future__ import annotations

__all__ = ["file_part", "part_label"]

_BETWEEN = ", process "


def part_label(label: str, number: int, count: int) -> str:
    """Return how the `number`th of `count` recordings of the file `label` is called."""
    return label if count == 1 else f"{label}{_BETWEEN}{number}"


def file_part(label: str) -> str:
    """Return the file's name, as it was given to `part_label`."""
    return label.partition(_BETWEEN)[0]
