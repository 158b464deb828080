# SPDX-License-Identifier: Apache-2.0
"""Who owns memory that belongs to no heap: page tables, tmpfs, shared memory, huge pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.proc.process import read_gauges
from leakscope.proc.smaps import read_areas
from leakscope.proc.sysv import read_segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.series import Subject
    from leakscope.observe.measures import Pass

__all__ = ["Owner", "huge_page_owners", "page_table_owners", "shared_memory_owners"]

_LEAST = 1 << 20  # bytes that are worth a name
_MOST = 5
_LOOKED_AT = 3  # processes whose mappings are read
_SHARED = ("/dev/shm/", "/memfd:", "/SYSV", "/dev/zero")  # noqa: S108 (names, not opened)


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, a mount or a segment, and how many bytes of the account are its own."""

    name: str  # hostile text: pass it through `printable`
    bytes: int
    pid: int | None = None


def page_table_owners(one: Pass) -> tuple[Owner, ...]:
    """Return the processes with the largest page tables."""
    return _most(_processes(one, "page_tables"))


def shared_memory_owners(one: Pass) -> tuple[Owner, ...]:
    """Return the mounts of tmpfs, segments, and processes with what no mount shows.

    Files in a tmpfs and segments are counted where they are, not again with those who map them.
    """
    found = [
        Owner(f"tmpfs {m.subject.name}", m.value)
        for m in one.measures
        if m.subject.kind == "tmpfs" and m.metric == "tmpfs"
    ]
    for segment in read_segments():
        whose = f"made by pid {segment.creator}" if segment.attached else "attached by nobody"
        name = f"System V segment {segment.identity}, {whose}"
        found.append(Owner(name, segment.resident, segment.creator))
    # memfd and shared anonymous memory are in no mount that can be looked into.
    biggest = sorted(_processes(one, "shmem"), key=lambda o: -o.bytes)[:_LOOKED_AT]
    counted: set[str] = set()
    for owner in biggest:
        if owner.bytes < _LEAST or owner.pid is None:
            continue
        sizes: dict[str, int] = {}
        for area in read_areas(read_gauges(owner.pid)[1]) or ():
            if area.path.startswith(_SHARED[1::2]):
                sizes[area.path] = sizes.get(area.path, 0) + area.rss - area.anonymous
        for path, size in sizes.items():
            name = path.removesuffix(" (deleted)").lstrip("/")
            if path not in counted:
                what = "shared anonymous memory" if name == "dev/zero" else name
                found.append(Owner(f"{what} in {owner.name}", size, owner.pid))
            counted.add(path)
    return _most(found)


def huge_page_owners(one: Pass) -> tuple[Owner, ...]:
    """Return the processes that hold pages of hugetlb."""
    found = []
    for owner in _processes(one, "threads"):
        gauges = read_gauges(owner.pid)[0] if owner.pid is not None else None
        if gauges is not None and gauges.hugetlb:
            found.append(Owner(owner.name, gauges.hugetlb, owner.pid))
    return _most(found)


def _processes(one: Pass, metric: str) -> list[Owner]:
    return [
        Owner(_called(m.subject), m.value, m.subject.pid)
        for m in one.measures
        if m.subject.kind == "process" and m.metric == metric
    ]


def _called(subject: Subject) -> str:
    return f"{subject.name} (pid {subject.pid})"


def _most(owners: Sequence[Owner]) -> tuple[Owner, ...]:
    large = [owner for owner in owners if owner.bytes >= _LEAST]
    return tuple(sorted(large, key=lambda o: -o.bytes)[:_MOST])
