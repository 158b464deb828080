# SPDX-License-Identifier: Apache-2.0
"""Finding the addresses of one reading in another one: both are sorted, and long."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from leakscope import _native

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["places_in"]


def places_in(
    wanted: npt.NDArray[np.uint64], among: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """Return where each of `wanted` stands in `among`, -1 where it does not.

    Both ascend; that is not checked. Takes one pass over both (native/scan/join.c).
    """
    wanted = np.ascontiguousarray(wanted, np.uint64)
    among = np.ascontiguousarray(among, np.uint64)
    places = np.empty(len(wanted), np.int64)
    _library().lss_join(
        wanted.ctypes.data, len(wanted), among.ctypes.data, len(among), places.ctypes.data
    )
    return places


_loaded: ctypes.CDLL | None = None


def _library() -> ctypes.CDLL:
    global _loaded  # noqa: PLW0603 - loaded once a process
    if _loaded is None:
        library = ctypes.CDLL(str(_native.path("libleakscope-scan.so")))
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        library.lss_join.restype = None
        library.lss_join.argtypes = [pointer, size, pointer, size, pointer]
        _loaded = library
    return _loaded
