# SPDX-License-Identifier: Apache-2.0
"""Reading a mapped file that somebody cuts off meanwhile, without dying of SIGBUS.

The work is done by native/scan/vanish.c. One mapping at a time.
"""

from __future__ import annotations

from leakscope.target.library import library

__all__ = ["unwatch", "vanished", "watch"]


def watch(start: int, end: int) -> None:
    """Let what the file loses read as zeros in the mapping from `start` to `end`."""
    if library().lss_watch(start, end):
        raise OSError("SIGBUS cannot be handled")


def vanished() -> bool:
    """Whether a part of the mapping was gone when it was read."""
    return bool(library().lss_vanished())


def unwatch() -> None:
    """Handle SIGBUS as before."""
    library().lss_unwatch()
