# SPDX-License-Identifier: Apache-2.0
"""What every image of a process has: mappings, threads with their registers, bytes at addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from leakscope.proc.maps import Mapping

__all__ = ["Memory", "Range", "Segment", "Thread"]


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses from `start` up to `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Segment(Range):
    """Memory at `start` that this process holds at the address `place`, of a core file or a copy.

    Segments are given in ascending order and do not overlap.
    """

    place: int


@dataclass(frozen=True, slots=True)
class Thread:
    """A stopped thread."""

    tid: int
    sp: int
    pc: int
    tls: int  # fs base, TPIDR
    words: npt.NDArray[np.uint64]  # all registers, vector registers included


class Memory(Protocol):
    """The memory of a process or a core file."""

    @property
    def mappings(self) -> Sequence[Mapping]:
        """Its mappings in address order."""

    @property
    def threads(self) -> Sequence[Thread]:
        """Its threads, with their registers."""

    def read(self, address: int, size: int) -> bytes:
        """Return up to `size` bytes from `address`; fewer where they cannot be read."""
