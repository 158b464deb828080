# SPDX-License-Identifier: Apache-2.0
"""How many blocks the sites of a live recording hold, counted again and again at little cost.

For those who ask after every test of a suite: a whole recording is read in a fraction of a second,
this reads the counters of the sites that one chose. The file is mapped, against the rule of this
package: whoever uses this is a process of its own, and may die with it.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from leakscope.model.frames import Address, Module
from leakscope.model.recordings import NODE_EXACT
from leakscope.recording import layout
from leakscope.recording._header import Header
from leakscope.recording._source import Source
from leakscope.recording._tables import Doubts, read_modules

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    Choose = Callable[["LiveCounts", npt.NDArray[np.int64]], npt.NDArray[np.bool_]]

__all__ = ["LiveCounts", "SiteCounts"]

_EACH = layout.CHUNK_SITES
_COUNTER = layout.COUNTER_DTYPE.itemsize
_WORD = 8
_ALLOCS, _BYTES, _FREES, _FREED = (
    dict(layout.COUNTER_DTYPE.fields or {})[name][1] // _WORD
    for name in ("allocs", "alloc_bytes", "frees", "freed_bytes")
)
_DEEPEST = 512


class SiteCounts(NamedTuple):
    """Blocks and bytes by site number."""

    counts: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]


class LiveCounts:
    """A live recording whose chosen sites are counted many times. A context manager.

    `choose` is asked once for each site, by number, whether it is counted. Raises `RecordingError`
    where the file is no live recording, or is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], choose: Choose) -> None:
        self._path, self._choose = path, choose
        with Source(path) as source:
            header = Header(source)
            self._offsets = {
                name: header.offset(name) for name in ("nodes", "sites", "chunks", "modules")
            }
            self.sampled = header["mode"] == layout.MODE_SAMPLED
        with Path(path).open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole = len(self._map) // _WORD * _WORD
        self._words = np.frombuffer(self._map, np.uint64, whole // _WORD)
        self._head = np.frombuffer(self._map, layout.HEADER_DTYPE, 1)
        self._sites_known = self._chunks_known = 0
        self._chosen = np.zeros(layout.MAX_SITES, np.bool_)
        self._bases: list[int] = []  # where the counters of each chunk are, in words, …
        self._groups: list[int] = []  # … and of which group of sites
        self._where = np.zeros(0, np.int64)  # of each counter of a chosen site, …
        self._whose = np.zeros(0, np.int64)  # … and the site
        self.modules: tuple[Module, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._words = self._head = np.zeros(0, np.uint64)

    @property
    def nodes(self) -> npt.NDArray[np.void]:
        """The frames, as they are in the file; a parent has a smaller number than its child."""
        return self._table("nodes", layout.NODE_DTYPE, "node_count", layout.MAX_NODES)

    @property
    def sites(self) -> npt.NDArray[np.void]:
        """The sites, as they are in the file."""
        return self._table("sites", layout.SITE_DTYPE, "site_count", layout.MAX_SITES)

    def count(self) -> SiteCounts:
        """Return what each chosen site holds now. Of a sampled recording: the samples themselves."""
        self._look()
        words, where = self._words, self._where
        blocks = (words[where + _ALLOCS] - words[where + _FREES]).astype(np.int64)
        sizes = (words[where + _BYTES] - words[where + _FREED]).astype(np.int64)
        return SiteCounts(
            np.bincount(self._whose, blocks, self._sites_known).astype(np.float64),
            np.bincount(self._whose, sizes, self._sites_known).astype(np.float64),
        )

    def stack(self, site: int) -> tuple[Address, ...]:
        """Return the addresses on the stack of a site, innermost first."""
        nodes, sites = self.nodes, self.sites
        found: list[Address] = []
        node = int(sites["node"][site]) if site < len(sites) else 0
        while 0 < node < len(nodes) and len(found) < _DEEPEST:
            row = nodes[node]
            module = int(row["module"])
            exact = bool(int(row["flags"]) & NODE_EXACT)
            found.append(Address(module - 1 if module else None, int(row["offset"]), exact))
            parent = int(row["parent"])
            node = parent if parent < node else 0
        return tuple(found)

    def _look(self) -> None:
        """Take up what was added since the last time."""
        sites = min(int(self._head["site_count"][0]), layout.MAX_SITES)
        chunks = min(int(self._head["chunk_count"][0]), layout.MAX_CHUNKS)
        if sites == self._sites_known and chunks == self._chunks_known:
            return
        if int(self._head["module_count"][0]) != len(self.modules):
            self._read_modules()
        new = np.arange(max(self._sites_known, 1), sites)
        if len(new):
            self._chosen[new] = self._choose(self, new)
        table = self._table("chunks", layout.CHUNK_DTYPE, "chunk_count", layout.MAX_CHUNKS)
        for row in table[self._chunks_known : chunks]:
            offset, first = int(row["offset"]), int(row["first_site"])
            sound = offset % _WORD == 0 and offset + _EACH * _COUNTER <= len(self._map)
            if sound and first % _EACH == 0 and first < layout.MAX_SITES:
                self._bases.append(offset // _WORD)
                self._groups.append(first // _EACH)
        self._sites_known, self._chunks_known = sites, chunks
        # Every chunk has the counters of a group of sites, in one stripe.
        bases, groups = np.array(self._bases, np.int64), np.array(self._groups, np.int64)
        of_chunk, slots = np.nonzero(self._chosen.reshape(-1, _EACH)[groups])
        self._where = bases[of_chunk] + slots * (_COUNTER // _WORD)
        self._whose = groups[of_chunk] * _EACH + slots

    def _table(
        self, name: str, dtype: np.dtype[np.void], counter: str, most: int
    ) -> npt.NDArray[np.void]:
        offset = self._offsets[name]
        room = max(0, (len(self._map) - offset) // dtype.itemsize)
        count = min(int(self._head[counter][0]), most, room)
        return np.frombuffer(self._map, dtype, count, offset)

    def _read_modules(self) -> None:
        with Source(self._path) as source:
            self.modules = read_modules(source, Header(source), Doubts())
