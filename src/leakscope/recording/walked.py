# SPDX-License-Identifier: Apache-2.0
"""What the walk of a heap knows better than the recording: frees and blocks that went past the agent.

A library may have got hold of the allocator's own functions. The allocator's state then proves
that a recorded block is free, and has blocks in use that nobody recorded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.reachability import Reachability
from leakscope.recording.mapped import with_live

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.model.recordings import Recording

__all__ = ["knows_all", "with_unseen", "without_freed"]

# Reasons for which a block in use may be missing in a recording though nothing went past the agent.
_UNSEEN = frozenset({"early", "reentrant", "table_full", "no_space", "paused", "filtered"})


def knows_all(recording: Recording) -> bool:
    """Whether every block in use should be in the recording: each allocation was to be recorded."""
    coverage = recording.coverage
    return (
        coverage.mode == "exact"
        and recording.process.forked_from is None
        and not any(count for name, count in coverage.dropped.items() if name in _UNSEEN)
    )


def without_freed(recording: Recording) -> Recording:
    """Return the recording without the blocks that are `Reachability.FREED`: those are not live."""
    kinds = recording.reachability
    if kinds is None:
        return recording
    freed = kinds == Reachability.FREED
    if not freed.any():
        return recording
    gone, left = recording.blocks[freed], recording.blocks[~freed]
    size = len(recording.sites)
    counts = np.bincount(gone["site"], minlength=size).astype(np.int64)
    held = np.bincount(gone["site"], gone["size"].astype(np.float64), minlength=size)
    found = with_live(recording, held.astype(np.int64), counts)
    sites = found.sites.copy()
    sites["frees"] += counts.astype(np.uint64)
    sites["freed_bytes"] += held.astype(np.uint64)
    return replace(found, sites=sites, blocks=left, reachability=kinds[~freed])


def with_unseen(
    recording: Recording,
    addresses: npt.NDArray[np.uint64],
    sizes: npt.NDArray[np.uint64],
    kinds: npt.NDArray[np.uint8],
) -> Recording:
    """Return the recording with blocks that it does not know, at site 0; nothing is known of their birth.

    `addresses` are none of the recording's own.
    """
    if not len(addresses) or recording.reachability is None:
        return recording
    rows = np.zeros(len(addresses), recording.blocks.dtype)
    rows["address"], rows["size"] = addresses, sizes
    blocks = np.concatenate([recording.blocks, rows])
    order = np.argsort(blocks["address"], kind="stable")
    sites = recording.sites.copy()
    held = sizes.sum(dtype=np.uint64)
    for column, value in (("live_count", len(rows)), ("allocs", len(rows))):
        sites[column][0] += np.uint64(value)
    for column in ("live_bytes", "alloc_bytes"):
        sites[column][0] += held
    sites["peak_bytes"][0] = max(int(sites["peak_bytes"][0]), int(sites["live_bytes"][0]))
    return replace(
        recording,
        sites=sites,
        blocks=blocks[order],
        reachability=np.concatenate([recording.reachability, kinds])[order],
    )
