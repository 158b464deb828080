# SPDX-License-Identifier: Apache-2.0
"""Which gauge of the kernel follows which: a cache the line that fills it, a line a program's doing.

Kernel memory is mostly held for somebody: a file for a descriptor, a task for a thread. A line
that grows as the descriptors of a process do is that process's leak, and no bug of the kernel.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.model.series import TrendVerdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.series import Cause, Trend

__all__ = ["KERNEL_KINDS", "OBJECTS", "explained_by", "is_held_open", "serves"]

_LINES = frozenset({"allocinfo", "page_stack"})
KERNEL_KINDS = _LINES | {"slab", "vmalloc"}

# Parts of the name of a source line whose objects are there for a gauge of a process, and how
# many bytes one of them brings at most.
_FILES: tuple[str, ...] = (
    "fs/file_table.c",
    "fs/pipe.c",
    "fs/eventpoll.c",
    "fs/eventfd.c",
    "fs/signalfd.c",
)
_FILES += ("fs/timerfd.c", "fs/inode.c", "fs/dcache.c", "fs/anon_inodes.c", "fs/file.c")
_FILES += ("net/socket.c", "net/core/sock.c", "net/core/skbuff.c", "net/unix/", "net/ipv4/")
_FILES += ("net/ipv6/", "net/netlink/", "security/", "ipc/mqueue.c", "kernel/bpf/", "io_uring/")
_TASKS: tuple[str, ...] = (
    "kernel/fork.c",
    "kernel/pid.c",
    "kernel/cred.c",
    "kernel/signal.c",
    "mm/vma",
)
_TASKS += ("mm/mmap.c", "mm/rmap.c", "lib/maple_tree.c", "security/", "kernel/sched/", "fs/file.c")
_MAPPINGS = ("mm/vma", "mm/mmap.c", "mm/rmap.c", "lib/maple_tree.c", "kernel/fork.c")
_BEHIND = {
    "fds": (_FILES, 512 << 10),
    "threads": (_TASKS, 128 << 10),
    "children": (_TASKS, 1 << 20),
    "zombies": (_TASKS, 128 << 10),
    "mappings": (_MAPPINGS, 4 << 10),
}
# Kernel objects behind each gauge of a process.
OBJECTS = {
    "fds": ("filp", "inode", "sock", "eventpoll", "pipe", "UNIX", "TCP", "UDP", "skbuff"),
    "threads": ("task_struct", "thread_stack", "vm_area_struct", "signal", "pid", "cred"),
    "mappings": ("vm_area_struct", "vma", "maple_node", "anon_vma"),
    "zombies": ("task_struct", "signal", "sighand", "pid", "cred", "thread_stack"),
    "children": (
        "task_struct",
        "signal",
        "sighand",
        "pid",
        "cred",
        "thread_stack",
        "mm_struct",
        "vm_area_struct",
        "vma",
        "anon_vma",
        "maple_node",
        "files_cache",
        "fs_cache",
    ),
    "files": ("inode", "dentry"),
}
# Bytes of one cache that one of these takes at most.
_OF_CACHE = {
    "fds": 4 << 10,
    "threads": 32 << 10,
    "children": 64 << 10,
    "zombies": 32 << 10,
    "mappings": 1 << 10,
    "files": 4 << 10,
}
# A cache of kmalloc has no name of its own: one object comes with one descriptor, or with a pair.
_OF_SIZE = re.compile(r"kmalloc-(?:[a-z][\w-]*-)?(\d{1,8})(k?)(?: |$)")
_FEWEST, _MOST_OBJECTS = 0.4, 1.5
_LEAST, _MOST = 0.5, 1.5  # of the growth of a cache, what its line brings


def explained_by(trend: Trend, causes: Sequence[Cause]) -> int | None:
    """Return the place of the cause that a gauge of the kernel follows; None: it follows none."""
    kind = trend.series.subject.kind
    for at, cause in enumerate(causes):
        if kind in _LINES:
            pace = sum(_pace(t) for t in (cause.trend, *cause.alike))
            if _is_behind(trend, cause.trend.series.metric, pace):
                return at
        else:
            lines = [t for t in (cause.trend, *cause.follows) if t.series.subject.kind in _LINES]
            if any(_fills(line, trend) for line in lines):
                return at
    return None


def serves(kernel: Trend, program: Trend) -> bool:
    """Whether a gauge of the kernel can grow for what a program keeps, by its name and its pace.

    Files in memory (tmpfs) are kept by a program as well.
    """
    metric = program.series.metric
    if program.series.subject.kind not in {"process", "tmpfs"}:
        return False
    if kernel.series.subject.kind in _LINES:
        return _is_behind(kernel, metric, _pace(program))
    if kernel.series.subject.kind != "slab" or metric not in _OF_CACHE:
        return False
    name = kernel.series.subject.name
    pace = _pace(program)
    if (size := _OF_SIZE.match(name)) is not None:
        objects = _pace(kernel) / (int(size[1]) * (1024 if size[2] else 1) or 1)
        return _FEWEST * pace <= objects <= _MOST_OBJECTS * pace and pace > 0.0
    of_it = any(part in name for part in OBJECTS.get(metric, ()))
    return of_it and 0.0 < _pace(kernel) <= _OF_CACHE[metric] * pace


def is_held_open(trend: Trend, trends: Sequence[Trend]) -> bool:
    """Whether a gauge of the kernel may grow for a program whose own gauge has no verdict yet.

    What a program keeps open is no leak of the kernel's, whether it is one of the program's or not.
    """
    growing = [
        t
        for t in trends
        if t.series.subject.kind == "process"
        and t.series.metric in _BEHIND
        and t.verdict in (TrendVerdict.GROWING, TrendVerdict.NOT_ENOUGH_DATA)
        and t.growth is not None
        and t.growth.rate_low > 0
    ]
    if any(serves(trend, t) for t in growing):
        return True
    lines = [trend]
    if trend.series.subject.kind not in _LINES:
        own = (t for t in trends if t.series.subject.kind in _LINES)
        lines = [line for line in own if _fills(line, trend)]
    return any(_is_behind(line, t.series.metric, _pace(t)) for line in lines for t in growing)


def _is_behind(line: Trend, metric: str, pace: float) -> bool:
    """Whether a line can serve the gauge `metric` of a program, which grows by `pace` an hour."""
    parts, most = _BEHIND.get(metric, ((), 0))
    name = line.series.subject.name
    return any(part in name for part in parts) and 0.0 < _pace(line) <= most * pace


def _fills(line: Trend, cache: Trend) -> bool:
    """Whether what a line brings is what a cache, or the buffers of a function, grow by."""
    return _LEAST * _pace(cache) <= _pace(line) <= _MOST * _pace(cache) and _pace(line) > 0.0


def _pace(trend: Trend) -> float:
    """Return its growth in an hour; that of the present where there is no verdict on it."""
    if trend.rate is not None:
        return trend.rate
    return trend.growth.rate * 3600.0 if trend.growth is not None else 0.0
