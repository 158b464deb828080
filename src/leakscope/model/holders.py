# SPDX-License-Identifier: Apache-2.0
"""Why a block is still alive: the pointers that lead to it from a root."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Holding", "Reference"]


@dataclass(frozen=True, slots=True)
class Reference:
    """One pointer on the way: `offset` bytes inside `holder`.

    `holder` names a root ("cache in app", "stack of thread 12", "registers of thread 12",
    "thread-local storage of thread 12"); for a block it is None, and `site` (None when no
    recording knows the block) and `size` tell which block it is.
    """

    holder: str | None
    offset: int
    site: int | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """Blocks of one site that are alive through the same root."""

    root: str
    count: int  # of the blocks that were looked at
    example: int  # address of one of them
    path: tuple[Reference, ...]  # to the example, from the root on, without the example itself
