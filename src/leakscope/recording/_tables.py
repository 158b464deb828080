# SPDX-License-Identifier: Apache-2.0
"""The bounded tables of a live recording: modules, stacks, sites, counters, ranges, timeline.

References that lead nowhere are set to "unknown" and counted in `Doubts`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.frames import Module
from leakscope.model.recordings import AGE_BUCKETS, NODE_DTYPE, RANGE_DTYPE, Kind, Timeline
from leakscope.recording import _layout
from leakscope.recording._header import Header

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.recording._source import Source

__all__ = [
    "Counters",
    "Doubts",
    "drop_unknown_modules",
    "mend_sites",
    "read_counters",
    "read_modules",
    "read_nodes",
    "read_ranges",
    "read_sites",
    "read_timeline",
]

_MAX_PATH = 4096
_MOST_BYTES = 1 << 60


@dataclass(slots=True)
class Doubts:
    """How many entries had to be mended or left out, by what was wrong with them."""

    modules: int = 0
    nodes: int = 0
    sites: int = 0
    ranges: int = 0
    blocks: int = 0
    shards_broken: int = 0
    shards_unsettled: int = 0
    rows: int = 0

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each."""
        sentences = (
            (self.modules, "modules have no readable path or build-id"),
            (self.nodes, "stack frames pointed to a frame or module that is not there"),
            (self.sites, "allocation sites pointed to a stack that is not there"),
            (self.ranges, "mappings were at impossible addresses or of no known site"),
            (self.blocks, "live blocks were at impossible addresses or of no known site"),
            (self.shards_broken, "of the 1024 parts of the block table could not be found"),
            (
                self.shards_unsettled,
                "of the 1024 parts of the block table were being replaced: blocks may be missing",
            ),
            (self.rows, "rows of the timeline held impossible sizes or claims"),
        )
        return tuple(f"{count} {text}" for count, text in sentences if count)


@dataclass(frozen=True, slots=True)
class Counters:
    """Sums over the stripes. Arrays are by site; births in ticks, valid where allocs > 0."""

    allocs: npt.NDArray[np.uint64]
    alloc_bytes: npt.NDArray[np.uint64]
    frees: npt.NDArray[np.uint64]
    freed_bytes: npt.NDArray[np.uint64]
    alloc_weight: npt.NDArray[np.uint64]
    free_weight: npt.NDArray[np.uint64]
    first_birth: npt.NDArray[np.uint32]
    last_birth: npt.NDArray[np.uint32]
    deaths: npt.NDArray[np.uint64]  # (sites, AGE_BUCKETS)
    drops: dict[str, int]
    alloc_events: int
    free_events: int


def read_modules(source: Source, header: Header, doubts: Doubts) -> tuple[Module, ...]:
    """Read the list of loaded objects."""
    table = source.array(_layout.MODULE_DTYPE, header.offset("modules"), header["module_count"])
    strings = source.read(header.offset("strings"), header["string_bytes"])
    modules = []
    for row in table:
        start, length = int(row["path_offset"]), int(row["path_bytes"])
        bits = int(row["build_id_bytes"])
        sound = start + length <= len(strings) and length <= _MAX_PATH
        path = strings[start : start + length].split(b"\0", 1)[0] if sound else b""
        if not sound or bits > len(row["build_id"]):
            doubts.modules += 1
            bits = 0
        modules.append(
            Module(
                path=os.fsdecode(path),
                build_id=bytes(row["build_id"][:bits]).hex() or None,
                start=int(row["start"]),
                end=int(row["end"]),
                bias=int(row["bias"]),
                unloaded=int(row["gone_tick"]) != 0,
            )
        )
    return tuple(modules)


def read_nodes(source: Source, header: Header, doubts: Doubts) -> npt.NDArray[np.void]:
    """Read the stack depot; every parent has a smaller index than its child."""
    count = max(1, header["node_count"])
    nodes = np.zeros(count, NODE_DTYPE)
    for at, piece in source.pieces(_layout.NODE_DTYPE, header.offset("nodes"), count):
        for name in ("parent", "module", "flags", "offset"):
            nodes[name][at : at + len(piece)] = piece[name]
    nodes[0] = 0
    orphans = nodes["parent"] >= np.arange(count)
    orphans[0] = False
    nodes["parent"][orphans] = 0
    doubts.nodes += int(np.count_nonzero(orphans))
    return nodes


def drop_unknown_modules(
    nodes: npt.NDArray[np.void], modules: tuple[Module, ...], doubts: Doubts
) -> None:
    """Make nodes of a module that is not there belong to none."""
    unknown = nodes["module"] > len(modules)
    nodes["module"][unknown] = 0
    doubts.nodes += int(np.count_nonzero(unknown))


def read_sites(source: Source, header: Header) -> npt.NDArray[np.void]:
    """Read the sites as they are in the file; site 0 stands for unknown."""
    sites = np.zeros(max(1, header["site_count"]), _layout.SITE_DTYPE)
    for at, piece in source.pieces(_layout.SITE_DTYPE, header.offset("sites"), len(sites)):
        sites[at : at + len(piece)] = piece
    sites[0] = 0
    return sites


def mend_sites(sites: npt.NDArray[np.void], nodes: int, doubts: Doubts) -> None:
    """Give sites of an unknown stack or kind the root and plain malloc."""
    unknown = (sites["node"] >= nodes) | (sites["kind"] > max(Kind))
    sites["node"][sites["node"] >= nodes] = 0
    sites["kind"][sites["kind"] > max(Kind)] = Kind.MALLOC
    doubts.sites += int(np.count_nonzero(unknown))


def read_counters(source: Source, header: Header, sites: int) -> Counters:
    """Add up the counters of all stripes for the first `sites` sites."""
    names = ("allocs", "alloc_bytes", "frees", "freed_bytes", "alloc_weight", "free_weight")
    sums = {name: np.zeros(sites, np.uint64) for name in names}
    deaths = np.zeros((sites, AGE_BUCKETS), np.uint64)
    first = np.full(sites, 0xFFFFFFFF, np.uint32)
    last = np.zeros(sites, np.uint32)
    drops = np.zeros(_layout.DROP_REASONS, np.uint64)
    events = np.zeros(2, np.uint64)
    for stripe, used in enumerate(header.stripe_sites):
        start = header.offset("counters") + stripe * header["stripe_bytes"]
        for head in source.array(_layout.STRIPE_HEAD_DTYPE, start, 1):
            drops += head["drops"]
            events += np.array([head["alloc_events"], head["free_events"]])
        for at, piece in source.pieces(
            _layout.COUNTER_DTYPE, start + _layout.STRIPE_HEAD_BYTES, min(used, sites), 1 << 14
        ):
            here = slice(at, at + len(piece))
            for name, total in sums.items():
                total[here] += piece[name]
            deaths[here] += piece["deaths"]
            born = piece["allocs"] > 0
            np.minimum(first[here], piece["first_birth"], out=first[here], where=born)
            np.maximum(last[here], piece["last_birth"], out=last[here], where=born)
    return Counters(
        **sums,
        first_birth=np.minimum(first, last),
        last_birth=last,
        deaths=deaths,
        drops={
            _layout.DROP_NAMES[reason]: int(count) for reason, count in enumerate(drops) if count
        },
        alloc_events=int(events[0]),
        free_events=int(events[1]),
    )


def read_ranges(
    source: Source, header: Header, sites: int, doubts: Doubts
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint32]]:
    """Read the program's own mappings, by address, and the ticks of their birth."""
    table = source.array(_layout.RANGE_DTYPE, header.offset("ranges"), header["range_slots"])
    table = table[table["length"] > 0]
    top = np.uint64(1 << 56)
    sound = (table["start"] < top) & (table["length"] <= top)
    doubts.ranges += int(np.count_nonzero(~sound))
    table = table[sound]
    table = table[np.argsort(table["start"], kind="stable")]
    unknown = table["site"] >= sites
    doubts.ranges += int(np.count_nonzero(unknown))
    ranges = np.zeros(len(table), RANGE_DTYPE)
    ranges["start"] = table["start"]
    ranges["length"] = table["length"]
    ranges["site"] = np.where(unknown, 0, table["site"])
    return ranges, table["birth"].copy()


def read_timeline(
    source: Source, header: Header, sites: int, doubts: Doubts
) -> tuple[Timeline, npt.NDArray[np.uint32]]:
    """Read the snapshots in order of time, and their ticks; `times_ns` is left to the caller.

    A row that its writer replaced meanwhile is left out, as if we had come a moment earlier.
    """
    entry = _layout.TIMELINE_ENTRY_DTYPE
    room = header["timeline_row_bytes"] // entry.itemsize
    rows = header.rows
    doubts.rows += int(np.count_nonzero(rows["sites"] > room))
    chosen = np.flatnonzero((rows["sites"] > 0) & (rows["sites"] <= room))
    chosen = chosen[np.lexsort((rows["sites"][chosen], rows["tick"][chosen]))]
    ticks = rows["tick"][chosen]
    chosen = chosen[np.append(ticks[1:] != ticks[:-1], True)[: len(chosen)]]  # the last of a tick
    site_bytes = np.zeros((len(chosen), sites), np.float32)
    site_counts = np.zeros((len(chosen), sites), np.uint32)
    for number, row in enumerate(chosen):
        start = header.offset("timeline") + int(row) * header["timeline_row_bytes"]
        for at, piece in source.pieces(entry, start, min(int(rows["sites"][row]), sites)):
            site_bytes[number, at : at + len(piece)] = piece["live_bytes"]
            site_counts[number, at : at + len(piece)] = piece["live_count"]
    again = Header(source).rows
    same = (rows["sites"][chosen] == again["sites"][chosen]) & (
        rows["tick"][chosen] == again["tick"][chosen]
    )
    if not same.all():
        chosen, site_bytes, site_counts = chosen[same], site_bytes[same], site_counts[same]
    # Not a number, or no number of bytes that a process can have.
    wrong = ~((site_bytes >= 0) & (site_bytes < _MOST_BYTES))
    if wrong.any():
        doubts.rows += int(np.count_nonzero(wrong.any(axis=1)))
        site_bytes[wrong] = 0
    shown = rows[chosen]
    rss = np.minimum(shown["rss_pages"], np.uint64(1 << 50)).astype(np.int64)
    timeline = Timeline(
        times_ns=np.zeros(len(chosen), np.int64),
        live_bytes=np.minimum(shown["live_bytes"], np.uint64(_MOST_BYTES)).astype(np.int64),
        live_counts=np.minimum(shown["live_count"], np.uint64(_MOST_BYTES)).astype(np.int64),
        site_bytes=site_bytes,
        site_counts=site_counts,
        rss_bytes=rss * min(header["page_bytes"], 1 << 20) if rss.any() else None,
    )
    return timeline, shown["tick"].astype(np.uint32)
