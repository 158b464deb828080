# SPDX-License-Identifier: Apache-2.0
"""How many blocks each site of a live recording holds, counted again and again at little cost.

A whole recording is read in a fraction of a second; this reads the counters alone, into the same
room each time, for those who ask after every test of a suite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from leakscope.model.frames import Address, Module
from leakscope.model.recordings import KIND_NAMES, NODE_DTYPE, NODE_EXACT
from leakscope.recording import layout
from leakscope.recording._header import Header
from leakscope.recording._source import Source
from leakscope.recording._tables import (
    Doubts,
    drop_unknown_modules,
    mend_sites,
    read_modules,
    read_nodes,
    read_sites,
)

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

__all__ = ["Held", "Tally"]

_EACH = layout.CHUNK_SITES
_CHUNK_BYTES = _EACH * layout.COUNTER_DTYPE.itemsize
_DEEPEST = 512


@dataclass(frozen=True, slots=True)
class Held:
    """Blocks and bytes that each site holds at one moment, by site number; of samples, raw counts."""

    counts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def since(self, before: Held) -> Held:
        """Return what each site holds more than at an earlier moment; sites may have been added."""
        counts, sizes = self.counts.copy(), self.sizes.copy()
        counts[: len(before.counts)] -= before.counts[: len(counts)]
        sizes[: len(before.sizes)] -= before.sizes[: len(sizes)]
        return Held(counts, sizes)


class Tally:
    """An open live recording whose counters are read many times. A context manager.

    Raises `RecordingError` where it is none, or is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._source = Source(path)
        self._room = np.zeros(0, layout.COUNTER_DTYPE)
        self._nodes = np.zeros(1, NODE_DTYPE)
        self._sites = np.zeros(1, layout.SITE_DTYPE)
        self.modules: tuple[Module, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.__exit__()

    def count(self) -> Held:
        """Return what each site holds now."""
        header = self._header()
        sites = max(1, header["site_count"])
        groups = -(-sites // _EACH)
        counts = np.zeros((groups, _EACH), np.int64)
        sizes = np.zeros((groups, _EACH), np.int64)
        chunks = self._source.array(
            layout.CHUNK_DTYPE, header.offset("chunks"), header["chunk_count"]
        )
        sound = (chunks["offset"] >= header.heap_start) & (chunks["first_site"] < groups * _EACH)
        sound &= (chunks["first_site"] % _EACH == 0) & (chunks["offset"] < header["file_bytes"])
        chunks = np.sort(chunks[sound], order="offset")
        # The agent takes them one behind the other: a few long reads.
        breaks = np.flatnonzero(np.diff(chunks["offset"]) != _CHUNK_BYTES) + 1
        for run in np.split(chunks, breaks) if len(chunks) else ():
            if len(self._room) < len(run) * _EACH:
                self._room = np.zeros(len(run) * _EACH * 2, layout.COUNTER_DTYPE)
            room = self._room[: len(run) * _EACH]
            room[:] = np.zeros(1, layout.COUNTER_DTYPE) if len(run) == 1 else room
            got = self._source.array(layout.COUNTER_DTYPE, int(run["offset"][0]), len(room), room)
            piece = got[: len(got) // _EACH * _EACH].reshape(-1, _EACH)
            where = (run["first_site"][: len(piece)] // _EACH).astype(np.int64)
            born = piece["allocs"].astype(np.int64) - piece["frees"].astype(np.int64)
            size = piece["alloc_bytes"].astype(np.int64) - piece["freed_bytes"].astype(np.int64)
            np.add.at(counts, where, born)  # a group has a chunk in each stripe that counted
            np.add.at(sizes, where, size)
        return Held(counts.reshape(-1)[:sites], sizes.reshape(-1)[:sites])

    def stack(self, site: int) -> tuple[Address, ...]:
        """Return the addresses on the stack of a site, innermost first."""
        if site >= len(self._sites):
            self._read_stacks()
        if site >= len(self._sites):
            return ()
        found: list[Address] = []
        node = int(self._sites["node"][site])
        while 0 < node < len(self._nodes) and len(found) < _DEEPEST:
            row = self._nodes[node]
            module = int(row["module"])
            found.append(
                Address(
                    module - 1 if module else None,
                    int(row["offset"]),
                    bool(int(row["flags"]) & NODE_EXACT),
                )
            )
            node = int(row["parent"])
        return tuple(found)

    def kind(self, site: int) -> str:
        """Return how the blocks of a site were asked for."""
        known = site < len(self._sites)
        return KIND_NAMES[int(self._sites["kind"][site])] if known else KIND_NAMES[0]

    @property
    def sampled(self) -> bool:
        """Whether the recording is of samples."""
        return self._header()["mode"] == layout.MODE_SAMPLED

    def _header(self) -> Header:
        return Header(self._source)

    def _read_stacks(self) -> None:
        # A file that grew: its length was asked when it was opened.
        self._source.__exit__()
        self._source = Source(self._path)
        doubts = Doubts()
        sites = read_sites(self._source, self._header())
        nodes = read_nodes(self._source, self._header(), doubts)
        mend_sites(sites, len(nodes), doubts)
        modules = read_modules(self._source, self._header(), doubts)
        drop_unknown_modules(nodes, modules, doubts)
        self._sites, self._nodes, self.modules = sites, nodes, modules
