# SPDX-License-Identifier: Apache-2.0
"""What the memory of a process is made of, as far as it decides how an image of it can be taken.

`VmFlags` in /proc/PID/smaps tell it: see Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from leakscope.errors import TargetError
from leakscope.proc.maps import parse_maps
from leakscope.proc.smaps import parse_mappings
from leakscope.proc.text import read_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.proc.maps import Mapping

__all__ = ["Area", "is_copied", "is_tracers", "read_areas", "why_not_forked"]

_SIZES = ("Rss", "Anonymous", "Swap", "Private_Hugetlb", "Shared_Hugetlb")
_MOST_SHARED = 64
_DEVICE = {"io", "pf"}
_SERVED = {"um", "uw", "ui"}  # userfaultfd: missing, write-protected, minor
_NOT_DEVICES = ("shm", "zero", "hugepages")


@dataclass(frozen=True, slots=True)
class Area:
    """One mapping. Sizes in bytes."""

    mapping: Mapping
    resident: int
    own: int  # pages that belong to the process and to no file
    swapped: int
    flags: frozenset[str]

    @property
    def is_shared(self) -> bool:
        """Whether writes to it are seen by others."""
        return self.mapping.permissions[3] == "s"

    @property
    def is_device(self) -> bool:
        """Whether reading it may reach a device; the kernel's own pages are none."""
        return bool(self.flags & _DEVICE) and not self.mapping.path.startswith("[v")

    @property
    def to_copy(self) -> int:
        """Bytes that a copy of it takes."""
        if self.is_device or not is_copied(self.mapping):
            return 0
        return (self.resident if self.is_shared else self.own) + self.swapped


def is_tracers(mapping: Mapping) -> bool:
    """Whether it is a file of the tracer: a live recording, or the agent."""
    name = mapping.path.rpartition("/")[2]
    return name.endswith(".live") or name.startswith("libleakscope-")


def is_copied(mapping: Mapping) -> bool:
    """Whether an image needs it: what is the same as in a file can be read at any time."""
    if mapping.path.startswith("[v"):
        return False
    if mapping.path.startswith("/dev/") and PurePath(mapping.path).parts[2] not in _NOT_DEVICES:
        return False
    if is_tracers(mapping):
        return False
    # Shared memory that this process cannot read cannot be read for it.
    return mapping.permissions[3] == "p" or mapping.permissions.startswith("rw")


def read_areas(pid: int) -> tuple[Area, ...]:
    """Read /proc/PID/smaps. Raises `TargetError` when it may not be looked at or is gone."""
    areas: list[Area] = []
    for header, sizes, flags in parse_mappings(read_lines(f"/proc/{pid}/smaps"), _SIZES):
        (mapping,) = parse_maps(header.encode("utf-8", "surrogateescape"))
        huge = sizes["Private_Hugetlb"] + sizes["Shared_Hugetlb"]  # not in Rss
        own = max(sizes["Anonymous"], huge)
        areas.append(Area(mapping, sizes["Rss"] + huge, own, sizes["Swap"], flags))
    if not areas:
        raise TargetError(
            f"the memory of process {pid} may not be looked at by this user",
            hint="Run as the user it runs as, or as root (it needs CAP_SYS_PTRACE).",
        )
    return tuple(areas)


def why_not_forked(areas: Sequence[Area], own: Sequence[tuple[int, int]]) -> str | None:
    """Say which memory a fork would not copy, or not without harm; None: there is none.

    `own` are ranges of the tracer's memory, which need no copy.
    """
    private = [a for a in areas if not a.is_shared and not _is_within(a.mapping, own)]
    kept = sum(a.mapping.end - a.mapping.start for a in private if a.flags & {"wf", "dc"})
    if any(a.is_device for a in areas):
        return "it has memory of a device mapped"
    if any(a.flags & _SERVED for a in areas):
        return "some of its memory is served by userfaultfd"
    if any("ht" in a.flags for a in private):
        return "it has huge pages of its own, which the kernel may not have twice"
    if kept:
        return f"{kept:,} bytes of its memory are kept from children"
    if any(a.mapping.path.startswith("/SYSV") for a in areas):
        return "it has shared memory whose users are counted"
    if sum(a.is_shared for a in areas) > _MOST_SHARED:
        return "it has very many shared mappings"
    return None


def _is_within(mapping: Mapping, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(start <= mapping.start and mapping.end <= end for start, end in ranges)
