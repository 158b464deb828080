# SPDX-License-Identifier: Apache-2.0
"""Mounted tmpfs file systems: memory that looks like files, and stays until it is deleted."""

from __future__ import annotations

import os
from dataclasses import dataclass

from leakscope.proc.text import read_text

__all__ = ["Tmpfs", "parse_mounts", "read_tmpfs"]

_MAX_MOUNTS = 1024


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """One file system; one that is mounted at several places is named after the shortest path."""

    mount: str
    device: str  # "major:minor", which names it for as long as it is mounted
    used: int  # bytes
    size: int | None  # bytes it may grow to; None: no bound
    inodes: int  # files and folders in it


def parse_mounts(mountinfo: str) -> dict[str, str]:
    """Return device -> mount point of each tmpfs in the text of /proc/self/mountinfo."""
    found: dict[str, str] = {}
    for line in mountinfo.split("\n"):
        left, dash, right = line.partition(" - ")
        fields = left.split(" ")
        if not dash or len(fields) < 5 or right.split(" ")[0] not in {"tmpfs", "devtmpfs"}:
            continue
        path = _unescaped(fields[4])
        # Bind mounts show a part (field 3) of the same file system: its sizes are the same.
        if fields[2] not in found or len(path) < len(found[fields[2]]):
            found[fields[2]] = path
        if len(found) >= _MAX_MOUNTS:
            break
    return found


def read_tmpfs() -> tuple[Tmpfs, ...]:
    """Return every tmpfs this process can see and look into."""
    found: list[Tmpfs] = []
    for device, path in parse_mounts(read_text("/proc/self/mountinfo") or "").items():
        try:
            facts = os.statvfs(path)
            numbers = os.stat(path).st_dev
        except (OSError, ValueError):
            continue
        if f"{os.major(numbers)}:{os.minor(numbers)}" != device:
            continue  # something else is mounted over it
        size = facts.f_blocks * facts.f_frsize
        used = size - facts.f_bfree * facts.f_frsize
        inodes = facts.f_files - facts.f_ffree
        found.append(Tmpfs(path, device, used, size or None, inodes))
    return tuple(found)


def _unescaped(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path
