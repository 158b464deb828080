# SPDX-License-Identifier: Apache-2.0
"""Which process writes a live recording: known by the file that it maps, never by a number alone.

The number in a recording is that of the process's own pid namespace, and numbers are given again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

__all__ = ["find_writer", "own_namespace"]


class _Table:
    """The processes of other pid namespaces, by their number there."""

    def __init__(self) -> None:
        self.made = float("-inf")  # seconds since the epoch, as times of files
        self.pids: dict[int, list[int]] = {}

    def look(self, pid: int, since: float) -> list[int]:
        """Return our numbers of those called `pid` elsewhere, as they are after `since`."""
        if not since < self.made or time.time() - self.made > _FRESH_S:
            self.made, self.pids = time.time(), {}
            for entry in Path("/proc").iterdir():
                for inner in _inner_pids(entry) if entry.name.isdecimal() else ():
                    self.pids.setdefault(inner, []).append(int(entry.name))
        return self.pids.get(pid, [])


_FRESH_S = 0.5
_TABLE = _Table()


def own_namespace() -> int:
    """Return the number of our pid namespace, 0 when the system does not tell."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def find_writer(pid: int, namespace: int, status: os.stat_result) -> int | None:
    """Return our number of the process that maps the live recording with `status`, if one does.

    `pid` is what the process calls itself in its pid namespace; 0 is a namespace not known.
    """
    if _maps(pid, status.st_ino):
        return pid
    if namespace == own_namespace():
        return None
    others = _TABLE.look(pid, status.st_ctime)
    return next((other for other in others if _maps(other, status.st_ino)), None)


def _maps(pid: int, inode: int) -> bool:
    for name in _maps_files(pid):
        try:
            with name.open("rb") as lines:
                found = False
                for line in lines:
                    found = True
                    fields = line.split(None, 5)
                    if len(fields) == 6 and fields[1].endswith(b"s") and int(fields[4]) == inode:
                        return True
                if found:
                    return False  # all threads have the same
        except (OSError, ValueError):
            continue
    return False


def _maps_files(pid: int) -> list[Path]:
    """Those of the process, and of its threads: of an ended first thread it is empty."""
    first = Path(f"/proc/{pid}/maps")
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:1]
        if state not in ([b"Z"], [b"X"]):
            return [first]
        tasks = sorted(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return [first]
    return [task / "maps" for task in tasks]


def _inner_pids(entry: Path) -> list[int]:
    """The numbers of a process in the pid namespaces below ours."""
    try:
        text = (entry / "status").read_bytes()
    except OSError:
        return []
    line = next((line for line in text.split(b"\n") if line.startswith(b"NSpid:")), b"")
    return [int(number) for number in line.split()[2:]]
