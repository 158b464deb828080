# SPDX-License-Identifier: Apache-2.0
"""Gauges of memory cgroups, with the limit that binds first: a group's own or one above it."""

from __future__ import annotations

from leakscope.model.series import Subject
from leakscope.observe.measures import Measure
from leakscope.proc import cgroup as cgroups

__all__ = ["measure_groups", "room_of"]


def measure_groups(hierarchy: cgroups.Hierarchy, top: str, out: list[Measure]) -> dict[str, int]:
    """Append the gauges of the cgroup `top` and all below it.

    Returns how many bytes each one that is bounded may still take, by its path.
    """
    limits: dict[str, float] = {}
    rooms: dict[str, int] = {}
    bound = cgroups.bound_above(hierarchy, top)
    if bound is not None:
        limits[_parent(top)] = bound
    for path in cgroups.walk(hierarchy, top):
        group = cgroups.read_cgroup(hierarchy, path)
        if group is None:
            continue
        above = limits.get(_parent(path))
        own = [limit for limit in (above, group.limit) if limit is not None]
        if own:
            limits[path] = min(own)
        held = group.working_set
        left = None if held is None or group.limit is None else max(0, group.limit - held)
        both = [each for each in (rooms.get(_parent(path)), left) if each is not None]
        if both:
            rooms[path] = min(both)
        subject = Subject("cgroup", path, path, limit=limits.get(path))
        for metric, value in (
            ("working_set", group.working_set),
            ("anon", group.anon),
            ("shmem", group.shmem),
            ("file", group.file),
            ("kernel", group.kernel),
        ):
            if value is not None:
                out.append(Measure(subject, metric, "bytes", value))
        if group.oom_kills is not None:
            out.append(Measure(subject, "oom_kills", "count", group.oom_kills))
    return rooms


def room_of(hierarchy: cgroups.Hierarchy, path: str) -> int | None:
    """Return how many bytes the cgroup may still take; None: nothing bounds it."""
    rooms: list[int] = []
    for each in (path, *cgroups.above(path)):
        group = cgroups.read_cgroup(hierarchy, each)
        if group is not None and group.limit is not None and group.working_set is not None:
            rooms.append(max(0, group.limit - group.working_set))
    return min(rooms, default=None)


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"
