# SPDX-License-Identifier: Apache-2.0
"""Two scans of one traced process: which places have more blocks, and more lost ones."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.census import Grown, HeapGrowth, Spaces, Tally
from leakscope.model.reachability import Reachability, ScanFacts

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.model.findings import Finding, Findings
    from leakscope.model.recordings import Recording

    Sums = npt.NDArray[np.float64]

__all__ = ["compare_recordings"]

_MOST = 12
_LEAST_BYTES = 256
_NO_SCAN = ScanFacts("recording", 0.0, 0.0, 0, 0)


def compare_recordings(
    before: Recording, after: Recording, findings: Findings, seconds: float
) -> HeapGrowth:
    """Return what grew between two scans of the same process; `findings` are those on `after`."""
    count = max(len(before.sites), len(after.sites))
    old, new = _sums(before, count), _sums(after, count)
    places = {each.site: each for each in findings.findings if each.site is not None}
    grown: list[Grown] = []
    for site in np.flatnonzero((new[1] > old[1]) | (new[3] > old[3])).tolist():
        then, now = _tally(old[:, site]), _tally(new[:, site])
        if max(now.bytes - then.bytes, now.lost_bytes - then.lost_bytes) < _LEAST_BYTES:
            continue
        sizes = after.blocks["size"][after.blocks["site"] == site]
        low, high = (int(sizes.min()), int(sizes.max())) if len(sizes) else (0, 0)
        finding = places.get(site)
        what = "blocks" if finding is None else f"blocks of {finding.kind}"
        grown.append(Grown(low, high, what, then, now, place=_place(finding)))
    grown.sort(key=lambda row: (-max(row.lost_bytes, 0), -row.bytes))
    return HeapGrowth(
        pid=after.process.pid or 0,
        allocator="as recorded",
        seconds=seconds,
        then=_tally(old.sum(axis=1)),
        now=_tally(new.sum(axis=1)),
        account_then=None,
        account=None,
        grown=tuple(grown[:_MOST]),
        spaces=Spaces((), ()),
        facts_then=before.scan or _NO_SCAN,
        facts=after.scan or _NO_SCAN,
        lost_gone=_gone(before, after),
        notes=after.scan.notes if after.scan is not None else (),
    )


def _lost(recording: Recording) -> npt.NDArray[np.bool_]:
    if recording.reachability is None:
        return np.zeros(len(recording.blocks), np.bool_)
    kinds = recording.reachability
    found: npt.NDArray[np.bool_] = kinds == Reachability.DEFINITELY_LOST
    found |= kinds == Reachability.INDIRECTLY_LOST
    return found


def _sums(recording: Recording, count: int) -> Sums:
    """Return by site: blocks, bytes, lost blocks, lost bytes."""
    sites, sizes = recording.blocks["site"], recording.blocks["size"].astype(np.float64)
    lost = _lost(recording).astype(np.float64)
    columns = (np.ones(len(sites)), sizes, lost, lost * sizes)
    return np.array([np.bincount(sites, each, count)[:count] for each in columns])


def _tally(column: Sums) -> Tally:
    return Tally(*(int(each) for each in column))


def _gone(before: Recording, after: Recording) -> int:
    """How many lost blocks were freed later, which would be none."""
    lost = before.blocks[_lost(before)]
    still = np.isin(lost["address"], after.blocks["address"])
    return int(len(lost) - np.count_nonzero(still))


def _place(finding: Finding | None) -> str:
    """Return "insert() at table.c:31"; "" when nothing is known."""
    frame = None if finding is None else finding.source or next(iter(finding.stack), None)
    if frame is None:
        return ""
    name = (frame.function or "").split("(")[0]
    where = f"{PurePath(frame.file).name}:{frame.line}" if frame.file else ""
    if name and where:
        return f"{name}() at {where}"
    return f"{name}()" if name else where
