# SPDX-License-Identifier: Apache-2.0
"""System V shared memory: segments that outlive their processes until somebody removes them."""

from __future__ import annotations

from dataclasses import dataclass

from leakscope.proc.text import read_text

__all__ = ["SharedSegment", "parse_segments", "read_segments"]


@dataclass(frozen=True, slots=True)
class SharedSegment:
    """One segment. `resident` is what it holds in memory, in bytes; swap not included."""

    identity: int
    size: int
    resident: int
    attached: int
    creator: int  # pid, which may have ended


def parse_segments(text: str) -> tuple[SharedSegment, ...]:
    """Read the text of /proc/sysvipc/shm; lines that do not fit its header are left out."""
    lines = text.split("\n")
    columns = lines[0].split() if lines else []
    found: list[SharedSegment] = []
    for line in lines[1:]:
        words = dict(zip(columns, line.split(), strict=False))
        try:
            size = int(words["size"])
            found.append(
                SharedSegment(
                    int(words["shmid"]),
                    size,
                    int(words.get("rss", size)),  # since Linux 2.6.35
                    int(words["nattch"]),
                    int(words["cpid"]),
                )
            )
        except (KeyError, ValueError):
            continue
    return tuple(found)


def read_segments() -> tuple[SharedSegment, ...]:
    """Return the segments of our IPC namespace."""
    return parse_segments(read_text("/proc/sysvipc/shm") or "")
