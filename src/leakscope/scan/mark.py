# SPDX-License-Identifier: Apache-2.0
"""Mark and sweep: the kinds of valgrind's memcheck for a list of blocks.

The work is done by native/scan/mark.c, which says how. Needs about 4 bytes a block beside the
list of blocks, and for its index and notes at most a seventh of the heap, mostly far less.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

import numpy as np

from leakscope.errors import LeakscopeError, TargetError
from leakscope.model.reachability import Reachability
from leakscope.target.library import library

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from leakscope.target.memory import Range, Segment

    Words = npt.NDArray[np.uint64]
    Sizes = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]

__all__ = ["Marker", "disguised_text"]

_NOBODY = np.uint32(0xFFFFFFFF)
_KINDS = np.array(
    [
        Reachability.DEFINITELY_LOST,  # not reached; the sweep leaves none
        Reachability.DEFINITELY_LOST,
        Reachability.INDIRECTLY_LOST,
        Reachability.POSSIBLY_LOST,
        Reachability.REACHABLE,
    ],
    np.uint8,
)


class Marker:
    """Marks `starts`, ascending and not overlapping, in the memory of `pid` or in `segments`.

    A context manager. Of a process, nothing outside `resident` is read, one range a row, ascending.
    Raises `LeakscopeError` when there is not enough memory to go on,
    `TargetError` when the process is gone.
    """

    def __init__(
        self,
        starts: Words,
        sizes: Sizes,
        *,
        pid: int = 0,
        segments: Sequence[Segment] = (),
        guard: int = 0,
        vtables: Sequence[tuple[int, int]] = (),
        resident: Words | None = None,
    ) -> None:
        if np.any(starts[1:] <= starts[:-1]):
            raise ValueError("blocks are not in ascending order")
        wide = sizes.dtype != np.uint32
        self.starts = np.ascontiguousarray(starts, np.uint64)
        self.sizes = np.ascontiguousarray(sizes, np.uint64 if wide else np.uint32)
        self._state = np.zeros(len(starts), np.uint8)
        self._leaders = np.zeros(len(starts), np.uint32)  # 1 + position; hardly any is touched
        self._segments = np.array([(s.start, s.end, s.place) for s in segments], np.uint64)
        self._vtables = np.array(sorted(vtables), np.uint64)
        self._library = library()
        self._scan = self._library.lss_new(
            pid,
            self._segments.ctypes.data,
            len(segments),
            self.starts.ctypes.data,
            self.sizes.ctypes.data,
            wide,
            len(starts),
            self._state.ctypes.data,
            self._leaders.ctypes.data,
            guard,
            self._vtables.ctypes.data,
            len(vtables),
        )
        if not self._scan and pid and not _is_readable(pid):
            raise TargetError(f"process {pid} ended while it was scanned")
        if not self._scan:
            raise LeakscopeError(
                f"there is not enough memory to scan {len(starts):,} blocks",
                hint="Scan on a machine with more memory, or sample.",
            )
        self._resident = resident
        if resident is not None:
            self._library.lss_only_resident(self._scan, resident.ctypes.data, len(resident))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.lss_free(self._scan)
        self._scan = None

    def mark(self, roots: Sequence[Range]) -> None:
        """Mark what ranges of memory point to; `follow` or `sweep` marks what that leads to."""
        spans = np.array([(root.start, root.end) for root in roots], np.uint64)
        self._library.lss_roots(self._scan, spans.ctypes.data, len(roots))

    def mark_words(self, words: Words, origin: int = 0) -> None:
        """Mark what registers point to; `origin` stands for their place."""
        words = np.ascontiguousarray(words, np.uint64)
        self._library.lss_words(self._scan, words.ctypes.data, len(words), origin)

    def follow(self) -> None:
        """Mark everything that can be reached from what is marked so far."""
        self._check(self._library.lss_follow(self._scan))

    def find_disguised(self, roots: Sequence[Range], stacks: Sequence[Range] = ()) -> int:
        """Look for the addresses of blocks that were not reached in another form.

        Tagged, shifted, not at a multiple of eight, as a distance from where it is kept or
        from a neighbour in a list, of the end or a little before, or hidden by a constant: a program
        may get at its blocks by these. They become possibly lost, with what they lead to; returns
        how many were found so. Looks at no more than 192 MiB. To be called right before `sweep`.
        """
        spans = np.array([(root.start, root.end) for root in (*roots, *stacks)], np.uint64)
        found = int(
            self._library.lss_disguised(self._scan, spans.ctypes.data, len(spans), len(roots))
        )
        self._check(min(found, 0))
        return found

    def keep_places(self) -> Words:
        """Return an array that marking fills: for each block, where a pointer to it was found.

        That is the address of the pointer that gave the block its standing, or the `origin` of
        `mark_words`; 0 for a block that was not reached. Costs 8 bytes a block, and time: memory is
        read in the order in which blocks are reached. To be called before anything is marked.
        """
        self._places = np.zeros(len(self.starts), np.uint64)
        self._library.lss_keep_from(self._scan, self._places.ctypes.data)
        return self._places

    def sweep(self) -> npt.NDArray[np.uint8]:
        """Return the `Reachability` of each block."""
        self._check(self._library.lss_sweep(self._scan))
        return _KINDS[self._state]

    @property
    def leaders(self) -> npt.NDArray[np.uint32]:
        """After `sweep`: for each indirectly lost block, the position of the one that leads to it.

        0xFFFFFFFF for the others.
        """
        leaders = self._leaders - np.uint32(1)
        leaders[self._state != 2] = _NOBODY
        # A leader that was itself found from another one hands its followers on.
        for _ in range(64):
            at = np.flatnonzero(leaders != _NOBODY)
            moved = at[(self._state[leaders[at]] != 1) & (leaders[leaders[at]] != _NOBODY)]
            if not len(moved):
                break
            leaders[moved] = leaders[leaders[moved]]
        return leaders

    @property
    def scanned_bytes(self) -> int:
        """Bytes that were looked at so far."""
        return int(self._library.lss_scanned(self._scan))

    @property
    def unread_bytes(self) -> int:
        """Bytes that should have been looked at and could not be read."""
        return int(self._library.lss_unread(self._scan))

    def _check(self, result: int) -> None:
        if result < 0:
            raise LeakscopeError(
                "there is not enough memory to finish the scan", hint="Scan where there is more."
            )


def _is_readable(pid: int) -> bool:
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def disguised_text(count: int) -> str:
    """Return the note about blocks that `Marker.find_disguised` found."""
    what = "1 block" if count == 1 else f"{count:,} blocks"
    return (
        f"of {what} the address was seen in another form (tagged, shifted, not aligned, as a"
        " distance, of the end, or hidden by a constant), so they and what they lead to are called"
        " possibly lost"
    )
