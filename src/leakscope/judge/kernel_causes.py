# SPDX-License-Identifier: Apache-2.0
"""Which gauge of the kernel follows which: a cache the line that fills it, a line a program's doing.

Kernel memory is mostly held for somebody: a file for a descriptor, a task for a thread. A line
that grows as the descriptors of a process do is that process's leak, and no bug of the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.series import Cause, Trend

__all__ = ["KERNEL_KINDS", "explained_by"]

KERNEL_KINDS = frozenset({"allocinfo", "page_stack", "slab", "vmalloc"})

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
_LEAST, _MOST = 0.5, 1.5  # of the growth of a cache, what its line brings


def explained_by(trend: Trend, causes: Sequence[Cause]) -> int | None:
    """Return the place of the cause that a gauge of the kernel follows; None: it follows none."""
    series, rate = trend.series, trend.rate or 0.0
    kind, name = series.subject.kind, series.subject.name
    if kind in {"allocinfo", "page_stack"}:
        for at, cause in enumerate(causes):
            parts, most = _BEHIND.get(cause.trend.series.metric, ((), 0))
            pace = sum(t.rate or 0.0 for t in (cause.trend, *cause.alike))
            if any(part in name for part in parts) and rate <= most * pace:
                return at
        return None
    return next(
        (
            at
            for at, cause in enumerate(causes)
            if cause.trend.series.subject.kind == "allocinfo"
            and _LEAST * rate <= (cause.trend.rate or 0.0) <= _MOST * rate
        ),
        None,
    )
