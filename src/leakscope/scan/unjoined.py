# SPDX-License-Identifier: Apache-2.0
"""Threads that have ended and that nobody can join, since nothing has their `pthread_t` any more.

Their descriptors take part in the graph as blocks do. What glibc allocated when it started such a
thread, its vector of thread-local storage, leads to the call that did.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.reachability import Reachability, UnjoinedThreads

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from leakscope.model.recordings import Recording
    from leakscope.scan.graph import Graph
    from leakscope.scan.roots import Unjoined
    from leakscope.target.resident import Resident

__all__ = ["lose_unjoined", "with_descriptors"]

_DESCRIPTOR_BYTES = 0x900  # of struct pthread
_TO_VECTOR, _ENTRY = 8, 16  # where a descriptor points to the second entry of its vector
_FEW = 4  # a program may end before it has joined so many


def with_descriptors(graph: Graph, unjoined: Sequence[Unjoined]) -> Graph:
    """Return the graph with a block for each of these threads."""
    new = np.array(sorted(thread.descriptor for thread in unjoined), np.uint64)
    at = np.searchsorted(graph.starts, new)
    return replace(
        graph,
        starts=np.insert(graph.starts, at, new),
        sizes=np.insert(graph.sizes, at, _DESCRIPTOR_BYTES),
        known=np.insert(graph.known, at, -1),
    )


def lose_unjoined(
    image: Resident,
    recording: Recording,
    graph: Graph,
    kinds: npt.NDArray[np.uint8],
    unjoined: Sequence[Unjoined],
) -> tuple[UnjoinedThreads, ...]:
    """Call the vectors lost of threads that cannot be joined, and say what their stacks hold."""
    by_site: dict[int, list[tuple[int, Unjoined]]] = {}
    for thread in unjoined:
        own = int(np.searchsorted(graph.starts, np.uint64(thread.descriptor)))
        raw = image.read(thread.descriptor + _TO_VECTOR, 8)
        vector = np.uint64(max(int.from_bytes(raw, "little") - _ENTRY, 0))
        at = int(np.searchsorted(graph.starts, vector))
        if kinds[own] == Reachability.REACHABLE or at == len(graph.starts):
            continue
        known = int(graph.known[at])
        if graph.starts[at] == vector and known >= 0:
            by_site.setdefault(int(recording.blocks["site"][known]), []).append((at, thread))
    found = []
    for site, threads in by_site.items():
        if len(threads) < _FEW:
            continue
        kinds[[at for at, _ in threads]] = Reachability.DEFINITELY_LOST
        stacks = [thread.stack for _, thread in threads]
        mapped = sum(end - start for start, end in stacks)
        found.append(UnjoinedThreads(site, len(threads), mapped, image.bytes_of(stacks)))
    return tuple(found)
