# SPDX-License-Identifier: Apache-2.0
"""What a process has open: how many descriptors, of what kinds, and which deleted files."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from leakscope.proc.text import read_text

__all__ = ["OpenFiles", "count_fds", "kind_of", "parse_limit", "read_fd_limit", "read_open_files"]


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The descriptors of one process by kind, and the deleted files it keeps on disk or in tmpfs."""

    kinds: tuple[tuple[str, int], ...]  # most frequent first
    deleted: tuple[tuple[str, int, int, int], ...]  # path, bytes on the device, device, inode
    targets: tuple[str, ...] = ()  # what each descriptor's link says

    @property
    def total(self) -> int:
        """How many descriptors there are."""
        return sum(count for _, count in self.kinds)


def kind_of(target: str) -> str:
    """Return the kind of a descriptor from what its link in /proc/PID/fd says."""
    if target.startswith("anon_inode:"):
        return target[11:].strip("[]") or "anon_inode"
    kind, colon, _ = target.partition(":[")
    if colon and kind.isalpha():
        return kind  # socket, pipe, net, mnt
    if target.startswith("/memfd:"):
        return "memfd"
    if target.endswith(" (deleted)"):
        return "deleted file"
    return "device" if target.startswith("/dev/") else "file"


def count_fds(pid: int | str) -> int | None:
    """Return the number of descriptors; None without permission or when the process is gone."""
    path = f"/proc/{pid}/fd"
    try:
        # Since Linux 6.2 the size of the directory is the number of descriptors.
        size = os.stat(path).st_size
        return size or len(os.listdir(path))
    except OSError:
        return None


def read_open_files(pid: int | str) -> OpenFiles | None:
    """Look at every descriptor of `pid`; None without permission or when it is gone."""
    base = f"/proc/{pid}/fd"
    try:
        names = os.listdir(base)
    except OSError:
        return None
    kinds: Counter[str] = Counter()
    targets: list[str] = []
    deleted: dict[tuple[int, int], tuple[str, int, int, int]] = {}
    for name in names:
        try:
            target = os.readlink(f"{base}/{name}")
        except OSError:
            continue  # closed meanwhile
        kinds[kind_of(target)] += 1
        targets.append(target)
        if target.endswith(" (deleted)"):
            try:
                facts = os.stat(f"{base}/{name}")
            except OSError:
                continue
            path = target.removesuffix(" (deleted)")
            deleted[facts.st_dev, facts.st_ino] = (
                path,
                facts.st_blocks * 512,
                facts.st_dev,
                facts.st_ino,
            )
    return OpenFiles(tuple(kinds.most_common()), tuple(deleted.values()), tuple(targets))


def parse_limit(text: str, name: str = "Max open files") -> int | None:
    """Return the soft limit called `name` in the text of /proc/PID/limits; None: unlimited."""
    for line in text.split("\n"):
        if line.startswith(name):
            words = line[len(name) :].split()
            return int(words[0]) if words and words[0].isdecimal() else None
    return None


def read_fd_limit(pid: int) -> int | None:
    """Return how many descriptors `pid` may have; None when unlimited or not readable."""
    return parse_limit(read_text(f"/proc/{pid}/limits", 1 << 14) or "")
