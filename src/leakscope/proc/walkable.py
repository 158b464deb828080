# SPDX-License-Identifier: Apache-2.0
"""Whether a process is one whose heap can be looked at, and what is in the way."""

from __future__ import annotations

import contextlib
from pathlib import Path

from leakscope.errors import TargetError

__all__ = ["check_walkable"]

_ELF64 = 2


def check_walkable(pid: int) -> None:
    """Raise `TargetError` when there is no such process, or none that can have a heap to walk."""
    folder = Path(f"/proc/{pid}")
    try:
        state = (
            (folder / "stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()[0]
        )
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
        start = (folder / "exe").open("rb").read(5)
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
