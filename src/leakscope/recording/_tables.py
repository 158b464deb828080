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
from leakscope.recording import layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from leakscope.recording._header import Header
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
# A stripe's head with the room up to the next one.
_PADDED_HEAD = np.dtype(
    {
        "names": list(layout.STRIPE_HEAD_DTYPE.names or ()),
        "formats": [
            layout.STRIPE_HEAD_DTYPE[name] for name in layout.STRIPE_HEAD_DTYPE.names or ()
        ],
        "offsets": [form[1] for form in (layout.STRIPE_HEAD_DTYPE.fields or {}).values()],
        "itemsize": layout.STRIPE_HEAD_BYTES,
    }
)
_MOST_BYTES = 1 << 60
_CHUNKS = 256  # read at once: 3 MiB


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
    chunks: int = 0

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
            (self.chunks, "parts of the counters are nowhere"),
            (
                self.rows,
                f"row{'' if self.rows == 1 else 's'} of the timeline held impossible sizes or claims",
            ),
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
    table = source.array(layout.MODULE_DTYPE, header.offset("modules"), header["module_count"])
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
    for at, piece in source.pieces(layout.NODE_DTYPE, header.offset("nodes"), count):
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
    sites = np.zeros(max(1, header["site_count"]), layout.SITE_DTYPE)
    for at, piece in source.pieces(layout.SITE_DTYPE, header.offset("sites"), len(sites)):
        sites[at : at + len(piece)] = piece
    sites[0] = 0
    return sites


def mend_sites(sites: npt.NDArray[np.void], nodes: int, doubts: Doubts) -> None:
    """Give sites of an unknown stack or kind the root and plain malloc."""
    unknown = (sites["node"] >= nodes) | (sites["kind"] > max(Kind))
    sites["node"][sites["node"] >= nodes] = 0
    sites["kind"][sites["kind"] > max(Kind)] = Kind.MALLOC
    doubts.sites += int(np.count_nonzero(unknown))


def read_counters(source: Source, header: Header, sites: int, doubts: Doubts) -> Counters:
    """Add up the counters of all stripes for the first `sites` sites."""
    names = ("allocs", "alloc_bytes", "frees", "freed_bytes", "alloc_weight", "free_weight")
    each = layout.CHUNK_SITES
    groups = -(-sites // each)
    sums = {name: np.zeros((groups, each), np.uint64) for name in names}
    deaths = np.zeros((groups, each, AGE_BUCKETS), np.uint64)
    first = np.full((groups, each), 0xFFFFFFFF, np.uint32)
    last = np.zeros((groups, each), np.uint32)
    drops = np.zeros(layout.DROP_REASONS, np.uint64)
    events = np.zeros(2, np.uint64)
    heads = source.array(_PADDED_HEAD, header.offset("stripes"), layout.STRIPES)
    drops += heads["drops"].sum(axis=0)
    events += np.array([heads["alloc_events"].sum(), heads["free_events"].sum()])
    for where, piece in _chunks(source, header, groups, doubts):
        for name, total in sums.items():
            total[where] += piece[name]
        deaths[where] += piece["deaths"]
        born = piece["allocs"] > 0
        first[where] = np.minimum(first[where], np.where(born, piece["first_birth"], 0xFFFFFFFF))
        last[where] = np.maximum(last[where], np.where(born, piece["last_birth"], 0))
    sums = {name: total.reshape(-1)[:sites] for name, total in sums.items()}
    deaths = deaths.reshape(-1, AGE_BUCKETS)[:sites]
    first, last = first.reshape(-1)[:sites], last.reshape(-1)[:sites]
    return Counters(
        **sums,
        first_birth=np.minimum(first, last),
        last_birth=last,
        deaths=deaths,
        drops={
            layout.DROP_NAMES[reason]: int(count) for reason, count in enumerate(drops) if count
        },
        alloc_events=int(events[0]),
        free_events=int(events[1]),
    )


def read_sums(
    source: Source, header: Header, sites: int, names: tuple[str, ...]
) -> dict[str, npt.NDArray[np.uint64]]:
    """Add up the counters of these names alone, a fraction of what `read_counters` does."""
    each = layout.CHUNK_SITES
    groups = -(-sites // each)
    sums = {name: np.zeros((groups, each), np.uint64) for name in names}
    for where, piece in _chunks(source, header, groups, Doubts()):
        for name, total in sums.items():
            total[where] += piece[name]
    return {name: total.reshape(-1)[:sites] for name, total in sums.items()}


def _chunks(
    source: Source, header: Header, groups: int, doubts: Doubts
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.void]]]:
    """Yield counters, and which chunks of sites they belong to, none of them twice at once."""
    each = layout.CHUNK_SITES
    size = each * layout.COUNTER_DTYPE.itemsize
    listed = source.array(layout.CHUNK_DTYPE, header.offset("chunks"), header["chunk_count"])
    sound = (listed["offset"] >= header.heap_start) & (listed["stripe"] < layout.STRIPES)
    sound &= (listed["first_site"] < layout.MAX_SITES) & (listed["first_site"] % each == 0)
    sound &= listed["offset"] < header["file_bytes"]
    doubts.chunks += int(np.count_nonzero(~sound))
    listed = listed[sound & (listed["first_site"] < groups * each)]  # younger sites: not read
    for stripe in sorted(set(listed["stripe"].tolist())):
        chunks = np.sort(listed[listed["stripe"] == stripe], order="offset")
        for begin in range(0, len(chunks), _CHUNKS):
            part = chunks[begin : begin + _CHUNKS]
            room = np.zeros((len(part), each), layout.COUNTER_DTYPE)
            # The agent takes them one behind the other: a few long reads.
            breaks = np.flatnonzero(np.diff(part["offset"]) != size) + 1
            for run in np.split(np.arange(len(part)), breaks):
                source.array(
                    layout.COUNTER_DTYPE,
                    int(part["offset"][run[0]]),
                    len(run) * each,
                    room[run[0] : run[-1] + 1].reshape(-1),
                )
            yield (part["first_site"] // each).astype(np.int64), room


def read_ranges(
    source: Source, header: Header, sites: int, doubts: Doubts
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint32]]:
    """Read the program's own mappings, by address, and the ticks of their birth."""
    table = source.array(layout.RANGE_DTYPE, header.offset("ranges"), header["range_slots"])
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


def _rows_that_are_somewhere(rows: npt.NDArray[np.void], header: Header) -> npt.NDArray[np.bool_]:
    """In use, inside the heap, and in no other row's place."""
    sites = rows["sites"].astype(np.uint64)
    ends = rows["offset"] + sites * np.uint64(layout.TIMELINE_ENTRY_DTYPE.itemsize)
    sound: npt.NDArray[np.bool_] = (
        (sites > 0)
        & (rows["sites"] <= rows["room"])
        & (rows["offset"] >= header.heap_start)
        & (rows["offset"] <= header["file_bytes"])
        & (ends <= header["file_bytes"])
    )
    order = np.flatnonzero(sound)
    order = order[np.argsort(rows["offset"][order], kind="stable")]
    reach = np.maximum.accumulate(ends[order])
    sound[order[1:][rows["offset"][order[1:]] < reach[:-1]]] = False
    return sound


def read_timeline(
    source: Source, header: Header, sites: int, doubts: Doubts
) -> tuple[Timeline, npt.NDArray[np.uint32]]:
    """Read the snapshots in order of time, and their ticks; `times_ns` is left to the caller.

    A row that its writer replaced meanwhile is left out, as if we had come a moment earlier.
    """
    entry = layout.TIMELINE_ENTRY_DTYPE
    rows = header.rows
    sound = _rows_that_are_somewhere(rows, header)
    doubts.rows += int(np.count_nonzero((rows["sites"] > 0) & ~sound))
    chosen = np.flatnonzero(sound)
    chosen = chosen[np.lexsort((rows["sites"][chosen], rows["tick"][chosen]))]
    ticks = rows["tick"][chosen]
    chosen = chosen[np.append(ticks[1:] != ticks[:-1], True)[: len(chosen)]]  # the last of a tick
    site_bytes = np.zeros((len(chosen), sites), np.float32)
    site_counts = np.zeros((len(chosen), sites), np.uint32)
    for number, row in enumerate(chosen):
        for at, piece in source.pieces(
            entry, int(rows["offset"][row]), min(int(rows["sites"][row]), sites)
        ):
            site_bytes[number, at : at + len(piece)] = piece["live_bytes"]
            site_counts[number, at : at + len(piece)] = piece["live_count"]
    again = header.again(source).rows
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
