# SPDX-License-Identifier: Apache-2.0
"""The native part of the scanner: its functions and their types (native/scan/*.c)."""

from __future__ import annotations

import ctypes
from functools import cache

from leakscope import _native

__all__ = ["READER", "library"]

_WORD, _SIZE, _POINTER, _INT = ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
READER = ctypes.CFUNCTYPE(_WORD, _WORD)
"""Called with an address; returns the word there, 0 when it cannot be read."""

_FUNCTIONS = {
    # mark.c
    "new": (_POINTER, [_INT, _POINTER, _SIZE, _POINTER, _POINTER, _INT, _SIZE, _POINTER, _POINTER,
                       _WORD, _POINTER, _SIZE]),
    "free": (None, [_POINTER]),
    "roots": (None, [_POINTER, _POINTER, _SIZE]),
    "words": (None, [_POINTER, _POINTER, _SIZE, _WORD]),
    "only_resident": (None, [_POINTER, _POINTER, _SIZE]),
    "keep_from": (None, [_POINTER, _POINTER]),
    "follow": (_INT, [_POINTER]),
    "disguised": (ctypes.c_long, [_POINTER, _POINTER, _SIZE, _SIZE]),
    "sweep": (_INT, [_POINTER]),
    "scanned": (_WORD, [_POINTER]),
    "unread": (_WORD, [_POINTER]),
    # chunks.c
    "walk_chunks": (_SIZE, [ctypes.c_char_p, _WORD, _WORD, _POINTER, _WORD, _POINTER, _POINTER,
                            _POINTER, _SIZE, _INT, _WORD, _WORD, _POINTER, _POINTER, _POINTER]),
    # lists.c
    "follow_lists": (_INT, [_POINTER, _POINTER, _INT, _SIZE, _POINTER, _POINTER, _SIZE, _INT,
                            _POINTER, READER]),
    # pages.c
    "pages": (ctypes.c_long, [_INT, _POINTER, _SIZE, _INT, _WORD, _POINTER, _SIZE, _POINTER]),
    # cancel.c
    "cancel": (None, [ctypes.c_bool]),
    # join.c
    "join": (None, [_POINTER, _SIZE, _POINTER, _SIZE, _POINTER]),
    # copy.c
    "copy": (_WORD, [_INT, _POINTER, _SIZE, _POINTER, _WORD, _POINTER]),
    # vanish.c
    "watch": (_INT, [_SIZE, _SIZE]),
    "vanished": (ctypes.c_bool, []),
    "unwatch": (None, []),
}  # fmt: skip


@cache
def library() -> ctypes.CDLL:
    """Return the library; its functions are called lss_new, lss_free and so on."""
    loaded = ctypes.CDLL(str(_native.path("libleakscope-scan.so")))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(loaded, f"lss_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded
