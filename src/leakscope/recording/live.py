# SPDX-License-Identifier: Apache-2.0
"""Read a live recording: at any moment, while its program runs or after its death.

Nothing is asked of the traced process and nothing is written. What is read later was there
earlier: blocks first, then the sites they point to, then their frames, then the modules, so a
program that goes on meanwhile never makes a reference lead nowhere.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.recordings import (
    SITE_DTYPE,
    Coverage,
    Kind,
    Mark,
    Process,
    Recording,
    Timeline,
)
from leakscope.recording import layout
from leakscope.recording._blocks import Weigher, decode, read_table
from leakscope.recording._free_errors import read_free_errors, unseen_free_errors
from leakscope.recording._header import Header
from leakscope.recording._source import Source
from leakscope.recording._tables import (
    Counters,
    Doubts,
    drop_unknown_modules,
    mend_sites,
    read_counters,
    read_modules,
    read_nodes,
    read_ranges,
    read_sites,
    read_timeline,
)
from leakscope.recording.writer import find_writer
from leakscope.words import bytes_text

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

    from leakscope.recording._blocks import Blocks

__all__ = ["read", "read_source"]

_PAUSED = 1  # bit of the header's control word
_WEIGHT_ONE = 1 << 10  # the weights of sampled counters carry ten fractional bits
_MOST = 1 << 62

# An allocation that met one of these was seen, but is in no site's counters.
_SEEN_ALLOCATIONS = ("early", "reentrant", "table_full", "filtered", "paused", "ranges_full")


def read(path: str | os.PathLike[str]) -> Recording:
    """Return what the live recording at `path` holds now.

    Raises `RecordingError` when it is no live recording, of a newer version, or damaged beyond
    use. Lesser damage is mended, counted and told in `coverage.notes`.
    """
    with Source(path) as source:
        return read_source(source)


def read_source(source: Source) -> Recording:
    """Return what an open live recording holds now; `read` says more."""
    begun_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    doubts = Doubts()
    header = Header(source)
    table = read_table(source, header.heap_start, header["file_bytes"])
    header = header.again(source)
    ranges, range_ticks = read_ranges(source, header, header["site_count"], doubts)
    header = header.again(source)
    sites = read_sites(source, header)
    counters = read_counters(source, header, len(sites), doubts)
    timeline, row_ticks = read_timeline(source, header, len(sites), doubts)
    header = header.again(source)
    nodes = read_nodes(source, header, doubts)
    mend_sites(sites, len(nodes), doubts)
    header = header.again(source)
    modules = read_modules(source, header, doubts)
    drop_unknown_modules(nodes, modules, doubts)
    header = header.again(source)
    free_errors = read_free_errors(source, header, len(sites), len(nodes))

    tick_ns = header.tick_ns
    sampled = header["mode"] == layout.MODE_SAMPLED
    weigher = Weigher(header["sample_bytes"] if sampled else 0)
    blocks = decode(table, len(sites), tick_ns, weigher)
    doubts.blocks += blocks.unknown_sites + blocks.no_address
    doubts.shards_broken, doubts.shards_unsettled = table.broken, table.unsettled
    ranges["birth_ns"] = range_ticks * tick_ns
    timeline.times_ns[:] = row_ticks * tick_ns

    writer = _writer(source, header)
    running = writer is not None
    header = header.again(source)  # if it ended meanwhile, this says how
    last_tick = max(
        blocks.last_tick,
        *(int(ticks.max(initial=0)) for ticks in (range_ticks, row_ticks, counters.last_birth)),
    )
    duration_ns = _duration(header, int(last_tick * tick_ns), begun_ns if running else None)
    return Recording(
        process=_process(source, header, writer, duration_ns),
        modules=modules,
        nodes=nodes,
        sites=_sites(sites, counters, blocks, ranges, timeline, tick_ns, sampled),
        blocks=blocks.blocks,
        ranges=ranges,
        deaths=counters.deaths,
        timeline=timeline,
        coverage=_coverage(header, counters, doubts, sampled),
        tick_ns=tick_ns,
        duration_ns=duration_ns,
        free_errors=free_errors,
        marks=_marks(header),
        author=source.owner,
    )


def _sites(
    raw: npt.NDArray[np.void],
    counters: Counters,
    blocks: Blocks,
    ranges: npt.NDArray[np.void],
    timeline: Timeline,
    tick_ns: float,
    sampled: bool,
) -> npt.NDArray[np.void]:
    sites = np.zeros(len(raw), SITE_DTYPE)
    for name in ("node", "kind", "depth"):
        sites[name] = raw[name]
    for name in ("allocs", "alloc_bytes", "frees", "freed_bytes"):
        sites[name] = getattr(counters, name)
    if sampled:
        # The program's own mappings are few and recorded whole; all else was weighed.
        weighed = raw["kind"] < Kind.MMAP
        half = np.uint64(_WEIGHT_ONE // 2)
        for name, weight in (("allocs", counters.alloc_weight), ("frees", counters.free_weight)):
            sites[name][weighed] = (weight[weighed] + half) // np.uint64(_WEIGHT_ONE)
    mapped = np.bincount(ranges["site"], minlength=len(raw))
    mapped_bytes = np.bincount(ranges["site"], ranges["length"], minlength=len(raw))
    sites["live_count"] = np.rint(blocks.counts + mapped)
    sites["live_bytes"] = np.rint(np.minimum(blocks.sizes + mapped_bytes, float(_MOST)))
    highest = timeline.site_bytes.max(axis=0, initial=0).astype(np.uint64)
    sites["peak_bytes"] = np.maximum(highest, sites["live_bytes"])
    sites["first_birth_ns"] = counters.first_birth * tick_ns
    sites["last_birth_ns"] = counters.last_birth * tick_ns
    return sites


def _process(source: Source, header: Header, writer: int | None, duration_ns: int) -> Process:
    ended = {
        layout.STATE_EXITED: "exited",
        layout.STATE_EXECED: "replaced by exec",
    }.get(header["state"], "running" if writer is not None else None)
    return Process(
        pid=header["pid"] if writer is None else writer,
        ppid=header["ppid"],
        exe=header.text("exe"),
        arch=layout.ARCH_NAMES.get(header["arch"]),
        uid=header["uid"] if source.owner == 0 else source.owner,
        forked_from=header["forked_from"] or None,
        boot_id=header.text("boot_id"),
        started_unix_ns=min(header["real_start_ns"], _MOST) or None,
        duration_ns=duration_ns,
        ended=ended,
        allocator=header.text("allocator"),
    )


def _marks(header: Header) -> tuple[Mark, ...]:
    given = header.fields["marks"][: header["mark_count"]]
    start = header["mono_start_ns"]
    found = [
        Mark(bytes(each["name"]).split(b"\0", 1)[0].decode(errors="replace"), at - start)
        for each in given
        if 0 <= (at := int(each["mono_ns"])) - start < _MOST
    ]
    return tuple(sorted(found, key=lambda mark: mark.at_ns))


def _coverage(header: Header, counters: Counters, doubts: Doubts, sampled: bool) -> Coverage:
    recorded, freed = int(counters.allocs.sum()), int(counters.frees.sum())
    missed = 0 if sampled else sum(counters.drops.get(name, 0) for name in _SEEN_ALLOCATIONS)
    bits = header["trouble"]
    troubles = [name for bit, name in layout.TROUBLE_NAMES.items() if bits & bit]
    notes = []
    if header["control"] & _PAUSED:
        notes.append("recording was switched off at the end")
    budget = header["budget_bytes"]
    if budget and counters.drops.get("no_space"):
        notes.append(
            f"the recording was held to {bytes_text(budget)}, a share of what the program"
            f" may use or of the free space: what was new after that is missing"
        )
    return Coverage(
        mode=layout.MODE_NAMES[header["mode"]],
        sample_bytes=header["sample_bytes"] if sampled else None,
        alloc_events=counters.alloc_events or recorded + missed,
        free_events=counters.free_events or freed + counters.drops.get("unknown_free", 0),
        dropped=counters.drops,
        troubles=tuple(troubles),
        min_size=header["min_size"] or None,
        max_size=header["max_size"] or None,
        max_depth=header["max_depth"] or None,
        notes=(*notes, *unseen_free_errors(header), *doubts.notes()),
    )


def _duration(header: Header, last_ns: int, running_ns: int | None) -> int:
    # A killed program left its last timeline row and the births after it. Of one that runs, the
    # time that the reading itself took does not count where nothing was born meanwhile: a part
    # of the run without births speaks against a leak.
    known = header["mono_last_ns"] - header["mono_start_ns"]
    if running_ns is not None:
        known = max(known, running_ns - header["mono_start_ns"])
    return min(max(known, last_ns, 0), _MOST)


def _writer(source: Source, header: Header) -> int | None:
    """Our number of the process that maps this very file; None when it has ended."""
    if header["state"] not in (layout.STATE_STARTING, layout.STATE_RUNNING):
        return None
    return find_writer(header["pid"], header["pid_namespace"], source.status)
