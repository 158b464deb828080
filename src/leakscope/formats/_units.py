# SPDX-License-Identifier: Apache-2.0
"""The unit of figures of a machine's memory that `free` and `vmstat` print without one.

Linux counts memory in pages, so that figures in KiB are multiples of four, and figures in bytes
multiples of 4096. Figures that are not are of a larger unit, which their size tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["unit_of"]

_FEWEST = 3  # figures that are not 0: fewer may be multiples of something by chance
_GIB = 64  # a machine has more MiB than this, and mostly fewer GiB
_EITHER = 1024  # up to which it may be MiB of a small machine or GiB of a large one
_KILO = 100_000_000  # no machine has so many MiB
_LEAST_KIB = 8192  # no machine that runs these programs has less


def unit_of(figures: Collection[int], total: int) -> tuple[int, str]:
    """Return the bytes of a unit, and what is to be said of it.

    `figures` are those of one machine's memory, `total` about all that it has, in that unit.
    """
    told = [figure for figure in figures if figure]
    if not any(figure % 4 for figure in told) and total >= _LEAST_KIB:
        if len(told) >= _FEWEST and not any(figure % 4096 for figure in told):
            return 1, "figures are bytes: all of them are multiples of a page"
        return 1024, "figures are taken to be KiB, as it prints them without an option"
    if total >= _KILO:
        return 1000, "figures are taken to be units of 1000 bytes: they are no multiples of a page"
    if total < _GIB:
        return 1 << 30, "figures are taken to be GiB: they are too small for a smaller unit"
    note = "figures are taken to be MiB (-m, -S M): they are no multiples of a page in KiB"
    if total < _EITHER:
        note += "; that they are GiB cannot be told apart"
    return 1 << 20, note
