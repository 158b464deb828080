# SPDX-License-Identifier: Apache-2.0
"""Reading a mapped file that somebody cuts off meanwhile, without dying of SIGBUS.

The work is done by native/scan/vanish.c. One mapping at a time.
"""

from __future__ import annotations

import ctypes

from leakscope import _native

__all__ = ["unwatch", "vanished", "watch"]


def watch(start: int, end: int) -> None:
    """Let what the file loses read as zeros in the mapping from `start` to `end`."""
    if _library().lss_watch(start, end):
        raise OSError("SIGBUS cannot be handled")


def vanished() -> bool:
    """Whether a part of the mapping was gone when it was read."""
    return bool(_library().lss_vanished())


def unwatch() -> None:
    """Handle SIGBUS as before."""
    _library().lss_unwatch()


_loaded: ctypes.CDLL | None = None


def _library() -> ctypes.CDLL:
    global _loaded  # noqa: PLW0603 - loaded once a process
    if _loaded is None:
        library = ctypes.CDLL(str(_native.path("libleakscope-scan.so")))
        library.lss_watch.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
        library.lss_vanished.restype = ctypes.c_bool
        library.lss_unwatch.restype = None
        _loaded = library
    return _loaded
