# SPDX-License-Identifier: Apache-2.0
"""How the gauges of a watch are called and drawn, the same in every report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.report.text import printable

if TYPE_CHECKING:
    from leakscope.model.series import Series, Subject

__all__ = ["gauge_name", "grown", "spark", "subject_name"]

_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_NAMES = {
    "anon": "private memory",
    "virtual": "virtual size",
    "shmem": "shared memory",
    "page_tables": "page tables",
    "fds": "open descriptors",
    "mappings": "memory mappings",
    "zombies": "zombies",
    "children": "child processes",
    "used": "memory in use",
    "unexplained": "unexplained kernel pages",
    "page_cache": "page cache",
    "slab_unreclaimable": "unreclaimable kernel caches",
    "slab_reclaimable": "reclaimable kernel caches",
    "kernel_stacks": "kernel stacks",
    "percpu": "per-CPU memory",
    "hugetlb": "huge pages",
    "socket_buffers": "socket buffers",
    "working_set": "working set",
    "kernel": "kernel memory",
    "tmpfs": "content",
    "shm": "content",
    "unreclaimable": "objects",
    "reclaimable": "objects",
    "buffers": "buffers",
    "allocated": "allocated there",
    "cached": "cached there",
    "dying_cgroups": "removed cgroups that still hold memory",
    "pss": "PSS",
    "rss": "resident memory",
    "instances_bytes": "bytes of instances",
    "taken": "memory taken since the first look",
    "private_dirty": "private memory",
    "writable": "writable address space",
    "committed": "committed memory",
    "held": "bytes held",
    "uss": "USS",
}
_KINDS = {
    "cgroup": "cgroup ",
    "slab": "slab cache ",
    "tmpfs": "tmpfs ",
    "vmalloc": "vmalloc by ",
    "page_stack": "pages by ",
}


def subject_name(subject: Subject) -> str:
    """Return what people call it: "postgres (pid 1234)", "slab cache dentry"."""
    pid = "" if subject.pid is None else f" (pid {subject.pid})"
    return f"{_KINDS.get(subject.kind, '')}{printable(subject.name)}{pid}"


def home_text(subject: Subject) -> str:
    """Return where a process lives: "in nginx.service"; "" where no cgroup tells."""
    return f"in {printable(subject.home)}" if subject.home else ""


def gauge_name(metric: str) -> str:
    """Return what the gauge is called: "private memory"."""
    return _NAMES.get(metric, printable(metric).replace("_", " "))


def grown(series: Series) -> float:
    """Return how much it grew since it was first seen."""
    return float(series.values[-1] - series.values[0]) if len(series.values) else 0.0


def spark(series: Series, width: int = 16, *, unicode: bool = True) -> str:
    """Return the course of a series as at most `width` bars: the mean of each stretch."""
    values = series.values
    if not len(values):
        return ""
    bars = _BARS if unicode else _ASCII_BARS
    edges = sorted({round(n * len(values) / width) for n in range(width + 1)})
    means = (np.add.reduceat(values, edges[:-1]) / np.diff(edges)).tolist()
    low, high = min(means), max(means)
    # What moves less than a thousandth rests: noise must not look like a mountain range.
    if high - low <= 0.001 * abs(high):
        return bars[0] * len(means)
    return "".join(bars[int((mean - low) / (high - low) * (len(bars) - 1))] for mean in means)
