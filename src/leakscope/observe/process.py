# SPDX-License-Identifier: Apache-2.0
"""The account of one process: what kinds of memory it holds, which descriptors and threads."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.observe.threads import stack_pointers
from leakscope.proc.fds import read_open_files
from leakscope.proc.process import read_gauges
from leakscope.proc.smaps import MappedArea, read_areas, read_rollup
from leakscope.proc.sockets import read_peers
from leakscope.proc.text import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ProcessAccount", "account_of", "points_to"]


# Files that are memory: POSIX and System V shared memory, memfd, shared anonymous memory.
_SHARED = ("/dev/shm/", "/memfd:", "/SYSV", "/dev/zero")  # noqa: S108 (names, not opened)


@dataclass(frozen=True, slots=True)
class ProcessAccount:
    """`lines` are (name, bytes, resident): the resident ones add up to RSS.

    `pss` and `uss` are None without permission; `descriptors` too. Names of threads and kinds of
    descriptors come with their number, most frequent first.
    """

    pid: int
    name: str
    lines: tuple[tuple[str, int, bool], ...]
    rss: int
    pss: int | None
    uss: int | None
    descriptors: tuple[tuple[str, int], ...] | None
    threads: tuple[tuple[str, int], ...]


def account_of(pid: int) -> ProcessAccount | None:
    """Return the account of `pid`; None when it is gone."""
    gauges, place = read_gauges(pid)
    if gauges is None:
        return None
    rollup, opened, areas = read_rollup(place), read_open_files(place), read_areas(place)
    resident: tuple[tuple[str, int, bool], ...]
    if areas is None:
        resident = (
            ("private, as heap and stacks", gauges.rss_anon, True),
            ("files", gauges.rss_file, True),
            ("shared memory", gauges.rss_shmem, True),
        )
    else:
        resident = _kinds(areas, stack_pointers(pid))
    lines = (
        *resident,
        ("in swap", gauges.swap, False),
        ("page tables", gauges.page_tables, False),
    )
    return ProcessAccount(
        pid=pid,
        name=gauges.name,
        lines=lines,
        rss=sum(size for _, size, _ in resident),
        pss=None if rollup is None else rollup.pss,
        uss=None if rollup is None else rollup.uss,
        descriptors=None if opened is None else opened.kinds,
        threads=_threads(pid),
    )


def _kinds(areas: Sequence[MappedArea], stacks: Sequence[int]) -> tuple[tuple[str, int, bool], ...]:
    """Divide what is in memory; each thread's stack is known by the thread's stack pointer."""
    starts = [area.start for area in areas]
    theirs = {bisect_right(starts, pointer) - 1 for pointer in stacks if pointer}
    sums = dict.fromkeys(
        (
            "in the heap grown by brk",
            "other private memory: mmap, malloc arenas",
            "stacks",
            "variables and other private copies of files",
            "files",
            "shared memory",
        ),
        0,
    )
    brk, other, stack, copies, files, shared = sums
    for at, area in enumerate(areas):
        name = area.path
        if name == "[heap]":
            kind = brk
        elif name.startswith("[stack") or (at in theirs and not name.startswith("/")):
            kind = stack
        else:
            kind = copies if name.startswith("/") else other
        sums[kind] += area.anonymous
        sums[shared if name.startswith(_SHARED) else files] += area.rss - area.anonymous
    return tuple((name, size, True) for name, size in sums.items())


def points_to(pid: int) -> tuple[tuple[str, int], ...]:
    """Return what the descriptors of `pid` point to, most frequent first: files and peers.

    Sockets to one peer in one state are one line. Empty without permission.
    """
    _, place = read_gauges(pid)
    opened = read_open_files(place)
    if opened is None:
        return ()
    peers = read_peers(place) if any(t.startswith("socket:[") for t in opened.targets) else {}
    found: Counter[str] = Counter()
    for target in opened.targets:
        kind, _, inode = target.rstrip("]").partition(":[")
        if kind == "socket" and inode.isdecimal():
            found[peers.get(int(inode), "socket, of another kind or not connected")] += 1
        elif inode:
            found[kind] += 1  # a number tells nothing
        else:
            found[target] += 1
    return tuple(found.most_common())


def _threads(pid: int) -> tuple[tuple[str, int], ...]:
    names: Counter[str] = Counter()
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return ()
    for task in tasks:
        name = read_text(f"/proc/{pid}/task/{task}/comm", 64)
        if name:
            names[name.strip()] += 1
    return tuple(names.most_common())
