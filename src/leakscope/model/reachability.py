# SPDX-License-Identifier: Apache-2.0
"""What points to a block: the kinds of valgrind's memcheck, with the same meaning."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Reachability", "ScanFacts", "UnjoinedThreads"]


class Reachability(enum.IntEnum):
    """Whether a live block can still be reached from a root."""

    UNKNOWN = 0  # not examined, or allocated while the scan ran
    DEFINITELY_LOST = 1  # nothing points to it
    INDIRECTLY_LOST = 2  # only lost blocks point to it
    POSSIBLY_LOST = 3  # only interior pointers lead to it, and no heuristic explains them
    REACHABLE = 4


@dataclass(frozen=True, slots=True)
class UnjoinedThreads:
    """Threads that have ended, and that nobody can join any more: their stacks stay mapped."""

    site: int  # of the block that was allocated when each of them was started
    threads: int
    mapped_bytes: int  # of their stacks
    resident_bytes: int  # of them, in memory


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """How the memory was examined."""

    method: str  # how the image was taken: "copied", "forked", "frozen", "core"
    pause_ms: float  # time for which the process stood still
    seconds: float  # of the whole scan
    scanned_bytes: int
    threads: int
    roots_bytes: int = 0
    notes: tuple[str, ...] = ()
    unjoined: tuple[UnjoinedThreads, ...] = ()
