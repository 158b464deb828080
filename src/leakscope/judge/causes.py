# SPDX-License-Identifier: Apache-2.0
"""From gauges that leak to what leaks: the most telling gauge of each cause, the rest following it.

One leak moves many gauges: threads that pile up take stacks, mappings and kernel objects; the
memory of a process is also memory of its cgroup and of the machine. A gauge is said to follow a
cause when its growth is what that cause would bring; what no cause explains stays one of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.judge.kernel_causes import KERNEL_KINDS, OBJECTS, explained_by, is_held_open, serves
from leakscope.model.series import Cause, Trend, TrendVerdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["find_causes"]

# Gauges of one process, causes before their effects.
_ORDER = ("zombies", "children", "threads", "fds", "mappings", "anon", "shmem", "page_tables")
# Bytes of private memory that one of these may bring with it before it is a leak of its own.
_BRINGS = {"threads": 1 << 20, "fds": 64 << 10, "mappings": 64 << 10, "children": 64 << 10}
_EXPLAINED = 0.5  # of the growth of a sum: the rest may be noise
_ALIKE = 3


def find_causes(trends: Sequence[Trend]) -> list[Cause]:
    """Return what leaks, the fastest first; empty when no trend is a leak. Input order is free."""
    leaks = [t for t in trends if t.verdict is TrendVerdict.LEAK]
    causes: list[Cause] = []
    by_process: dict[str, list[Trend]] = {}
    for trend in leaks:
        if trend.series.subject.kind == "process":
            by_process.setdefault(trend.series.subject.key, []).append(trend)
    for own in by_process.values():
        causes += _of_process(own)
    causes = _alike(causes)
    kernel = (("allocinfo", "page_stack"), ("slab", "vmalloc"))
    for kinds in (("sysv", "tmpfs"), *kernel, ("cgroup",), ("system",)):
        # Groups below others first: what explains the inner one explains the outer one too.
        some = [t for t in leaks if t.series.subject.kind in kinds]
        some.sort(key=lambda t: (-_depth(t), t.series.unit != "bytes"))
        for trend in some:
            at = _explained_by(trend, causes)
            if at is None and kinds in kernel and is_held_open(trend, trends):
                continue
            if at is None:
                causes.append(Cause(trend))
            else:
                causes[at] = _followed(causes[at], trend)
    return sorted(causes, key=lambda c: (c.trend.series.unit != "bytes", -(c.trend.rate or 0.0)))


def _of_process(leaks: Iterable[Trend]) -> list[Cause]:
    causes: list[Cause] = []

    def order(trend: Trend) -> int:
        return _ORDER.index(trend.series.metric) if trend.series.metric in _ORDER else 99

    for trend in sorted(leaks, key=order):
        for at, cause in enumerate(causes):
            if _brings(cause.trend, trend):
                causes[at] = _followed(cause, trend)
                break
        else:
            causes.append(Cause(trend))
    # A heap that leaks by mmap leaks mappings; the memory is what matters.
    memory = next((c for c in causes if c.trend.series.metric == "anon"), None)
    mappings = next((c for c in causes if c.trend.series.metric == "mappings"), None)
    if memory is not None and mappings is not None:
        causes.remove(mappings)
        causes[causes.index(memory)] = _followed(memory, mappings.trend)
    return causes


def _brings(cause: Trend, effect: Trend) -> bool:
    first, second = cause.series.metric, effect.series.metric
    if second == "page_tables":
        return True
    if second == "mappings" and first in {"threads", "fds"}:
        return (effect.rate or 0.0) <= 3.0 * (cause.rate or 0.0)
    if second == "children" and first == "zombies":
        return True
    return second == "anon" and (effect.rate or 0.0) <= _BRINGS.get(first, 0) * (cause.rate or 0.0)


def _followed(cause: Cause, trend: Trend) -> Cause:
    return Cause(cause.trend, (*cause.follows, trend), cause.alike)


def _alike(causes: list[Cause]) -> list[Cause]:
    """Put together what several processes of one executable do alike."""
    groups: dict[tuple[str | None, str], list[Cause]] = {}
    for cause in causes:
        series = cause.trend.series
        groups.setdefault((series.subject.exe, series.metric), []).append(cause)
    found: list[Cause] = []
    for (exe, _), group in groups.items():
        if exe is None or len(group) < _ALIKE:
            found += group
            continue
        worst, *rest = sorted(group, key=lambda c: -(c.trend.rate or 0.0))
        follows = tuple(trend for cause in (worst, *rest) for trend in cause.follows)
        found.append(Cause(worst.trend, follows, tuple(cause.trend for cause in rest)))
    return found


def _explained_by(trend: Trend, causes: list[Cause]) -> int | None:
    """Return the place of the cause that this gauge of the machine follows most."""
    series = trend.series
    kind, name, rate = series.subject.kind, series.subject.name, trend.rate or 0.0
    if kind in {"tmpfs", "sysv"}:  # its bytes and its number of pieces are one leak
        for at, cause in enumerate(causes):
            if cause.trend.series.subject.key == series.subject.key:
                return at
    if kind in KERNEL_KINDS and (found := explained_by(trend, causes)) is not None:
        return found
    if kind in {"allocinfo", "page_stack"}:
        return None
    if kind == "slab":
        for at, cause in enumerate(causes):
            if any(part in name for part in OBJECTS.get(cause.trend.series.metric, ())):
                return at
            if serves(trend, cause.trend):
                return at
        return None
    if kind == "vmalloc":
        return next(
            (
                at
                for at, cause in enumerate(causes)
                if cause.trend.series.metric in {"threads", "children", "zombies"}
                and ("thread" in name or "clone" in name or "fork" in name)
            ),
            None,
        )
    counts = {"sockets": "fds", "processes": "children", "zombies": "zombies", "files": "tmpfs"}
    if series.unit == "count":
        wanted = counts.get(series.metric)
        return next((a for a, c in enumerate(causes) if c.trend.series.metric == wanted), None)
    grown = [_bytes_of(cause, trend) if _may_follow(trend, cause) else 0.0 for cause in causes]
    if grown and sum(grown) >= _EXPLAINED * rate:
        return max(range(len(grown)), key=grown.__getitem__)
    # What a descriptor, a thread or a process costs elsewhere is not counted in bytes.
    costly = _PARTS.get(series.metric, {"children"}) & _COUNTS
    return next((a for a, c in enumerate(causes) if c.trend.series.metric in costly), None)


_COUNTS = {"threads", "children", "fds", "zombies", "mappings"}
_PARTS = {
    "anon": {"anon", "children"},
    "shmem": {"shmem", "tmpfs", "shm"},
    "kernel": {"unreclaimable", "allocated", "threads", "children", "fds", "zombies", "mappings"},
    "slab_unreclaimable": {
        "unreclaimable",
        "allocated",
        "threads",
        "children",
        "fds",
        "zombies",
        "mappings",
    },
    "kernel_stacks": {"threads", "children", "zombies"},
    "vmalloc": {"buffers", "allocated", "threads", "children", "zombies"},
    "page_tables": {"children", "page_tables", "anon", "threads", "mappings"},
    "tmpfs": {"shmem"},
    "shm": {"shmem"},
    "percpu": {"allocated"},
    "unexplained": {"allocated"},
}


def _may_follow(trend: Trend, cause: Cause) -> bool:
    parts = _PARTS.get(trend.series.metric)  # None: a sum of everything
    metrics = {t.series.metric for t in (cause.trend, *cause.follows)}
    return parts is None or bool(metrics & parts)


def _bytes_of(cause: Cause, whole: Trend) -> float:
    """Return the bytes an hour a cause brings to `whole`; sums are not added again."""
    trends = (cause.trend, *cause.follows, *cause.alike)
    parts = [t for t in trends if t.series.unit == "bytes"]
    leaves = [t for t in parts if t.series.subject.kind not in {"cgroup", "system"}]
    if leaves:
        return sum(t.rate or 0.0 for t in leaves)
    inner, outer = cause.trend.series.subject, whole.series.subject
    within = outer.kind == "system" or inner.key.startswith(outer.key.rstrip("/") + "/")
    return (cause.trend.rate or 0.0) if parts and inner.kind == "cgroup" and within else 0.0


def _depth(trend: Trend) -> int:
    key = trend.series.subject.key
    return 0 if key == "/" else key.count("/")
