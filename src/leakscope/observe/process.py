# SPDX-License-Identifier: Apache-2.0
"""The account of one process: what kinds of memory it holds, which descriptors and threads."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from leakscope.proc._text import read_text
from leakscope.proc.fds import read_open_files
from leakscope.proc.process import parse_gauges
from leakscope.proc.smaps import read_rollup
from leakscope.proc.sockets import read_peers

__all__ = ["ProcessAccount", "account_of", "points_to"]


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
    gauges = parse_gauges((read_text(f"/proc/{pid}/status") or "").encode())
    if gauges is None:
        return None
    rollup, opened = read_rollup(pid), read_open_files(pid)
    lines = (
        ("private, as heap and stacks", gauges.rss_anon, True),
        ("files", gauges.rss_file, True),
        ("shared memory", gauges.rss_shmem, True),
        ("in swap", gauges.swap, False),
        ("page tables", gauges.page_tables, False),
    )
    return ProcessAccount(
        pid=pid,
        name=gauges.name,
        lines=lines,
        rss=gauges.rss,
        pss=None if rollup is None else rollup.pss,
        uss=None if rollup is None else rollup.uss,
        descriptors=None if opened is None else opened.kinds,
        threads=_threads(pid),
    )


def points_to(pid: int) -> tuple[tuple[str, int], ...]:
    """Return what the descriptors of `pid` point to, most frequent first: files and peers.

    Sockets to one peer in one state are one line. Empty without permission.
    """
    opened = read_open_files(pid)
    if opened is None:
        return ()
    peers = read_peers(pid) if any(t.startswith("socket:[") for t in opened.targets) else {}
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
