# SPDX-License-Identifier: Apache-2.0
"""The kernel's object caches, from /proc/slabinfo (readable by root alone)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from leakscope.proc.text import read_text

__all__ = ["Slab", "is_reclaimable", "merged_caches", "parse_slabinfo", "read_slabinfo"]


# Names have spaces and colons where a driver chose so.
_LINE = re.compile(
    r"([^#].*?) +(\d{1,18}) +(\d{1,18}) +(\d{1,9}) +\d+ +(\d{1,9}) *: .*: *slabdata +\d+ +(\d{1,18})(?: .*)?"
)


@dataclass(frozen=True, slots=True)
class Slab:
    """One cache; `bytes` is what its slabs take, used or not."""

    name: str
    active: int
    objects: int
    object_bytes: int
    bytes: int


def parse_slabinfo(text: str, page: int = 4096) -> tuple[Slab, ...]:
    """Read slabinfo version 2; lines that do not fit it are left out."""
    slabs: list[Slab] = []
    for line in text.split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        active, objects, size, pages, slab_count = (int(word) for word in match.groups()[1:])
        slabs.append(Slab(match[1], active, objects, size, slab_count * pages * page))
    return tuple(slabs)


def read_slabinfo() -> tuple[Slab, ...] | None:
    """Return the caches of this kernel; None without permission."""
    text = read_text("/proc/slabinfo")
    return None if text is None else parse_slabinfo(text, os.sysconf("SC_PAGE_SIZE"))


# Counted as reclaimable, and given back by nobody while the socket, the file in memory or the
# queue is there that they belong to.
_HELD = frozenset({"sock_inode_cache", "shmem_inode_cache", "mqueue_inode_cache"})
_HELD |= {"hugetlbfs_inode_cache", "rpc_inode_cache"}


def is_reclaimable(name: str) -> bool:
    """Whether the kernel gives this cache back under pressure (SLAB_RECLAIM_ACCOUNT).

    From /sys/kernel/slab, or a list of the usual ones where that is not mounted. Inodes of
    sockets and of files in memory bear the mark too, and are not given back.
    """
    if name in _HELD:
        return False
    flag = read_text(f"/sys/kernel/slab/{name}/reclaim_account", 16) if "/" not in name else None
    if flag is not None:
        return flag.strip() == "1"
    return name in {"dentry", "buffer_head", "radix_tree_node"} or "inode" in name


def merged_caches() -> dict[str, tuple[str, ...]]:
    """Return cache -> the others whose objects are kept with its own, for those that share.

    SLUB merges caches of like objects, and /proc/slabinfo shows one of their names. Empty where
    /sys/kernel/slab is not mounted.
    """
    base = "/sys/kernel/slab"
    groups: dict[str, list[str]] = {}
    try:
        with os.scandir(base) as entries:
            for entry in entries:
                if entry.is_symlink():
                    groups.setdefault(os.readlink(entry.path), []).append(entry.name)
    except OSError:
        return {}
    return {
        name: tuple(sorted(other for other in group if other != name))
        for group in groups.values()
        for name in group
        if len(group) > 1
    }
