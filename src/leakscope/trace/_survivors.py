# SPDX-License-Identifier: Apache-2.0
"""Whether anything that a run started may still be alive, whether or not it records already.

A daemon that was forked last has a moment to begin its recording; a run that left nobody behind
must not wait for it.
"""

from __future__ import annotations

import os
from pathlib import Path

from leakscope.proc.process import pids

__all__ = ["may_survive", "running_processes"]

_AGENT = b"libleakscope-agent"


def running_processes() -> frozenset[int] | None:
    """Return the numbers of all processes; None when the system does not tell."""
    return frozenset(pids()) or None


def may_survive(before: frozenset[int] | None, directory: Path) -> bool:
    """Whether a process that was not there `before` may be of the run that records in `directory`.

    Its environment names the directory, from before its agent starts until its end; where it wrote
    over that, the agent is mapped. Who may not be looked at, or is just being replaced by another
    program, may be one.
    """
    now = running_processes()
    if before is None or now is None:
        return True
    return any(_may_be_of(pid, os.fsencode(directory)) for pid in now - before)


def _may_be_of(pid: int, directory: bytes) -> bool:
    try:
        if Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:1] == [b"Z"]:
            return False  # it has ended
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        if not environment or directory in environment:
            return True
        return _AGENT in Path(f"/proc/{pid}/maps").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return True
