# SPDX-License-Identifier: Apache-2.0
"""What two walks of one heap tell together: what grew between them, and who holds it."""

from __future__ import annotations

from dataclasses import dataclass

from leakscope.model.heap import Account
from leakscope.model.holders import Reference
from leakscope.model.reachability import ScanFacts

__all__ = ["Grown", "HeapGrowth", "HeldBy", "Space", "Spaces", "Tally"]


@dataclass(frozen=True, slots=True)
class Tally:
    """Blocks in use and their usable bytes; `lost_` is what nothing points to, or only lost blocks."""

    blocks: int = 0
    bytes: int = 0
    lost_blocks: int = 0
    lost_bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        """Return the sum of two that have no block in common."""
        return Tally(
            self.blocks + other.blocks,
            self.bytes + other.bytes,
            self.lost_blocks + other.lost_blocks,
            self.lost_bytes + other.lost_bytes,
        )


@dataclass(frozen=True, slots=True)
class HeldBy:
    """A root through which grown blocks are alive."""

    root: str  # "cache in app", "stack of thread 12", "registers of thread 12"
    share: float  # of the grown blocks that were looked at, 0..1
    direct: str  # what points to them: "text of 4,104 bytes"; "" when it is the root itself
    steps: int  # pointers on the shortest way from the root
    path: tuple[Reference, ...] = ()  # that way, from the root on, without the block itself


@dataclass(frozen=True, slots=True)
class Grown:
    """Blocks of like size and content of which there are more than before."""

    low: int  # usable bytes of the smallest
    high: int  # and of the largest
    what: str  # "Request objects, of libweb.so", "text", "zeros", "pointers", …
    then: Tally
    now: Tally
    holders: tuple[HeldBy, ...] = ()  # of what is not lost, most frequent first
    place: str = ""  # where they were allocated, when somebody recorded it: "insert() at t.c:31"

    @property
    def bytes(self) -> int:
        """Bytes that came."""
        return self.now.bytes - self.then.bytes

    @property
    def blocks(self) -> int:
        """Blocks that came."""
        return self.now.blocks - self.then.blocks

    @property
    def lost_bytes(self) -> int:
        """Lost bytes that came."""
        return self.now.lost_bytes - self.then.lost_bytes


@dataclass(frozen=True, slots=True)
class Space:
    """A part of the heap, in bytes."""

    name: str  # "the main arena", "arena 3"
    mapped: int
    live: int
    free: int  # what its blocks leave over
    whole_pages: int  # of `free`: pages in memory in which nothing is in use


@dataclass(frozen=True, slots=True)
class Spaces:
    """Where the memory is that the allocator keeps."""

    parts: tuple[Space, ...]  # most free bytes first
    beside: tuple[tuple[int, int, int], ...]
    """Usable size, blocks of it that have free space behind them, bytes of that space."""

    @property
    def free(self) -> int:
        """Bytes in no block."""
        return sum(part.free for part in self.parts)

    @property
    def whole_pages(self) -> int:
        """Bytes of pages in memory in which nothing is in use: they can be given back."""
        return sum(part.whole_pages for part in self.parts)


@dataclass(frozen=True, slots=True)
class HeapGrowth:
    """The difference of two walks of the heap of a process."""

    pid: int
    allocator: str
    seconds: float  # between them
    then: Tally
    now: Tally
    account_then: Account | None  # None where a recording was read in place of the heap
    account: Account | None
    grown: tuple[Grown, ...]  # most bytes first; lost ones before all others
    spaces: Spaces
    facts_then: ScanFacts
    facts: ScanFacts
    lost_gone: int = 0  # blocks called lost the first time that were in use no more the second
    share: float = 1.0  # of the heap that could be walked
    notes: tuple[str, ...] = ()

    @property
    def lost_rate(self) -> float:
        """Bytes that are lost a second."""
        return (self.now.lost_bytes - self.then.lost_bytes) / max(self.seconds, 1e-9)

    @property
    def rate(self) -> float:
        """Bytes by which the blocks in use grow a second."""
        return (self.now.bytes - self.then.bytes) / max(self.seconds, 1e-9)

    @property
    def proves_leak(self) -> bool:
        """Whether lost bytes grew, and what was called lost before proved to be lost.

        A lost block is never freed again: where such blocks went, the program has pointers to
        them that were not recognised, and the word means nothing.
        """
        came = self.now.lost_blocks - self.then.lost_blocks
        enough = came >= _FEWEST and self.lost_rate > 0
        return enough and self.lost_gone <= _GONE * self.then.lost_blocks


_FEWEST = 2  # blocks: one may be in the hands of a thread
_GONE = 0.05
