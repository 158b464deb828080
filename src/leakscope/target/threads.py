# SPDX-License-Identifier: Apache-2.0
"""What /proc tells of a process's threads before they are stopped, as far as it matters for that."""

from __future__ import annotations

from pathlib import Path

from leakscope.errors import TargetError
from leakscope.proc.text import read_text

__all__ = [
    "has_ended",
    "has_others",
    "is_asking",
    "is_deep",
    "is_ending",
    "is_filtered",
]
__all__ += ["is_traced_by", "is_worker", "living_thread", "run_ns", "thread_ids"]

# linux/sched.h: flags in /proc/TID/stat
_EXITING, _IO_WORKER, _USER_WORKER = 0x4, 0x10, 0x4000
_LOOKS = 500  # half a second of them
_ASKING = ("seccomp_do_user_notif", "__seccomp_filter")

_untold: list[int] = []  # looks at sleeping threads, one after another, that told nothing


def thread_ids(pid: int) -> list[int]:
    """Return the numbers of a process's threads. Raises `TargetError` when there is no process."""
    try:
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TargetError(f"there is no process {pid}") from error


def is_deep(pid: int, tid: int) -> bool:
    """Whether the thread waits in the kernel for what nothing interrupts."""
    return _stat(pid, tid)[:1] == ["D"]


def run_ns(pid: int, tid: int) -> int:
    """Return how long the thread has run on a processor, 0 when that is not told."""
    words = (read_text(f"/proc/{pid}/task/{tid}/schedstat") or "").split()
    return int(words[0]) if words else 0


def is_worker(pid: int, tid: int) -> bool:
    """Whether it is a thread that the kernel has made, for io_uring or vhost: it runs no program."""
    fields = _stat(pid, tid)
    return len(fields) > 6 and bool(int(fields[6]) & (_IO_WORKER | _USER_WORKER))


def is_filtered(pid: int, tid: int) -> bool:
    """Whether the thread's system calls are filtered (seccomp)."""
    text = read_text(f"/proc/{pid}/task/{tid}/status") or ""
    return text.partition("\nSeccomp:\t")[2][:1] in {"1", "2"}


def is_traced_by(tid: int, tracer: int) -> bool:
    """Whether the process `tracer` traces the thread."""
    return f"\nTracerPid:\t{tracer}\n" in (read_text(f"/proc/{tid}/status") or "")


def is_asking(pid: int, tid: int) -> bool | None:
    """Whether a filtered thread waits for its supervisor to answer (SECCOMP_RET_USER_NOTIF).

    None: it does not sleep just now, and may be on its way to that. A stop would take the question
    back, and ask it again afterwards: what the supervisor has done by then, a mount or a
    connection, it would do twice.
    """
    place = read_text(f"/proc/{pid}/task/{tid}/wchan") or ""
    if place not in {"", "0"}:
        _untold.clear()
        return place.startswith(_ASKING)
    # Not asleep yet; or the kernel does not tell where threads sleep, and nothing can be done.
    if _stat(pid, tid)[:1] != ["R"]:
        _untold.append(tid)
    return False if not place or len(_untold) > _LOOKS else None


def has_others(pid: int) -> bool:
    """Whether the process has threads beside its first one."""
    try:
        return any(tid != pid for tid in thread_ids(pid))
    except TargetError:
        return False


def has_ended(tid: int) -> bool:
    """Whether the thread is a zombie: a first thread stays one as long as others run."""
    return _stat(tid, tid)[:1] in ([], ["Z"], ["X"])


def is_ending(pid: int, tid: int) -> bool:
    """Whether the thread cannot be stopped because it is just ending, or has ended."""
    fields = _stat(pid, tid)
    return not fields or fields[0] in {"Z", "X"} or bool(int(fields[6]) & _EXITING)


def living_thread(pid: int) -> int:
    """Return a thread through which the process can be looked at: its first one may have ended."""
    if not has_ended(pid):
        return pid
    return next((tid for tid in thread_ids(pid) if not is_ending(pid, tid)), pid)


def _stat(pid: int, tid: int) -> list[str]:
    text = read_text(f"/proc/{pid}/task/{tid}/stat") or ""
    return text.rpartition(")")[2].split()
