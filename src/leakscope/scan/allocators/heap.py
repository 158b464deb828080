# SPDX-License-Identifier: Apache-2.0
"""What the walk of an allocator's memory finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Heap"]

_WHOLE = 0.999


@dataclass(frozen=True, slots=True)
class Heap:
    """The blocks in use, by address, and where the rest of the allocator's memory went."""

    allocator: str  # "glibc 2.36"
    starts: npt.NDArray[np.uint64]  # what malloc returned, ascending
    # Usable bytes; of 64 bits only when there is a block that needs them.
    sizes: npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
    regions: tuple[tuple[int, int], ...]  # memory that belongs to the allocator, ascending
    mapped_bytes: int  # of `regions`, without address space that is only kept in reserve
    enumerated_bytes: int  # of them, those that the walk accounted for
    free_bytes: int  # in free chunks and caches
    top_bytes: int  # never handed out yet, at the ends of the arenas
    arenas: int
    notes: tuple[str, ...] = field(default_factory=tuple)
    tables: tuple[tuple[int, int], ...] = ()  # the allocator's variables outside `regions`
    # Blocks that a thread was just taking from the allocator or giving back to it: nothing but
    # the allocator may point to them, and they are not lost.
    moving: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    @property
    def live_bytes(self) -> int:
        """Usable bytes of the blocks in use."""
        return int(self.sizes.sum(dtype=np.uint64))

    @property
    def overhead_bytes(self) -> int:
        """What the allocator needs for itself: headers and tables."""
        return max(self.enumerated_bytes - self.live_bytes - self.free_bytes - self.top_bytes, 0)

    @property
    def enumerated_share(self) -> float:
        """Share of the allocator's memory that the walk accounted for, 0..1."""
        return self.enumerated_bytes / self.mapped_bytes if self.mapped_bytes else 1.0

    @property
    def is_whole(self) -> bool:
        """Whether all of it was walked, but for what hardly holds a pointer."""
        return self.enumerated_share >= _WHOLE
