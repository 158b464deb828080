# SPDX-License-Identifier: Apache-2.0
"""What the memory of a kernel itself says of a slab cache, and of one object in it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheObjects", "KernelObject", "Likeness", "Referrer"]


@dataclass(frozen=True, slots=True)
class Likeness:
    """Objects of a cache that point to the same things of the kernel's: `names`, by offset."""

    names: tuple[str, ...]  # such as "+0x10 socket_file_ops"; none: to nothing that has a name
    count: int
    example: int  # the address of one of them


@dataclass(frozen=True, slots=True)
class CacheObjects:
    """What fills one slab cache. Sizes in bytes; `looks` are the most frequent first."""

    source: str  # what was read: "/proc/kcore", or a dump
    release: str
    name: str
    others: tuple[str, ...]  # caches whose objects are kept in this one
    object_bytes: int
    allocated: int
    room: int  # objects that its slabs have room for
    read: int  # objects that were looked at
    looks: tuple[Likeness, ...]

    @property
    def bytes(self) -> int:
        """What the allocated objects take."""
        return self.allocated * self.object_bytes


@dataclass(frozen=True, slots=True)
class Referrer:
    """A word that points to an object, or into it. `kind` is what the word lies in.

    "variable", "object", "stack", "buffer" (vmalloc), "task" or "page" of the kernel.
    """

    kind: str
    name: str
    address: int
    into: int  # bytes behind the start of the object that it points to


@dataclass(frozen=True, slots=True)
class KernelObject:
    """One object, and every word of the kernel's memory that points to it.

    Words that do not count are told by what they lie in: free objects and pages, memory of
    programs and files, notes of kmemleak.
    """

    source: str
    release: str
    live: bool  # read while the kernel ran
    address: int
    cache: str
    object_bytes: int
    referrers: tuple[Referrer, ...]
    uncounted: tuple[tuple[str, int], ...]
    more: bool = False  # there are more words than were looked at

    @property
    def is_lost(self) -> bool:
        """Whether nothing points to it."""
        return not self.referrers and not self.more
