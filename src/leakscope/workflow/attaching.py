# SPDX-License-Identifier: Apache-2.0
"""What a scan of the heap adds to the recording of an attached process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from leakscope.errors import LeakscopeError, TargetError
from leakscope.recording.own import own_ranges
from leakscope.scan import cancellable, scan_process
from leakscope.scan.census import Census, count_heap
from leakscope.scan.earlier import earlier_of, with_fate

if TYPE_CHECKING:
    from leakscope.model.earlier import Earlier
    from leakscope.model.recordings import Recording
    from leakscope.trace.attach.session import Session

__all__ = ["count_earlier", "earlier_of", "fate_of_earlier", "scan_attached", "without_fate"]


def scan_attached(session: Session, max_pause_s: float) -> Recording | None:
    """Return the recording of an attached process with the reachability of its blocks.

    None when there is no recording yet. Raises `TargetError` when the process may not be stopped
    for so long.
    """

    def read() -> Recording:
        recording = session.recording()
        if recording is None:
            raise TargetError(f"process {session.plan.pid} has not allocated anything yet")
        return recording

    if session.recording() is None:
        return None
    own = own_ranges(session.path)
    return cancellable(
        lambda: scan_process(session.plan.pid, read, own=own, max_pause_s=max_pause_s)
    )


def count_earlier(pid: int, max_pause_s: float) -> Census:
    """Walk the heap before anything is attached.

    Raises `TargetError` when the heap cannot be walked, or not within `max_pause_s` seconds.
    """
    return cancellable(lambda: count_heap(pid, max_pause_s=max_pause_s))


def fate_of_earlier(before: Census, recording: Recording, max_pause_s: float) -> Earlier:
    """Return what became of the earlier heap, after `recording` was made and the agent is gone.

    While it is there, its tables hold the address of each block. What cannot be found out is said
    in `Earlier.unknown`.
    """
    try:
        after = cancellable(lambda: count_heap(before.pid, max_pause_s=max_pause_s))
    except LeakscopeError as error:
        return without_fate(before, str(error))
    if after.scan.allocator != before.scan.allocator:
        return without_fate(before, f"process {before.pid} has been replaced by another program")
    return with_fate(before, after, recording.blocks["address"])


def without_fate(before: Census, why: str) -> Earlier:
    """Return the earlier heap, of which nobody knows what became of it."""
    return replace(earlier_of(before), unknown=why)
