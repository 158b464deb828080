# SPDX-License-Identifier: Apache-2.0
"""What can be done from the live screen of a traced process; each may take seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.recording import live
from leakscope.recording.own import own_ranges
from leakscope.scan import scan_holders, scan_process
from leakscope.scan.subject import check_process
from leakscope.target.library import library
from leakscope.trace import control

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from leakscope.model.holders import Holding
    from leakscope.model.recordings import Recording

__all__ = ["cancel", "dump", "held_by", "scan", "switch"]


def scan(pid: int, path: Path) -> Recording:
    """Return the recording with what nothing points to; `pid` stands still for 0.1 s at most."""
    check_process(pid)
    return scan_process(pid, lambda: live.read(path), own=own_ranges(path))


def held_by(pid: int, path: Path, site: int) -> tuple[Recording, Sequence[Holding], int]:
    """Return the recording, who holds the blocks of `site`, and how many were looked at."""
    check_process(pid)
    recording, holders = scan_holders(pid, lambda: live.read(path), own=own_ranges(path))
    return (recording, *holders.of_site(recording, site))


def dump(pid: int) -> Path:
    """Pack what is recorded up to now into a new file in the current directory; return it."""
    return control.dump(pid)


def switch(pid: int) -> bool:
    """Pause recording, or go on with it. Returns whether it is paused now."""
    act = control.start if control.look(pid).paused else control.stop
    return act(pid).paused


def cancel(wanted: bool) -> None:
    """Make a scan that goes on give up, or let scans go on again."""
    library().lss_cancel(wanted)
