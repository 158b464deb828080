# SPDX-License-Identifier: Apache-2.0
"""What was on the heap of a process before somebody attached to it, and what became of that.

No call stack is known for any of it, and nothing of it is judged.
"""

from __future__ import annotations

from dataclasses import dataclass

from leakscope.model.census import Tally

__all__ = ["MOST_CONTENTS", "Earlier", "EarlierContent"]

MOST_CONTENTS = 12
"""Rows of an `Earlier`, of those that take most."""


@dataclass(frozen=True, slots=True)
class EarlierContent:
    """Blocks of one usable size (bytes) that looked alike before the attach."""

    what: str  # "text", "zeros", "Request objects, of libweb.so", …
    size: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class Earlier:
    """The heap before the attach, and its fate up to the walk after the detach.

    The fate is None where there was no such walk: `unknown` says why. Times are milliseconds.
    """

    allocator: str
    then: Tally
    contents: tuple[EarlierContent, ...]  # most bytes first
    stopped_ms: float  # for the walk before
    there: Tally | None = None  # still in use; lost ones among them are lost by now
    freed: Tally | None = None  # and these are not; lost ones were lost before
    newly_lost: Tally | None = None  # of what is there: pointed to before, and by nothing now
    stopped_after_ms: float | None = None
    unknown: str = ""
