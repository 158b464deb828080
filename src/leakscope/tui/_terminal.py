# SPDX-License-Identifier: Apache-2.0
"""Whether the terminal of a live screen is still there."""

from __future__ import annotations

import select
import sys

__all__ = ["is_gone"]


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
