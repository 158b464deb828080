# SPDX-License-Identifier: Apache-2.0
"""What a trace of the kernel is limited to, from what people write."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from leakscope._paths import is_directory
from leakscope.errors import TargetError, UsageError
from leakscope.proc.slabinfo import merged_caches, read_slabinfo
from leakscope.proc.text import read_lines

__all__ = ["CgroupFilter", "find_cache", "find_kernel_cgroup", "is_kmalloc"]

_KMALLOC = re.compile(r"(?:dma-)?kmalloc-(?:rcl-|cg-|rnd-\d{1,2}-|dma-)?(\d{1,7})([kM]?)")
_UNITS = {"": 1, "k": 1 << 10, "M": 1 << 20}
_NAMES = {"blkio": "io"}  # controllers whose number in the kernel has another name
_ORDER = ("memory", "pids", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio", "perf_event")


class CgroupFilter(NamedTuple):
    """A cgroup as the kernel numbers it, and the controller of cgroup v1 whose it is."""

    number: int
    controller: str | None


class _Mount(NamedTuple):
    place: str
    controller: str | None  # None: cgroup v2
    usable: bool


def is_kmalloc(name: str) -> int | None:
    """Return the size of the objects of a cache that kmalloc uses, None for another cache."""
    found = _KMALLOC.fullmatch(name)
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def find_cache(name: str) -> tuple[str, ...]:
    """Return all names of the cache that objects called `name` are in. Raises `TargetError`."""
    merged = merged_caches()
    others = merged.get(name, ())
    slabs = {slab.name for slab in read_slabinfo() or ()}
    known = slabs | set(merged)
    if known and name not in known and not is_directory(_folder(name)):
        near = get_close_matches(name, sorted(known), n=1)
        raise TargetError(
            f"this kernel has no cache '{name[:80]}'",
            hint=f"Did you mean '{near[0]}'?" if near else "/proc/slabinfo lists them.",
        )
    # The one that the kernel calls it by is the one in slabinfo.
    return tuple(sorted({name, *others}, key=lambda each: (each not in slabs, each != name, each)))


def _folder(name: str) -> str:
    return f"/sys/kernel/slab/{name.replace('/', '_')}"


def find_kernel_cgroup(path: str) -> CgroupFilter:
    """Return the cgroup whose folder is named, or whose place below a hierarchy.

    Raises `TargetError` when there is none, `UsageError` for a hierarchy without a controller.
    """
    mounts = _mounts()
    if not mounts:
        raise TargetError("no cgroups can be seen here", hint="Is /sys/fs/cgroup mounted?")
    candidates = [path] if path.startswith("/") else []
    if ".." not in path.split("/"):
        candidates += [f"{mount.place}/{path.strip('/')}".rstrip("/") for mount in mounts]
    for folder in candidates:
        mount = _mount_of(folder, mounts)
        if mount is None:
            continue
        try:
            Path(folder, "cgroup.procs").stat()  # else it is no cgroup
            number = Path(folder).stat().st_ino
        except (OSError, ValueError):
            continue
        if not mount.usable:
            raise UsageError(
                f"{folder} is in a hierarchy without a controller, which the kernel does not tell of",
                hint="Name the cgroup below memory, or below cgroup v2.",
            )
        return CgroupFilter(number, mount.controller)
    places = ", ".join(mount.place for mount in mounts[:2])
    raise TargetError(f"there is no cgroup {path[:200]}", hint=f"They are below {places}.")


def _mount_of(folder: str, mounts: list[_Mount]) -> _Mount | None:
    real = os.path.realpath(folder)
    inside = [m for m in mounts if real == m.place or real.startswith(f"{m.place}/")]
    return max(inside, key=lambda mount: len(mount.place), default=None)


def _mounts() -> list[_Mount]:
    """Return where cgroups are mounted, the memory controller first, then cgroup v2."""
    found = []
    for line in read_lines("/proc/self/mountinfo"):
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(" "), tail.split(" ")
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in {"cgroup", "cgroup2"}:
            continue
        place = fields[4].encode().decode("unicode_escape", "replace")
        if kind[0] == "cgroup2":
            found.append(_Mount(place, None, usable=True))
            continue
        options = set(kind[2].split(","))
        name = next((each for each in _ORDER if each in options), None)
        found.append(_Mount(place, _NAMES.get(name or "", name), name is not None))
    return sorted(found, key=lambda m: (m.controller != "memory", m.controller is not None))
