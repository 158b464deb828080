# SPDX-License-Identifier: Apache-2.0
"""What a walk of an untraced process's heap tells."""

from __future__ import annotations

from dataclasses import dataclass

from leakscope.model.reachability import Reachability, ScanFacts

__all__ = ["Account", "HeapAccount", "HeapScan", "LostContent", "LostSize"]


@dataclass(frozen=True, slots=True)
class LostSize:
    """Lost blocks of one usable size."""

    size: int
    definite: int  # nothing points to them
    indirect: int  # only lost blocks point to them

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return self.size * (self.definite + self.indirect)


@dataclass(frozen=True, slots=True)
class LostContent:
    """What some of the lost blocks look like: "Request objects, of libweb.so", "text"."""

    what: str
    share: float  # of the lost bytes that were looked at, 0..1


@dataclass(frozen=True, slots=True)
class Account:
    """Where the process's memory is, in bytes; the parts of the heap add up to `heap_mapped`."""

    resident: int
    heap_mapped: int
    live: int
    free_in_allocator: int
    top: int
    overhead: int


@dataclass(frozen=True, slots=True)
class HeapAccount:
    """What the heap of a process holds, without knowing what points to it."""

    allocator: str
    blocks: int  # in use
    account: Account
    share: float  # of the heap that could be walked
    pause_ms: float


@dataclass(frozen=True, slots=True)
class HeapScan:
    """What a scan of an untraced process found. Counts are blocks."""

    pid: int
    allocator: str
    blocks: int
    counts: dict[Reachability, int]
    bytes: dict[Reachability, int]
    sizes: tuple[LostSize, ...]  # heaviest first
    account: Account
    share: float  # of the heap that could be walked
    facts: ScanFacts
    content: tuple[LostContent, ...] = ()  # largest share first
