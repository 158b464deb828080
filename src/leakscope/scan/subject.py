# SPDX-License-Identifier: Apache-2.0
"""Whether a process can be scanned at all, said before it is touched."""

from __future__ import annotations

import contextlib
from pathlib import Path

from leakscope.errors import TargetError, UsageError
from leakscope.proc.naming import name_of
from leakscope.proc.process import refuse_thread

__all__ = ["LONGEST_PAUSE_S", "PAUSE_S", "check_pause", "check_process", "process_name"]

PAUSE_S, LONGEST_PAUSE_S = 0.1, 3600.0
"""How long a process stands still for a scan, unless asked otherwise, and at most."""

_ELF64 = 2
_MOST_PID = 1 << 22


def check_pause(seconds: float) -> None:
    """Raise `UsageError` for a pause that makes no sense."""
    if not 0 < seconds <= LONGEST_PAUSE_S:
        raise UsageError(
            f"a pause of {seconds:g} s is not possible", hint="--max-pause SECONDS, 0.1 say."
        )


def check_process(pid: int) -> None:
    """Raise `TargetError` when `pid` is gone, has ended, or has no heap that we can walk."""
    if not 0 < pid <= _MOST_PID:
        raise UsageError(f"{pid} is not a process id", hint="leakscope scan PID")
    refuse_thread(pid)
    folder = Path(f"/proc/{pid}")
    try:
        text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        state = text.rpartition(")")[2].split()[0]
    except OSError:
        raise TargetError(f"there is no process {pid}") from None
    if state in {"Z", "X"}:
        # Its first thread has ended; while others run, the process is there.
        others = [task for task in (folder / "task").iterdir() if task.name != str(pid)]
        folder = others[0] if others else folder
    if state in {"Z", "X"} and folder.name == str(pid):
        raise TargetError(
            f"process {pid} has ended already; only its parent has not noticed (a zombie)",
            hint="Scan the process while it runs.",
        )
    if not (folder / "cmdline").read_bytes() and not _has_executable(folder):
        raise TargetError(f"process {pid} is a thread of the kernel: it has no heap")
    with contextlib.suppress(OSError):
        with (folder / "exe").open("rb") as file:
            start = file.read(5)
        if start[:4] == b"\x7fELF" and start[4] != _ELF64:
            raise TargetError(
                f"process {pid} is a 32-bit process; leakscope scans 64-bit ones",
                hint="valgrind has 32-bit support: valgrind --leak-check=full PROGRAM",
            )


def _has_executable(folder: Path) -> bool:
    try:
        (folder / "exe").readlink()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def process_name(pid: int) -> str:
    """Return what people call `pid`: "python3 manage.py"; "process" when nobody can tell."""
    return name_of(pid).short or "process"
