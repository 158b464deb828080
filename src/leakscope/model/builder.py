# SPDX-License-Identifier: Apache-2.0
"""The one way in which a recording is put together from what a source tells.

What a source never tells is absent in the recording, not zero (`Recording.absent`). Small
sources add stacks, sites and blocks one by one; large ones hand over whole columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from leakscope.model.columns import Column
from leakscope.model.frames import Address, FrameName, Module
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import (
    AGE_BUCKETS,
    BLOCK_DTYPE,
    KIND_NAMES,
    NODE_DTYPE,
    NODE_EXACT,
    NODE_TRUNCATED,
    NODE_UNADDRESSED,
    RANGE_DTYPE,
    REACH_DTYPE,
    SITE_DTYPE,
    Coverage,
    Process,
    Recording,
    Timeline,
)
from leakscope.model.tool_errors import RecordedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from leakscope.model.reachability import ScanFacts

__all__ = ["MOST_ERRORS", "BuiltFrame", "RecordingBuilder"]

MOST_ERRORS = 10_000
"""Errors of one recording that are told apart."""
_MOST_KINDS = 256
_MOST_LINE = (1 << 32) - 2
_COUNTERS = {column.site_field: column for column in Column if column.site_field is not None}
_REACH = {
    Reachability.DEFINITELY_LOST: "definite",
    Reachability.INDIRECTLY_LOST: "indirect",
    Reachability.POSSIBLY_LOST: "possible",
    Reachability.REACHABLE: "reachable",
}


class BuiltFrame(NamedTuple):
    """A frame as a source knows it: by its address, by its name, or both."""

    address: Address | None = None
    name: FrameName | None = None


class RecordingBuilder:
    """Collects what a source tells of one process; `build` makes the recording.

    `tick_ns` is the length of a tick of ages at death. Times are nanoseconds since the recording
    started, sizes bytes; site 0 stands for unknown and is always there.
    """

    def __init__(
        self,
        process: Process | None = None,
        coverage: Coverage | None = None,
        *,
        tick_ns: float = float(1 << 20),
        duration_ns: int | None = None,
    ) -> None:
        self.process = process or Process()
        self.coverage = coverage or Coverage()
        self._tick_ns = tick_ns
        self._duration_ns = duration_ns
        self._modules: list[Module] = []
        self._nodes: dict[tuple[int, int, int, int, int], int] = {}
        self._names: dict[FrameName, int] = {}
        self._kinds = {name: number for number, name in enumerate(KIND_NAMES)}
        self._sites: dict[tuple[int, int], int] = {}
        self._told: set[Column] = set()
        self._given: set[Column] = set()  # counters of sites that came with values
        self._counted: dict[int, dict[str, int]] = {}
        self._reach: dict[int, dict[str, int]] = {}
        self._reach_known = False
        self._blocks: list[npt.NDArray[np.void]] = []
        self._ranges: list[npt.NDArray[np.void]] = []
        self._node_table: npt.NDArray[np.void] | None = None
        self._site_table: npt.NDArray[np.void] | None = None
        self._deaths: npt.NDArray[np.uint64] | None = None
        self._timeline: Timeline | None = None
        self._reachability: npt.NDArray[np.uint8] | None = None
        self._scan: ScanFacts | None = None
        self._errors: dict[tuple[str, int, str], int] = {}
        self._error_texts: dict[tuple[str, int, str], str] = {}

    # ---- one by one

    def module(self, module: Module) -> int:
        """Add an object that was mapped; returns the index that an `Address` names it by."""
        self._modules.append(module)
        return len(self._modules) - 1

    def stack(self, frames: Sequence[BuiltFrame], *, truncated: bool = False) -> int:
        """Add a call stack, innermost frame first; returns its node, 0 for an empty one.

        `truncated` tells that there were more frames further out.
        """
        node = 0
        for frame in reversed(frames):
            flags = NODE_TRUNCATED if truncated and node == 0 else 0
            module = offset = 0
            if frame.address is None:
                flags |= NODE_UNADDRESSED
            else:
                flags |= NODE_EXACT * frame.address.exact
                module = 0 if frame.address.module is None else frame.address.module + 1
                offset = frame.address.offset
            name = 0 if frame.name is None else self._name(frame.name)
            if frame.address is None and not name:
                raise ValueError("a frame needs an address or a name")
            key = (node, module, flags, offset, name)
            node = self._nodes.setdefault(key, len(self._nodes) + 1)
        return node

    def site(self, node: int, kind: str = "malloc", **counters: int) -> int:
        """Return the site of a stack and a kind; adds it, and what is told of it.

        `counters` are members of `SITE_DTYPE` such as `live_bytes`; numbers of a site that is
        told of twice are added, but for births, of which the first and the last are kept.
        """
        return self._site(node, self.kind(kind), counters)

    def kind(self, name: str) -> int:
        """Return the number of a kind of allocation, which is added when it is new."""
        if name not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            raise ValueError(f"a recording has at most {_MOST_KINDS} kinds of allocations")
        return self._kinds.setdefault(name, len(self._kinds))

    def fills(self, *columns: Column) -> None:
        """Tell that the source knows these columns, even where nothing is in them."""
        self._told.update(columns)

    def reach(self, site: int, kind: Reachability, count: int, size: int) -> None:
        """Tell what points to `count` blocks of a site, together `size` bytes."""
        told = self._reach.setdefault(site, dict.fromkeys(REACH_DTYPE.names or (), 0))
        told[f"{_REACH[kind]}_count"] += count
        told[f"{_REACH[kind]}_bytes"] += size

    def reach_is_known(self) -> None:
        """Tell that what points to blocks was looked for, even where nothing was found."""
        self._reach_known = True

    def block(self, address: int, size: int, site: int, birth_ns: int = 0) -> None:
        """Add a block that is held."""
        self.blocks(np.array([(address, size, site, birth_ns)], BLOCK_DTYPE))

    def died(self, site: int, ages_ns: Iterable[float]) -> None:
        """Add blocks that were freed at these ages."""
        ticks = np.asarray(list(ages_ns), float) / self._tick_ns
        bucket = np.where(ticks >= 1, np.floor(np.log2(np.maximum(ticks, 1))) + 1, 0)
        if self._deaths is None or len(self._deaths) <= site:
            table = np.zeros((site + 1, AGE_BUCKETS), np.uint64)
            if self._deaths is not None:
                table[: len(self._deaths)] = self._deaths
            self._deaths = table
        np.add.at(self._deaths[site], bucket.astype(int).clip(max=AGE_BUCKETS - 1), np.uint64(1))

    def error(
        self, kind: str, text: str, frames: Sequence[BuiltFrame] = (), count: int = 1
    ) -> None:
        """Add an error that is no leak; those of one kind and stack are counted together.

        Where there is no stack, those of one text are. At most `MOST_ERRORS` are told apart.
        """
        node = self.stack(frames)
        key = (kind, node, "" if node else text)
        if key not in self._errors and len(self._errors) >= MOST_ERRORS:
            key = ("other errors", 0, "")
            text = "errors beyond those that are told apart"
        self._errors[key] = self._errors.get(key, 0) + count
        self._error_texts.setdefault(key, text)

    # ---- whole columns

    def nodes(self, table: npt.NDArray[np.void]) -> None:
        """Take a whole table of frames (`NODE_DTYPE`); `stack` is then of no use."""
        self._node_table = table

    def sites(self, rows: int, **columns: Any) -> None:
        """Take whole columns of `SITE_DTYPE`, `rows` of them with site 0; others stay unknown."""
        table = np.zeros(rows, SITE_DTYPE)
        for name, values in columns.items():
            table[name] = values
        self._site_table = table
        self._given.update(_COUNTERS[name] for name in columns if name in _COUNTERS)

    def blocks(self, table: npt.NDArray[np.void]) -> None:
        """Add blocks that are held (`BLOCK_DTYPE`); an empty table says that there are none."""
        self._blocks.append(table)

    def ranges(self, table: npt.NDArray[np.void]) -> None:
        """Add mappings that are held (`RANGE_DTYPE`); an empty table says that there are none."""
        self._ranges.append(table)

    def deaths(self, table: npt.NDArray[np.uint64]) -> None:
        """Take deaths by age: shape (sites, AGE_BUCKETS)."""
        self._deaths = table

    def timeline(self, timeline: Timeline) -> None:
        """Take the course of what was held."""
        self._timeline = timeline

    def examined(self, reachability: npt.NDArray[np.uint8], scan: ScanFacts | None = None) -> None:
        """Take what points to each block, as `Reachability`."""
        self._reachability, self._scan = reachability, scan

    # ---- the recording

    def build(self) -> Recording:
        """Return the recording."""
        sites = self._sites_of_all()
        blocks = _joined(self._blocks, BLOCK_DTYPE)
        told = self._told | self._given
        if self._blocks:
            told.add(Column.BLOCKS)
            self._add_up(sites, blocks)
            told |= {Column.LIVE_COUNT, Column.LIVE_BYTES}
        for column, there in (
            (Column.RANGES, bool(self._ranges)),
            (Column.DEATHS, self._deaths is not None),
            (Column.TIMELINE, self._timeline is not None),
            (Column.DURATION, self._duration_ns is not None),
        ):
            if there:
                told.add(column)
        deaths = np.zeros((len(sites), AGE_BUCKETS), np.uint64)
        if self._deaths is not None:
            deaths[: len(self._deaths)] = self._deaths
        return Recording(
            process=self.process,
            modules=tuple(self._modules),
            nodes=self._nodes_of_all(),
            sites=sites,
            blocks=blocks,
            ranges=_joined(self._ranges, RANGE_DTYPE),
            deaths=deaths,
            timeline=self._timeline or Timeline.empty(len(sites)),
            coverage=self.coverage,
            tick_ns=self._tick_ns,
            duration_ns=self._duration_ns or 0,
            reachability=self._reachability,
            scan=self._scan,
            names=tuple(self._names),
            kinds=tuple(self._kinds),
            absent=frozenset(Column) - told,
            site_reach=self._reach_of_all(len(sites)),
            errors=tuple(
                RecordedError(key[0], self._error_texts[key], count, key[1])
                for key, count in self._errors.items()
            ),
        )

    def _name(self, name: FrameName) -> int:
        for number in (name.line, name.column):
            if number is not None and not 0 <= number <= _MOST_LINE:
                raise ValueError(f"{number} is no number of a line or column")
        return self._names.setdefault(name, len(self._names) + 1)

    def _site(self, node: int, kind: int, counters: dict[str, int]) -> int:
        site = self._sites.setdefault((node, kind), len(self._sites) + 1)
        told = self._counted.setdefault(site, {})
        for name, value in counters.items():
            self._given.add(_COUNTERS[name])
            if name == "first_birth_ns":
                told[name] = min(told.get(name, value), value)
            elif name == "last_birth_ns":
                told[name] = max(told.get(name, value), value)
            else:
                told[name] = told.get(name, 0) + value
        return site

    def _nodes_of_all(self) -> npt.NDArray[np.void]:
        if self._node_table is not None:
            return self._node_table
        table = np.zeros(len(self._nodes) + 1, NODE_DTYPE)
        for number, (parent, module, flags, offset, name) in enumerate(self._nodes, 1):
            table[number] = (parent, module, flags, offset, name)
        return table

    def _sites_of_all(self) -> npt.NDArray[np.void]:
        if self._site_table is not None:
            return self._site_table
        nodes = self._nodes_of_all()
        table = np.zeros(len(self._sites) + 1, SITE_DTYPE)
        for (node, kind), number in self._sites.items():
            table["node"][number], table["kind"][number] = node, kind
            depth, at = 0, node
            while at:
                depth, at = depth + 1, int(nodes["parent"][at])
            table["depth"][number] = min(depth, 0xFFFF)
            for name, value in self._counted[number].items():
                table[name][number] = value
        return table

    def _reach_of_all(self, sites: int) -> npt.NDArray[np.void] | None:
        if not self._reach and not self._reach_known:
            return None
        table = np.zeros(sites, REACH_DTYPE)
        for site, told in self._reach.items():
            for name, value in told.items():
                table[name][site] = value
        return table

    def _add_up(self, sites: npt.NDArray[np.void], blocks: npt.NDArray[np.void]) -> None:
        """Fill in what the blocks tell of their sites, where the source did not."""
        size = len(sites)
        if Column.LIVE_COUNT not in self._given:
            sites["live_count"] = np.bincount(blocks["site"], minlength=size)
        if Column.LIVE_BYTES not in self._given:
            held = np.bincount(blocks["site"], blocks["size"].astype(np.float64), minlength=size)
            sites["live_bytes"] = held


def _joined(tables: list[npt.NDArray[np.void]], dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    return tables[0] if len(tables) == 1 else np.concatenate([np.zeros(0, dtype), *tables])
