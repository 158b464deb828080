# SPDX-License-Identifier: Apache-2.0
"""A recording as if it had begun at a moment: what was allocated after it and still lives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import UsageError
from leakscope.model.columns import Column
from leakscope.model.recordings import Timeline
from leakscope.words import duration_text

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.model.recordings import Mark, Recording

__all__ = ["find_mark", "since"]


def find_mark(recording: Recording, name: str) -> Mark:
    """Return the mark of that name. Raises `UsageError` when the recording has none."""
    found = next((mark for mark in recording.marks if mark.name == name), None)
    if found is not None:
        return found
    if not recording.marks:
        raise UsageError(
            "the recording has no marks",
            hint="leakscope control PID mark NAME makes one while the program runs.",
        )
    there = ", ".join(repr(mark.name) for mark in recording.marks)
    raise UsageError(f"the recording has no mark named {name!r}", hint=f"It has {there}.")


def since(recording: Recording, mark: Mark) -> Recording:
    """Return the part of a recording after a mark.

    A mark without a name is a moment that somebody asked for. Blocks that were there at the mark and still are leave it, with their share of the timeline.
    How long a site's blocks live is known from the whole run and stays so. Raises `UsageError`
    for a recording without blocks or times of birth.
    """
    if not recording.knows(Column.BLOCKS, Column.FIRST_BIRTH):
        raise UsageError("the recording does not tell when each block was allocated")
    tick = mark.at_ns // recording.tick_ns  # births are known in ticks: none after the mark is lost
    at = int(tick * recording.tick_ns)
    sites = recording.sites.copy()
    count = len(sites)
    timeline = recording.timeline
    rows = timeline.times_ns >= at
    live_counts, live_bytes = np.zeros(count), np.zeros(count)
    old_counts, old_bytes = np.zeros(count), np.zeros(count)
    tables: dict[str, npt.NDArray[np.void]] = {}
    young = {}
    for name, size_name in (("blocks", "size"), ("ranges", "length")):
        table = getattr(recording, name)
        keep = young[name] = table["birth_ns"] >= at
        weight = _weights(recording, table[size_name]) if name == "blocks" else np.ones(len(table))
        size = weight * table[size_name]
        for chosen, counts, sizes in (
            (keep, live_counts, live_bytes),
            (~keep, old_counts, old_bytes),
        ):
            of = table["site"][chosen]
            np.add(counts, np.bincount(of, weight[chosen], minlength=count), out=counts)
            np.add(sizes, np.bincount(of, size[chosen], minlength=count), out=sizes)
        tables[name] = table[keep]
        tables[name]["birth_ns"] -= at
    sites["live_count"], sites["live_bytes"] = np.rint(live_counts), np.rint(live_bytes)
    sites["allocs"] = sites["frees"] + sites["live_count"]
    sites["alloc_bytes"] = sites["freed_bytes"] + sites["live_bytes"]
    for name in ("first_birth_ns", "last_birth_ns"):
        sites[name] = np.maximum(sites[name] - at, 0)
    site_bytes = np.maximum(timeline.site_bytes[rows] - old_bytes, 0).astype(np.float32)
    site_counts = np.maximum(timeline.site_counts[rows] - np.rint(old_counts), 0).astype(np.uint32)
    highest = site_bytes.max(axis=0, initial=0).astype(np.uint64)
    sites["peak_bytes"] = np.maximum(highest, sites["live_bytes"])
    reach = recording.reachability
    started = recording.process.started_unix_ns
    duration = max(recording.duration_ns - at, 0)
    moment = duration_text(mark.at_ns)
    after = f"{mark.name!r}, {moment} into the run," if mark.name else f"the first {moment}"
    note = (
        f"only what was allocated after {after} is told of; how long blocks live, and the events"
        " counted above, are of the whole run"
    )
    return replace(
        recording,
        process=replace(
            recording.process,
            started_unix_ns=None if started is None else started + at,
            duration_ns=duration,
        ),
        sites=sites,
        blocks=tables["blocks"],
        ranges=tables["ranges"],
        timeline=Timeline(
            times_ns=timeline.times_ns[rows] - at,
            live_bytes=np.maximum(timeline.live_bytes[rows] - int(old_bytes.sum()), 0),
            live_counts=np.maximum(timeline.live_counts[rows] - int(old_counts.sum()), 0),
            site_bytes=site_bytes,
            site_counts=site_counts,
            rss_bytes=None if timeline.rss_bytes is None else timeline.rss_bytes[rows],
        ),
        coverage=replace(recording.coverage, notes=(*recording.coverage.notes, note)),
        duration_ns=duration,
        free_errors=tuple(
            replace(each, time_ns=each.time_ns - at)
            for each in recording.free_errors
            if each.time_ns >= at
        ),
        reachability=None if reach is None else reach[young["blocks"]],
        marks=(),
    )


def _weights(recording: Recording, sizes: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """How many blocks each recorded one stands for: the inverse of its chance to be sampled."""
    period = recording.coverage.sample_bytes
    if recording.coverage.mode != "sampled" or not period:
        return np.ones(len(sizes))
    seen = -np.expm1(-sizes.astype(np.float64) / period)
    return np.divide(1.0, seen, out=np.ones(len(sizes)), where=seen > 0)
