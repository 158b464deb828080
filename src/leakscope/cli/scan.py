# SPDX-License-Identifier: Apache-2.0
"""`leakscope scan`: say which blocks of a running process nothing points to."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.cli._output import add_report_options, report_recordings, write_report
from leakscope.errors import LeakscopeError, UsageError

if TYPE_CHECKING:
    import argparse

_ELF64 = 2

HELP = """\
Stop a process for a moment, and say which of its blocks nothing points to any more.

A process that leakscope traces gives findings with call stacks and lines. For any other one
the heap of glibc's malloc is walked from outside: lost blocks are told by their size, and the
account says how much of the memory the program uses and how much its allocator keeps.
Exit status: 0 nothing lost, 1 lost blocks or leaks, 2 could not do it.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("pid", metavar="PID", help="the process, traced by leakscope or not")
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Scan, report, and return the exit status."""
    from leakscope.trace.live_files import find_live_file

    if not args.pid.isdecimal() or int(args.pid) <= 0:
        raise UsageError(f"{args.pid!r} is not a process id", hint="leakscope scan PID")
    pid = int(args.pid)
    _check(pid)
    live = find_live_file(pid)
    return _untraced(pid, args) if live is None else _traced(pid, live.path, args)


def _check(pid: int) -> None:
    from leakscope.errors import TargetError

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


def _traced(pid: int, path: Path, args: argparse.Namespace) -> int:
    from leakscope.recording import live
    from leakscope.recording.own import own_ranges
    from leakscope.scan import scan_process

    recording = scan_process(pid, lambda: live.read(path), own=own_ranges(path))
    status = report_recordings([(f"process {pid}", recording)], args, sys.stdout)
    if recording.scan is not None and not args.json:
        threads = recording.scan.threads
        print(
            f"leakscope: process {pid} was stopped for {recording.scan.pause_ms:.0f} ms"
            f" ({threads} thread{'s' if threads != 1 else ''})",
            file=sys.stderr,
        )
    return status


def _untraced(pid: int, args: argparse.Namespace) -> int:
    from leakscope.model.reachability import Reachability
    from leakscope.report.heap import render_heap, to_json
    from leakscope.scan import scan_untraced

    scan = scan_untraced(pid)
    name = _name(pid)
    write_report(to_json(scan, name) if args.json else render_heap(scan, name), args, sys.stdout)
    return int(args.exit_code) if scan.counts[Reachability.DEFINITELY_LOST] else 0


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, LeakscopeError):
        return "process"
