# SPDX-License-Identifier: Apache-2.0
"""Memory cgroups, version 1 and 2: what they hold, their limit and their out-of-memory events."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.proc.text import read_number, read_text
from leakscope.proc.vm import parse_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Cgroup", "Hierarchy", "above", "bound_above", "find_hierarchy", "own_path"]
__all__ += ["memory_limit", "mounted", "parse_hierarchy", "pids_of", "read_cgroup", "walk"]

_UNLIMITED = 1 << 62  # version 1 says "no limit" with a number close to 2**63
_MAX_GROUPS = 4096


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where the memory controller is mounted."""

    root: str
    version: int  # 1 or 2


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One memory cgroup with all below it. Sizes in bytes; None: the kernel does not say."""

    path: str  # below the root of the hierarchy, "/" for the root itself
    current: int | None
    limit: int | None  # None: no limit
    anon: int | None
    file: int | None
    shmem: int | None
    kernel: int | None  # version 2: without what is given back on demand
    slab_unreclaimable: int | None
    inactive_file: int | None
    oom_kills: int | None
    high: int | None = None  # version 2: above it the kernel takes back and slows down

    @property
    def working_set(self) -> int | None:
        """What cannot be dropped at once: `current` without the idle page cache."""
        if self.current is None:
            return None
        return max(0, self.current - (self.inactive_file or 0))


def mounted(mountinfo: str) -> Iterator[tuple[int, Sequence[str], str]]:
    """Yield version, controllers and mount point of each hierarchy in a text of /proc/PID/mountinfo."""
    for line in mountinfo.split("\n"):
        left, dash, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if not dash or len(fields) < 5 or len(kind) < 3:
            continue
        mount = fields[4].replace("\\040", " ")
        if kind[0] == "cgroup":
            yield 1, kind[2].split(","), mount
        elif kind[0] == "cgroup2":
            yield 2, (), mount


def parse_hierarchy(mountinfo: str) -> Hierarchy | None:
    """Find the memory controller in the text of /proc/self/mountinfo, version 1 before 2."""
    second: Hierarchy | None = None
    for version, controllers, mount in mounted(mountinfo):
        if version == 1 and "memory" in controllers:
            return Hierarchy(mount, 1)
        if version == 2 and second is None:
            second = Hierarchy(mount, 2)
    return second


def find_hierarchy() -> Hierarchy | None:
    """Return where this machine's memory cgroups are; None when there are none to be seen."""
    return parse_hierarchy(read_text("/proc/self/mountinfo") or "")


def own_path(hierarchy: Hierarchy, pid: int | str = "self") -> str:
    """Return the cgroup of `pid`; "/" when it is the root or not visible."""
    for line in (read_text(f"/proc/{pid}/cgroup", 1 << 16) or "").split("\n"):
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        wanted = "memory" in controllers.split(",") if hierarchy.version == 1 else number == "0"
        if wanted and path and os.path.isdir(hierarchy.root + path):
            return path
    return "/"


def read_cgroup(hierarchy: Hierarchy, path: str) -> Cgroup | None:
    """Read one cgroup; None when it is gone or tells nothing."""
    base = hierarchy.root + path.rstrip("/")
    text = read_text(f"{base}/memory.stat", 1 << 16)
    if text is None:
        return None
    stat = parse_numbers(text)
    if hierarchy.version == 2:
        events = parse_numbers(read_text(f"{base}/memory.events", 4096) or "")
        return Cgroup(
            path=path,
            current=read_number(f"{base}/memory.current"),
            limit=read_number(f"{base}/memory.max"),
            anon=stat.get("anon"),
            file=stat.get("file"),
            shmem=stat.get("shmem"),
            kernel=_unreclaimable(stat),
            slab_unreclaimable=stat.get("slab_unreclaimable"),
            inactive_file=stat.get("inactive_file"),
            oom_kills=events.get("oom_kill"),
            high=read_number(f"{base}/memory.high"),
        )
    limit = read_number(f"{base}/memory.limit_in_bytes")
    return Cgroup(
        path=path,
        current=read_number(f"{base}/memory.usage_in_bytes"),
        limit=limit if limit is not None and limit < _UNLIMITED else None,
        anon=stat.get("total_rss"),
        file=stat.get("total_cache"),
        shmem=stat.get("total_shmem"),
        kernel=None,  # memory.kmem.usage_in_bytes has dentries and inodes in it
        slab_unreclaimable=None,
        inactive_file=stat.get("total_inactive_file"),
        oom_kills=parse_numbers(read_text(f"{base}/memory.oom_control", 4096) or "").get(
            "oom_kill"
        ),
    )


def _unreclaimable(stat: dict[str, int]) -> int | None:
    if "kernel" not in stat:  # before Linux 5.18
        return stat.get("slab_unreclaimable")
    return max(0, stat["kernel"] - stat.get("slab_reclaimable", 0))


def bound_above(hierarchy: Hierarchy, path: str) -> int | None:
    """Return the lowest limit of the cgroups above `path`; None when they have none."""
    groups = [read_cgroup(hierarchy, each) for each in above(path)]
    return min((g.limit for g in groups if g is not None and g.limit is not None), default=None)


def memory_limit(pid: int | str = "self") -> int | None:
    """Return the lowest limit of a process's memory cgroups in bytes; None: no limit."""
    hierarchy = find_hierarchy()
    if hierarchy is None:
        return None
    path = own_path(hierarchy, pid)
    own = read_cgroup(hierarchy, path)
    limits = (own.limit if own is not None else None, bound_above(hierarchy, path))
    return min((limit for limit in limits if limit is not None), default=None)


def above(path: str) -> Iterator[str]:
    """Yield the cgroups above `path`, the nearest first; in a container "/" is its own."""
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        yield path


def walk(hierarchy: Hierarchy, top: str = "/") -> Iterator[str]:
    """Yield the paths of `top` and all cgroups below it, parents first, at most 4,096."""
    waiting, count = [top], 0
    while waiting and count < _MAX_GROUPS:
        path = waiting.pop()
        count += 1
        yield path
        try:
            with os.scandir(hierarchy.root + path) as entries:
                below = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        waiting += [f"{path.rstrip('/')}/{name}" for name in sorted(below, reverse=True)]


def pids_of(hierarchy: Hierarchy, path: str) -> list[int]:
    """Return the processes in the cgroup and all below it, ascending."""
    found: set[int] = set()
    for each in walk(hierarchy, path):
        text = read_text(f"{hierarchy.root}{each.rstrip('/')}/cgroup.procs") or ""
        found.update(int(word) for word in text.split() if word.isdecimal() and word != "0")
    return sorted(found)
