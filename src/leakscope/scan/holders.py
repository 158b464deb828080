# SPDX-License-Identifier: Apache-2.0
"""Paths from a root to a block: who holds what nobody frees.

Marking keeps for each block the place of the pointer that reached it first, and roots that
last are marked before those that come and go: variables, other mappings, stacks, registers.
Going back from place to place ends at a root.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.holders import Holding, Reference
from leakscope.symbols import find_variables

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from leakscope.model.frames import Module
    from leakscope.model.recordings import Recording
    from leakscope.scan.graph import Graph
    from leakscope.scan.roots import Root
    from leakscope.target.memory import Thread

__all__ = ["KERNEL", "HolderPlaces", "Holders", "Way", "origin_of"]

_ORIGIN = 1 << 63  # places at and above it are the registers of a thread
KERNEL = 1 << 62
"""Stands for the place of a pointer that the kernel keeps for the process."""
# Static thread-local storage ends where the thread's descriptor begins. Below it lies the
# stack, except for the first thread; glibc leaves about 1.6 KiB for libraries that come later.
_TLS_BELOW, _TLS_BELOW_FIRST, _TLS_ABOVE = 1 << 10, 1 << 14, 1 << 12
_MOST_EXAMINED = 1000


def origin_of(thread: Thread) -> int:
    """Return what stands for the place of a pointer in this thread's registers."""
    return _ORIGIN | thread.tid


@dataclass(frozen=True, slots=True)
class HolderPlaces:
    """Where marking found pointers, while nobody has asked about them."""

    addresses: npt.NDArray[np.uint64]  # of each block, as `Marker.keep_places` gives them
    roots: Sequence[Root]
    threads: Sequence[Thread]


@dataclass(frozen=True, slots=True)
class Way:
    """How a block can be reached."""

    block: int  # its position among the blocks
    root: str
    offset: int  # inside the root
    depth: int  # pointers from the root to the block
    direct: int | None  # the block that points to it; None when it is the root


@dataclass(frozen=True, slots=True)
class _Tree:
    """Which block leads to which, of each block."""

    parents: npt.NDArray[np.int64]  # -1: a root
    roots: npt.NDArray[np.uint64]  # place of the pointer in the root
    depths: npt.NDArray[np.int64]

    def way(self, block: int, places: npt.NDArray[np.uint64]) -> list[int]:
        """Return the places of the pointers that lead to a block, from the root on."""
        way: list[int] = []
        while block >= 0:
            way.append(int(places[block]))
            block = int(self.parents[block])
        way.reverse()
        return way


def _grow_tree(
    starts: npt.NDArray[np.uint64],
    sizes: npt.NDArray[np.unsignedinteger],
    places: npt.NDArray[np.uint64],
) -> _Tree:
    """Follow all blocks to their roots at once: a list may have millions of elements."""
    order = np.argsort(places, kind="stable")
    wanted = places[order]
    at = np.searchsorted(starts, wanted, side="right").astype(np.int64) - 1
    inside = at >= 0
    inside &= wanted - starts[np.maximum(at, 0)] < sizes[np.maximum(at, 0)]
    parents = np.full(len(places), -1, np.int64)
    parents[order[inside]] = at[inside]
    # Each round doubles the way that is done.
    jump, depths = parents.copy(), np.ones(len(places), np.int64)
    roots = np.arange(len(places))
    while len(left := np.flatnonzero(jump >= 0)):
        ahead = jump[left]
        depths[left] += depths[ahead]
        roots[left] = roots[ahead]
        jump[left] = jump[ahead]
        if len(left) == np.count_nonzero(jump >= 0) and depths.max() > len(places):
            break  # no tree: never made by marking
    return _Tree(parents, places[roots], depths)


@dataclass(frozen=True, slots=True)
class Holders:
    """Where pointers to blocks were found while marking."""

    graph: Graph
    places: npt.NDArray[np.uint64]  # of each block of `graph`
    roots: Sequence[Root]
    threads: Sequence[Thread]
    _trees: list[_Tree] = field(default_factory=list)  # one, once it is asked for

    def of_site(self, recording: Recording, site: int) -> tuple[tuple[Holding, ...], int]:
        """Return what holds blocks of `site`, most frequent first, and how many were examined.

        At most 1,000 blocks are, evenly spread over the order of their birth.
        """
        blocks = np.flatnonzero(recording.blocks["site"] == site)
        blocks = blocks[np.argsort(recording.blocks["birth_ns"][blocks], kind="stable")]
        if len(blocks) > _MOST_EXAMINED:
            blocks = blocks[np.linspace(0, len(blocks) - 1, _MOST_EXAMINED).astype(np.int64)]
        index = np.full(len(recording.blocks) + 1, -1, np.int64)
        ours = np.flatnonzero(self.graph.known >= 0)
        index[self.graph.known[ours]] = ours
        chosen = [int(index[block]) for block in blocks if index[block] >= 0]
        chosen = [block for block in chosen if self.places[block]]
        tree = self._tree()
        roots = {block: int(tree.roots[block]) for block in chosen}
        names = self._names(recording.modules, list(roots.values()))
        counts = Counter(names[roots[block]][0] for block in chosen)
        found = []
        for root, count in counts.most_common():
            # The shortest way tells most.
            example = min(
                (block for block in chosen if names[roots[block]][0] == root),
                key=lambda block: int(tree.depths[block]),
            )
            path = self._references(recording, tree.way(example, self.places), names)
            found.append(Holding(root, count, int(self.graph.starts[example]), path))
        return tuple(found), len(chosen)

    def ways(self, blocks: Sequence[int], modules: Sequence[Module], pid: int = 0) -> list[Way]:
        """Return how each of `blocks`, given by position, is reached; those that are not left out.

        `pid` is the process in which `modules` are mapped, 0 for a recording.
        """
        tree = self._tree()
        chosen = [block for block in blocks if self.places[block]]
        roots = {block: int(tree.roots[block]) for block in chosen}
        names = self._names(modules, list(roots.values()), pid)
        found = []
        for block in chosen:
            direct = int(tree.parents[block])
            name, offset = names[roots[block]]
            depth = int(tree.depths[block])
            found.append(Way(block, name, offset, depth, direct if direct >= 0 else None))
        return found

    def path(self, way: Way) -> tuple[Reference, ...]:
        """Return the pointers on a way, from the root on, without the block itself."""
        path = [Reference(way.root, way.offset)]
        for place in self._tree().way(way.block, self.places)[1:]:
            at = self._block_at(place)
            assert at is not None
            start, size = int(self.graph.starts[at]), int(self.graph.sizes[at])
            path.append(Reference(None, place - start, None, size))
        return tuple(path)

    def _tree(self) -> _Tree:
        if not self._trees:
            self._trees.append(_grow_tree(self.graph.starts, self.graph.sizes, self.places))
        return self._trees[0]

    def _block_at(self, place: int) -> int | None:
        at = int(np.searchsorted(self.graph.starts, np.uint64(place), side="right")) - 1
        if at < 0 or place >= int(self.graph.starts[at]) + int(self.graph.sizes[at]):
            return None
        return at

    def _references(
        self, recording: Recording, way: list[int], names: dict[int, tuple[str, int]]
    ) -> tuple[Reference, ...]:
        path = [Reference(*names[way[0]])]
        for place in way[1:]:
            block = self._block_at(place)
            assert block is not None
            known = int(self.graph.known[block])
            path.append(
                Reference(
                    None,
                    place - int(self.graph.starts[block]),
                    int(recording.blocks["site"][known]) if known >= 0 else None,
                    int(self.graph.sizes[block]),
                )
            )
        return tuple(path)

    def _names(
        self, modules: Sequence[Module], places: Sequence[int], pid: int = 0
    ) -> dict[int, tuple[str, int]]:
        """Name the roots that places lie in, and say how far inside."""
        named: dict[int, tuple[str, int]] = {}
        inside: dict[int, list[int]] = {}  # by module: places in its data
        starts = [root.start for root in self.roots]
        for place in set(places):
            if place >= _ORIGIN:
                tid = place - _ORIGIN
                named[place] = (f"registers of thread {tid}", 0)
                continue
            if place == KERNEL:
                named[place] = ("the kernel (epoll, timers or signals)", 0)
                continue
            if (tls := self._tls(place)) is not None:
                named[place] = tls
                continue
            number = next((i for i, m in enumerate(modules) if m.start <= place < m.end), None)
            if number is not None:
                inside.setdefault(number, []).append(place)
                continue
            at = bisect_right(starts, place) - 1
            root = self.roots[at] if at >= 0 else None
            if root is None or place >= root.end:
                named[place] = ("the tracer's own notes", 0)
            else:
                name = root.name
                if name == "mapping":
                    name = f"anonymous mapping at {root.start:#x}"
                named[place] = (name, place - root.start)
        for number, found in inside.items():
            module = modules[number]
            name = PurePath(module.path).name
            variables = find_variables(
                module, [place - module.bias for place in found], pid or None
            )
            for place in found:
                variable = variables.get(place - module.bias)
                if variable is None:
                    named[place] = (f"data of {name}", place - module.start)
                else:
                    named[place] = (f"{variable[0]} in {name}", variable[1])
        return named

    def _tls(self, place: int) -> tuple[str, int] | None:
        for thread in self.threads:
            on_stack = 0 < thread.tls - thread.sp < 1 << 32
            below = _TLS_BELOW if on_stack else _TLS_BELOW_FIRST
            if thread.tls and thread.tls - below <= place < thread.tls + _TLS_ABOVE:
                return f"thread-local storage of thread {thread.tid}", place - thread.tls
        return None
