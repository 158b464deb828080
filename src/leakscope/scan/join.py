# SPDX-License-Identifier: Apache-2.0
"""Finding the addresses of one reading in another one: both are sorted, and long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.target.library import library

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
    library().lss_join(
        wanted.ctypes.data, len(wanted), among.ctypes.data, len(among), places.ctypes.data
    )
    return places
