# SPDX-License-Identifier: Apache-2.0
"""What one process holds, from the cheap files of /proc/PID that every user may read."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from leakscope.errors import TargetError
from leakscope.proc.text import read_lines, read_text

__all__ = ["Gauges", "children_of", "count_mappings", "parse_gauges", "parse_start", "pids"]
__all__ += ["is_called", "may_read_memory", "read_executable", "read_name"]
__all__ += ["read_private_resident", "read_resident"]
__all__ += ["living_task", "read_gauges", "read_start", "refuse_thread"]

_STATUS_BYTES, _LONG_STATUS_BYTES = 8192, 2 << 20
_FIELDS = {
    b"VmSize": "virtual",
    b"VmRSS": "rss",
    b"RssAnon": "rss_anon",
    b"RssFile": "rss_file",
    b"RssShmem": "rss_shmem",
    b"VmSwap": "swap",
    b"VmPTE": "page_tables",
    b"VmStk": "stack",
    b"VmData": "data",
    b"HugetlbPages": "hugetlb",
}


@dataclass(frozen=True, slots=True)
class Gauges:
    """Sizes in bytes, from /proc/PID/status. A kernel thread and a zombie have all sizes 0."""

    name: str  # at most 15 characters, as the kernel keeps it
    state: str  # one letter
    parent: int
    threads: int
    rss: int
    rss_anon: int
    rss_file: int
    rss_shmem: int
    swap: int
    page_tables: int
    stack: int  # of the first thread
    data: int  # address space for data, not memory held
    virtual: int = 0  # all address space: reserved, not memory held
    hugetlb: int = 0  # pages of hugetlb, which RSS leaves out

    @property
    def anon(self) -> int:
        """Anonymous memory held, in memory or in swap: what a leak of the heap adds to."""
        return self.rss_anon + self.swap


def parse_gauges(text: bytes) -> Gauges | None:
    """Read /proc/PID/status; None when it is cut short or is something else."""
    found: dict[str, int] = dict.fromkeys(_FIELDS.values(), 0)
    name, state, parent, threads = "", "", -1, -1
    try:
        for line in text.split(b"\n"):
            key, _, rest = line.partition(b":")
            field = _FIELDS.get(key)
            if field is not None:
                found[field] = int(rest.split()[0]) * 1024
            elif key == b"Name":
                name = rest.strip().decode("utf-8", "replace")
            elif key == b"State":
                state = rest.split()[0].decode("ascii", "replace")
            elif key == b"PPid":
                parent = int(rest)
            elif key == b"Threads":
                threads = int(rest)
    except (ValueError, IndexError):
        return None
    if not state or parent < 0 or threads < 0:
        return None
    return Gauges(name=name, state=state, parent=parent, threads=threads, **found)


def read_gauges(pid: int, fd: int = -1) -> tuple[Gauges | None, str]:
    """Return the gauges of `pid`, and what to put for PID in /proc/PID/... to see its memory.

    `fd` is an open /proc/PID/status. When the first thread has ended and others go on, the
    process looks like a zombie: what it holds is seen through another thread.
    """
    gauges = parse_gauges(_status_text(pid, fd) or b"")
    if gauges is None or gauges.state != "Z" or gauges.threads <= 1:
        return gauges, str(pid)
    try:
        tasks = sorted(int(name) for name in os.listdir(f"/proc/{pid}/task") if name.isdecimal())
    except OSError:
        tasks = []
    for task in tasks:
        other = parse_gauges(_status_text(f"{pid}/task/{task}") or b"") if task != pid else None
        if other is not None and other.state not in {"Z", "X"}:
            return replace(other, name=gauges.name), f"{pid}/task/{task}"
    return gauges, str(pid)


def living_task(pid: int) -> int:
    """Return the number to put for PID in /proc/PID/... to see what a process has.

    The process itself, or one of its threads when the first has ended and others go on: then
    the files of the process are empty.
    """
    where = read_gauges(pid)[1]
    return int(where.rpartition("/")[2])


def _status_text(pid: int | str, fd: int = -1) -> bytes | None:
    try:
        if fd >= 0:
            text = os.pread(fd, _STATUS_BYTES, 0)
            # The groups of the user come before the memory, and there may be thousands of them.
            return text if _is_whole(text) else os.pread(fd, _LONG_STATUS_BYTES, 0)
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            return _status_text(pid, file.fileno())
    except OSError:
        return None


def _is_whole(text: bytes) -> bool:
    return len(text) < _STATUS_BYTES or b"\nThreads:" in text


def parse_start(text: str) -> int | None:
    """Return the start in clock ticks since boot, field 22 of /proc/PID/stat."""
    # The name in brackets may itself hold brackets and spaces: count from the last one.
    words = text.rpartition(")")[2].split()
    return int(words[19]) if len(words) > 19 and words[19].isdecimal() else None


def read_start(pid: int) -> int | None:
    """Return the start of `pid` in clock ticks since boot; None when it is gone."""
    return parse_start(read_text(f"/proc/{pid}/stat", 4096) or "")


def refuse_thread(pid: int) -> None:
    """Raise `TargetError` where `pid` is the number of a thread, which /proc shows as a process.

    `top -H` and `ps -L` show such numbers. A number that is none of anything passes.
    """
    for line in (_status_text(pid) or b"").split(b"\n", 8):
        if line.startswith(b"Tgid:"):
            owner = int(line[5:])
            if owner not in {0, pid}:
                raise TargetError(
                    f"{pid} is a thread of process {owner} ({read_name(owner)}), and no process",
                    hint=f"Name the process instead: {owner}",
                )


def read_executable(pid: int) -> str | None:
    """Return the path of the program; None for kernel threads and without permission."""
    for task in (pid, None):
        try:
            # When the first thread has ended, another one knows.
            return os.readlink(f"/proc/{task or living_task(pid)}/exe").removesuffix(" (deleted)")
        except OSError:
            continue
    return None


def read_resident(pid: int) -> int:
    """Return the resident bytes of `pid`; 0 when it is gone."""
    pages = _statm(pid)
    return pages[1] * os.sysconf("SC_PAGE_SIZE") if pages is not None else 0


def read_private_resident(pid: int) -> int | None:
    """Return the resident bytes of `pid` that have no file behind them; None when it is gone."""
    pages = _statm(pid)
    return max(pages[1] - pages[2], 0) * os.sysconf("SC_PAGE_SIZE") if pages is not None else None


def _statm(pid: int) -> list[int] | None:
    """Return pages: mapped, resident, and these with a file; None when the process is gone."""
    for task in (pid, None):
        words = (read_text(f"/proc/{task or living_task(pid)}/statm", 256) or "").split()
        # It is zero where the first thread has ended: another one knows, at more cost.
        if len(words) > 2 and words[1] != "0" and all(word.isdecimal() for word in words[:3]):
            return [int(word) for word in words[:3]]
    return None


def pids() -> list[int]:
    """Return the processes we can see, ascending. With hidepid these are only our own."""
    try:
        return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    except OSError:
        return []


def count_mappings(pid: int | str) -> int | None:
    """Return the number of mappings; None without permission or when the process is gone.

    The kernel refuses more than vm.max_map_count (65,530 unless changed).
    """
    return sum(1 for _ in read_lines(f"/proc/{pid}/maps")) or None


def children_of(pid: int) -> list[int]:
    """Return the children of all threads of `pid`, zombies included.

    Empty on a kernel without CONFIG_PROC_CHILDREN.
    """
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        text = read_text(f"/proc/{pid}/task/{task}/children") or ""
        found += [int(word) for word in text.split() if word.isdecimal()]
    return found


def read_name(pid: int) -> str:
    """Return what `pid` calls itself, at most 15 characters; "" when it is gone."""
    return (read_text(f"/proc/{pid}/comm", 64) or "").rstrip("\n")


def may_read_memory(pid: int | str) -> bool:
    """Whether its maps may be read. True when it is gone: permission is not what is missing."""
    try:
        os.close(os.open(f"/proc/{pid}/smaps", os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError:
        return False
    except OSError:
        return True
    return True


def is_called(pid: int, name: str) -> bool:
    """Whether the program of `pid` is called `name`, by its file or by what it calls itself."""
    return read_name(pid) == name[:15] or (read_executable(pid) or "").rpartition("/")[2] == name
