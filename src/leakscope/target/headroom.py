# SPDX-License-Identifier: Apache-2.0
"""Whether a machine and a process's cgroups have room for a copy of it, in the worst case.

A copy-on-write copy costs nothing at first; when the process then writes to all of its memory,
all of it is there twice, and charged to the process's cgroup. There the kernel kills what is
largest, which may be the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from leakscope.proc.cgroup import above
from leakscope.proc.text import read_number, read_text
from leakscope.proc.vm import parse_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["lack_of_memory", "lack_of_processes", "overcommits", "room_in_cgroups"]

_RESERVE = 32 << 20  # bytes that stay free for others
_SPARE_PROCESSES = 32
_UNLIMITED = 1 << 62  # version 1 says "no limit" with a number close to 2**63


@dataclass(frozen=True, slots=True)
class _Group:
    folder: str
    version: int

    def number(self, name: str) -> int | None:
        value = read_number(f"{self.folder}/{name}")
        return value if value is not None and value < _UNLIMITED else None


def lack_of_memory(pid: int, bytes_: int) -> str | None:
    """Say why `bytes_` more in the cgroups of `pid` may be too many; None: there is room."""
    machine = parse_numbers((read_text("/proc/meminfo") or "").replace(":", "").replace(" kB", ""))
    free = machine.get("MemAvailable")
    if free is not None and free * 1024 < bytes_ + _RESERVE:
        return f"{bytes_:,} bytes more may not fit in the machine's memory"
    groups = _groups(pid, "memory")
    if groups is None:
        return "its memory cgroup cannot be seen from here"
    for group in groups:
        if read_text(f"{group.folder}/memory.oom.group", 16) == "1\n":
            return "its cgroup is killed as a whole when memory runs out (memory.oom.group)"
        for limit in _limits(group):
            if limit < bytes_ + _RESERVE:
                return (
                    f"its memory cgroup has room for {max(limit, 0):,} bytes more, and"
                    f" {bytes_:,} may be needed"
                )
    return None


def room_in_cgroups(pid: int) -> int | None:
    """Return how many bytes are left below the memory limits of the cgroups of `pid`; None: none."""
    groups = _groups(pid, "memory") or []
    return min((max(left, 0) for group in groups for left in _limits(group)), default=None)


def _limits(group: _Group) -> Iterator[int]:
    """Yield the bytes that are left below each limit of a cgroup, what can be dropped included."""
    stat = parse_numbers(read_text(f"{group.folder}/memory.stat", 1 << 16) or "")
    if group.version == 2:
        used = group.number("memory.current")
        idle = stat.get("inactive_file", 0)
        # Above memory.high nothing is killed, but everything waits.
        pairs = [(used, group.number(name)) for name in ("memory.max", "memory.high")]
    else:
        idle = stat.get("total_inactive_file", 0)
        pairs = [
            (group.number(f"{name}.usage_in_bytes"), group.number(f"{name}.limit_in_bytes"))
            for name in ("memory", "memory.memsw", "memory.kmem")
        ]
    for used, limit in pairs:
        if used is not None and limit is not None:
            yield limit - max(used - idle, 0)


def lack_of_processes(pid: int) -> str | None:
    """Say why one more process might be one too many; None: there is room."""
    groups = _groups(pid, "pids")
    if groups is None:
        return "its pids cgroup cannot be seen from here"
    for group in groups:
        used, most = group.number("pids.current"), group.number("pids.max")
        if used is not None and most is not None and most - used < _SPARE_PROCESSES:
            return f"its pids cgroup has room for {max(most - used, 0)} more processes only"
    status = read_text(f"/proc/{pid}/status") or ""
    uid = _field(status, "Uid").split()[:1]
    most = _soft_limit(pid, "Max processes")
    if most is not None and uid and uid != ["0"]:
        used = _threads_of(uid[0])
        if most - used < _SPARE_PROCESSES:
            return f"its user has {used} processes and threads, and may have {most} (RLIMIT_NPROC)"
    return None


def overcommits() -> bool:
    """Whether the kernel promises more memory than there is, as it does unless told not to."""
    return read_number("/proc/sys/vm/overcommit_memory") != 2


def _soft_limit(pid: int, name: str) -> int | None:
    for line in (read_text(f"/proc/{pid}/limits") or "").split("\n"):
        if line.startswith(name):
            word = line[len(name) :].split()[0]
            return int(word) if word.isdecimal() else None
    return None


def _threads_of(uid: str) -> int:
    count = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            status = read_text(f"{folder}/status") or ""
            if _field(status, "Uid").split()[:1] == [uid]:
                threads = _field(status, "Threads")
                count += int(threads) if threads.isdecimal() else 1
    return count


def _field(status: str, name: str) -> str:
    return status.partition(f"\n{name}:\t")[2].partition("\n")[0]


def _groups(pid: int, controller: str) -> list[_Group] | None:
    """Return the cgroup of `pid` and those above it that can be seen; None: not even its own."""
    mounts: dict[int, str] = {}
    for line in (read_text("/proc/self/mountinfo") or "").split("\n"):
        left, dash, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if not dash or len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup" and controller in kind[2].split(","):
            mounts.setdefault(1, fields[4].replace("\\040", " "))
        elif kind[0] == "cgroup2":
            mounts.setdefault(2, fields[4].replace("\\040", " "))
    for line in (read_text(f"/proc/{pid}/cgroup", 1 << 16) or "").split("\n"):
        number, names, path = [*line.split(":", 2), "", ""][:3]
        version = 2 if number == "0" else 1
        if (version == 1 and controller not in names.split(",")) or (version == 2 and 1 in mounts):
            continue
        if not path or version not in mounts:
            continue
        if ".." in PurePath(path).parts or not Path(mounts[version] + path).is_dir():
            return None
        return [
            _Group(mounts[version] + each.rstrip("/"), version) for each in (path, *above(path))
        ]
    return []  # a kernel without such a controller
