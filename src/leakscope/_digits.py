# SPDX-License-Identifier: Apache-2.0
"""Whether a text is a whole number as computers write it: digits of other scripts are none."""

from __future__ import annotations

__all__ = ["is_number"]


def is_number(text: str) -> bool:
    """Return whether `text` is one or more of the digits 0 to 9."""
    return text.isascii() and text.isdecimal()
