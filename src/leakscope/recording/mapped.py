# SPDX-License-Identifier: Apache-2.0
"""Mappings by what of them is in memory: address space that is only reserved holds none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.model.recordings import Recording, Timeline

__all__ = ["as_in", "with_lengths"]


def with_lengths(recording: Recording, lengths: npt.NDArray[np.uint64]) -> Recording:
    """Return the recording with these `lengths` for its ranges, and with sites that agree.

    Ranges of no length are left out. What the timeline says of a site is changed in proportion.
    """
    before = recording.ranges
    if np.array_equal(before["length"], lengths):
        return recording
    ranges = before.copy()
    ranges["length"] = lengths
    ranges = ranges[lengths > 0]
    size = len(recording.sites)

    def by_site(table: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.int64], ...]:
        held = np.bincount(table["site"], table["length"].astype(np.float64), minlength=size)
        return held.astype(np.int64), np.bincount(table["site"], minlength=size)

    less_bytes, less_count = (a - b for a, b in zip(by_site(before), by_site(ranges), strict=True))
    sites = recording.sites.copy()
    old = sites["live_bytes"].astype(np.int64), sites["live_count"].astype(np.int64)
    new = np.maximum(old[0] - less_bytes, 0), np.maximum(old[1] - less_count, 0)
    sites["live_bytes"], sites["live_count"] = new
    changed = np.flatnonzero(less_bytes)
    shares = [
        (now[changed] / np.maximum(was[changed], 1)).astype(np.float64)
        for now, was in zip(new, old, strict=True)
    ]
    peak = sites["peak_bytes"].astype(np.float64)
    peak[changed] *= shares[0]
    sites["peak_bytes"] = np.maximum(peak.astype(np.uint64), sites["live_bytes"])
    timeline = _scaled(recording.timeline, changed, shares)
    return replace(recording, ranges=ranges, sites=sites, timeline=timeline)


def as_in(recording: Recording, examined: Recording) -> Recording:
    """Return `recording` with its ranges as long as in `examined`, which is a little older."""
    lengths = recording.ranges["length"].astype(np.uint64)
    older = recording.ranges["birth_ns"] < examined.duration_ns
    known = examined.ranges[np.argsort(examined.ranges["start"], kind="stable")]
    at = np.searchsorted(known["start"], recording.ranges["start"])
    there = at < len(known)
    same = np.zeros(len(lengths), np.bool_)
    same[there] = known["start"][at[there]] == recording.ranges["start"][there]
    lengths[older & ~same] = 0
    lengths[same] = np.minimum(lengths[same], known["length"][at[same]])
    return with_lengths(recording, lengths)


def _scaled(
    timeline: Timeline, sites: npt.NDArray[np.int64], shares: list[npt.NDArray[np.float64]]
) -> Timeline:
    if not len(timeline.times_ns) or not len(sites):
        return timeline
    site_bytes, site_counts = timeline.site_bytes.copy(), timeline.site_counts.copy()
    site_bytes[:, sites] = site_bytes[:, sites] * shares[0]
    site_counts[:, sites] = site_counts[:, sites] * shares[1]
    less_bytes = (timeline.site_bytes - site_bytes)[:, sites].sum(axis=1, dtype=np.float64)
    less_counts = (timeline.site_counts - site_counts)[:, sites].sum(axis=1, dtype=np.int64)
    return replace(
        timeline,
        live_bytes=np.maximum(timeline.live_bytes - less_bytes.astype(np.int64), 0),
        live_counts=np.maximum(timeline.live_counts - less_counts, 0),
        site_bytes=site_bytes,
        site_counts=site_counts,
    )
