# SPDX-License-Identifier: Apache-2.0
"""What somebody asks to be watched: processes by number or name, a cgroup, a length of time."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from leakscope._digits import is_number
from leakscope.errors import TargetError, UsageError
from leakscope.proc.cgroup import find_hierarchy, read_cgroup
from leakscope.proc.naming import answers_to
from leakscope.proc.process import pids, read_start, refuse_thread

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["find_cgroup", "find_processes", "parse_distance", "parse_duration"]

_LONGEST_S = 3650 * 86_400.0
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def find_cgroup(path: str) -> str:
    """Return a cgroup by its place in the hierarchy. Raises `TargetError` when there is none."""
    hierarchy = find_hierarchy()
    if hierarchy is None:
        raise TargetError("no memory cgroups can be seen here", hint="Is /sys/fs/cgroup mounted?")
    below = "/" + path.removeprefix(hierarchy.root).strip("/")
    if ".." in below.split("/") or read_cgroup(hierarchy, below) is None:
        raise TargetError(
            f"there is no memory cgroup {path}",
            hint=f"They are below {hierarchy.root}; systemd-cgls shows them.",
        )
    return below


def parse_duration(text: str) -> float:
    """Return seconds of "20s", "30m", "2h" or "1d"; a bare number is seconds."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhd]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"'{text[:40]}' is no length of time", hint="Write it as 20s, 30m or 2h.")
    return min(float(match[1]) * _UNITS[match[2]], _LONGEST_S)


def parse_distance(text: str, soonest_s: float = 0.1, latest_s: float = 86_400.0) -> float:
    """Return the seconds between two looks, as --every gives them.

    Raises `UsageError` for what is no time, and for what is too short or too long.
    """
    seconds = parse_duration(text)
    if not soonest_s <= seconds <= latest_s:
        longest = "1d" if latest_s >= 86_400 else f"{latest_s / 3600:g}h"
        raise UsageError(
            f"--every {text} is too {'short' if seconds < soonest_s else 'long'}",
            hint=f"It may be anything from {soonest_s:g}s to {longest}.",
        )
    return seconds


def find_processes(targets: Iterable[str]) -> tuple[frozenset[int], frozenset[str]]:
    """Return the processes that are asked for now, and the names new ones are known by.

    Raises `TargetError` for one that does not exist.
    """
    targets = list(targets)
    found: set[int] = set()
    names = frozenset(target for target in targets if not is_number(target))
    for target in targets:
        if not target:
            raise UsageError("a process has no empty name", hint="Name a program or a pid.")
        if is_number(target):
            if len(target) > 10 or read_start(int(target)) is None:
                raise TargetError(f"there is no process {target[:80]}")
            refuse_thread(int(target))
            found.add(int(target))
            continue
        named = {pid for pid in pids() if pid != os.getpid() and answers_to(pid, target)}
        if not named:
            raise TargetError(
                f"there is no process called '{target[:80]}'",
                hint="The name is that of the program, or of the script that it runs, without directories.",
            )
        found |= named
    return frozenset(found), names
