# SPDX-License-Identifier: Apache-2.0
"""The terminal of a live screen: whether it is still there, and its own colours."""

from __future__ import annotations

import select
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["is_gone", "theme_of"]

_THEMES = ("ansi-dark", "textual-ansi")  # what versions of textual call it


def theme_of(available: Container[str], otherwise: str) -> str:
    """Return the theme that paints with the terminal's own colours, else `otherwise`."""
    return next((name for name in _THEMES if name in available), otherwise)


def is_gone() -> bool:
    """Whether the other end of the terminal was closed, which not everybody gets a signal for.

    Textual would go on to read the end of its input as fast as it can.
    """
    if sys.__stdin__ is None:
        return False
    poll = select.poll()
    try:
        poll.register(sys.__stdin__.fileno(), 0)
    except (OSError, ValueError):
        return False
    return any(event & select.POLLHUP for _, event in poll.poll(0))
