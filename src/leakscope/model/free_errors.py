# SPDX-License-Identifier: Apache-2.0
"""Frees that should not have been: as they were recorded, and as they are reported."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from leakscope.model.frames import Frame

__all__ = ["FreeError", "FreeErrorKind", "FreeFunction", "FreeProof", "RecordedFreeError"]


class FreeErrorKind(enum.IntEnum):
    """What was wrong with a free."""

    MISMATCHED = 1  # by another function than the one that belongs to the allocation
    DOUBLE = 2  # of what had been freed before
    INTERIOR = 3  # of an address inside a block
    INVALID = 4  # of an address that no allocator gave out


class FreeFunction(enum.IntEnum):
    """Which function freed."""

    FREE = 1
    DELETE = 2
    DELETE_ARRAY = 3
    REALLOC = 4

    @property
    def text(self) -> str:
        """The function as a programmer writes it."""
        return ("free", "delete", "delete[]", "realloc")[self - 1]


class FreeProof(enum.IntEnum):
    """On whose word."""

    ALLOCATOR = 1  # the allocator's own marks beside the memory
    RECORDED = 2  # what was recorded; holds where all was


@dataclass(frozen=True, slots=True)
class RecordedFreeError:
    """Equal wrong frees of one recording: same kind, function and stacks. Sizes in bytes."""

    kind: int  # FreeErrorKind
    via: int  # FreeFunction
    proof: int  # FreeProof
    count: int
    returned: int  # how often the program went on afterwards
    address: int  # of the first one
    size: int | None  # of the block, None: not known
    offset: int  # into the block
    site: int  # where it was allocated, 0: not known
    node: int  # the stack of the free, in the recording's nodes
    first_node: int  # that of the free before, 0: not known
    time_ns: int  # of the first one, since the recording started
    tid: int


@dataclass(frozen=True, slots=True)
class FreeError:
    """Equal wrong frees with their stacks, innermost frame first; an empty stack is not known."""

    kind: str  # "double free", "mismatched free", "interior free", "invalid free"
    function: str  # that freed: "free", "delete", …
    allocated_by: str | None  # "malloc", "new", …; None: not known
    count: int
    fatal: bool  # the program ended in it, by abort or crash
    size: int | None  # of the block, bytes
    offset: int | None  # of the address in the block, bytes; None: its start, or no block
    time_ns: int
    thread: int
    sentence: str
    stack: tuple[Frame, ...]  # of the free
    source: Frame | None  # the line to look at: innermost frame of the user's own code
    first_free: tuple[Frame, ...]  # of the free before
    allocation: tuple[Frame, ...]
