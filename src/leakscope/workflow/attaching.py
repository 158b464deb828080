# SPDX-License-Identifier: Apache-2.0
"""What a scan of the heap adds to the recording of an attached process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.errors import TargetError
from leakscope.recording.own import own_ranges
from leakscope.scan import cancellable, scan_process

if TYPE_CHECKING:
    from leakscope.model.recordings import Recording
    from leakscope.trace.attach.session import Session

__all__ = ["scan_attached"]


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
