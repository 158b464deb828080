# SPDX-License-Identifier: Apache-2.0
"""Allocations and frees of a log, one after the other: what is held when it ends, and by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from leakscope.formats._bounds import MOST_RECORDS
from leakscope.model.recordings import BLOCK_DTYPE
from leakscope.words import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from leakscope.model.builder import RecordingBuilder

__all__ = ["EventReplay"]

_Key = TypeVar("_Key", bound="Hashable")
_MOST_LIVE = 1 << 25
_MOST_SIZE = 1 << 40  # bytes of a block


class EventReplay(Generic[_Key]):
    """What a log tells; memory follows the blocks that live and the places that allocate."""

    def __init__(self) -> None:
        self.live: dict[int, tuple[int, int]] = {}  # address: bytes, number of its place
        self.places: dict[_Key, int] = {}
        self._counts: list[list[int]] = []  # allocations, bytes, frees, bytes
        self.allocs = self.frees = 0
        self.failed = self.unknown = self.again = self.left_out = 0

    def allocate(self, address: int, size: int, place: _Key) -> None:
        """Take an allocation; address 0 is one that failed."""
        if address == 0:
            self.failed += 1
            return
        number = self.places.get(place)
        if number is None:
            if len(self.places) >= MOST_RECORDS:
                self.left_out += 1
                return
            number = self.places[place] = len(self.places)
            self._counts.append([0, 0, 0, 0])
        if address in self.live:
            self.again += 1
            self._release(*self.live.pop(address))
        elif len(self.live) >= _MOST_LIVE:
            self.left_out += 1
            return
        if not 0 <= size < _MOST_SIZE:
            self.left_out += 1
            return
        self.live[address] = (size, number)
        self.allocs += 1
        counts = self._counts[number]
        counts[0] += 1
        counts[1] += size

    def free(self, address: int) -> bool:
        """Take a free; returns whether the block was known."""
        if address == 0:
            return True
        self.frees += 1
        block = self.live.pop(address, None)
        if block is None:
            self.unknown += 1
            return False
        self._release(*block)
        return True

    def _release(self, size: int, number: int) -> None:
        counts = self._counts[number]
        counts[2] += 1
        counts[3] += size

    def build(self, build: RecordingBuilder, site: Callable[[_Key], tuple[int, str]]) -> None:
        """Add sites and blocks; `site` returns the node and the kind of a place."""
        sites = []
        for place, (allocs, alloc_bytes, frees, freed) in zip(
            self.places, self._counts, strict=True
        ):
            node, kind = site(place)
            sites.append(
                build.site(
                    node,
                    kind,
                    allocs=allocs,
                    alloc_bytes=alloc_bytes,
                    frees=frees,
                    freed_bytes=freed,
                )
            )
        table = np.zeros(len(self.live), BLOCK_DTYPE)
        for row, (address, (size, number)) in enumerate(self.live.items()):
            table[row] = (address, size, sites[number], 0)
        build.blocks(table)

    def notes(self) -> list[str]:
        """Say what does not fit."""
        notes = []
        if self.unknown:
            notes.append(
                f"freed, and allocated before the log began: {plural(self.unknown, 'block')}"
            )
        if self.failed:
            notes.append(f"allocations that failed, and are no blocks: {self.failed:,}")
        if self.again:
            notes.append(
                f"events are missing: {plural(self.again, 'block')} came again without a free between"
            )
        if self.left_out:
            notes.append(f"not read: {plural(self.left_out, 'allocation')}")
        return notes
