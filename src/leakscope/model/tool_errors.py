# SPDX-License-Identifier: Apache-2.0
"""Errors that another tool found and that are no leaks: invalid accesses, values nobody set."""

from __future__ import annotations

from dataclasses import dataclass

from leakscope.model.frames import Frame

__all__ = ["FoundError", "RecordedError"]


@dataclass(frozen=True, slots=True)
class RecordedError:
    """Equal errors of one recording; `node` is their stack in its nodes, 0: not known."""

    kind: str
    """What the tool calls it, without its numbers: "invalid read"."""
    text: str
    """The tool's sentence on the first of them."""
    count: int
    node: int = 0


@dataclass(frozen=True, slots=True)
class FoundError:
    """The same with its stack, innermost frame first; an empty one is not known."""

    kind: str
    text: str
    count: int
    stack: tuple[Frame, ...] = ()
