# SPDX-License-Identifier: Apache-2.0
"""Which pages of a process there are, in memory or in swap (native/scan/pages.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.target.library import library

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Words = npt.NDArray[np.uint64]

__all__ = ["NEVER", "list_pages"]

NEVER = (1 << 63) - 1
"""A deadline that does not come."""


def list_pages(
    pagemap: int,
    ranges: Words,
    out: Words,
    *,
    cursor: Words,
    without_files: bool = False,
    deadline: int = NEVER,
) -> int | None:
    """Write the ranges with pages to `out`, and return how many; None when the kernel is silent.

    `pagemap` is a descriptor of that file of the process; `ranges` and `out` have one range a
    row, `ranges` whole pages, ascending. `without_files` leaves out pages that are the same as in
    a file. `deadline` is of the monotonic clock, in ns. Goes on from `cursor`, two zeros at first;
    when its first word is `len(ranges)` it is through, otherwise there was no room or no time.
    """
    count = library().lss_pages(
        pagemap, ranges.ctypes.data, len(ranges), without_files, deadline,
        out.ctypes.data, len(out), cursor.ctypes.data,
    )  # fmt: skip
    return count if count >= 0 else None
