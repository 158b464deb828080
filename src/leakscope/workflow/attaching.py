# SPDX-License-Identifier: Apache-2.0
"""Attaching with what else is known: who is meant, and what a scan of the heap adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope._digits import is_number
from leakscope.errors import TargetError, UsageError
from leakscope.recording.own import own_ranges
from leakscope.scan import cancellable, scan_process
from leakscope.workflow.opening import open_one, refuse_file

if TYPE_CHECKING:
    from leakscope.model.recordings import Recording
    from leakscope.trace.attach.session import Session

__all__ = ["pid_of", "scan_attached"]


def pid_of(text: str) -> int:
    """Return the process that a user names. Raises `UsageError` for what is none, or several."""
    if is_number(text):
        if not 1 <= int(text) < 1 << 31:
            raise UsageError(f"{text} is not a process id")
        return int(text)
    refuse_file(text)
    one = open_one(text)
    if one.pid is None:
        raise UsageError(f"{text} is {one.kind}, and no process")
    return one.pid


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
