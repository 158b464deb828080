# SPDX-License-Identifier: Apache-2.0
"""`leakscope.scan`: which blocks of a running process, or of a core file, nothing points to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope import _numpy  # noqa: F401 - before anything that imports numpy
from leakscope._library import values
from leakscope._library.analysing import analyser
from leakscope._library.results import Findings, Scan
from leakscope._paths import exists
from leakscope.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope._analysis import Analyser
    from leakscope._library.values import Duration, PathLike, Size

__all__ = ["scan"]


def scan(
    target: int | PathLike,
    *,
    max_pause: Duration = 0.1,
    suppressions: PathLike | Sequence[PathLike] = (),
    debug_dirs: PathLike | Sequence[PathLike] = (),
    debuginfod: bool = True,
    min_bytes: Size = 0,
) -> Scan:
    """Say which blocks nothing points to, in a process by its number or in a core file.

    The process stands still for `max_pause` at most, while its memory is copied; where that takes
    longer it is forked, if that can do no harm, and else nothing is done and the reason is told.
    The other options are as in `analyse` and matter for a process that leakscope traces.

    Raises `TargetError` when there is no such process, when it may not be looked at or its memory
    cannot be read, and `UsageError` for what is neither a process nor a file.
    """
    from leakscope.scan import cancellable, scan_core
    from leakscope.scan.subject import check_pause, check_process

    pause = values.duration("max_pause", max_pause)
    check_pause(0.0 if pause is None else pause)
    judge = analyser(suppressions, debug_dirs, debuginfod, min_bytes)
    name = str(target) if isinstance(target, int) else values.path("target", target)
    if isinstance(target, bool) or (not name.isdecimal() and not exists(name)):
        raise UsageError(
            f"{name!r} is neither a process id nor a file", hint="leakscope.scan(PID or CORE)"
        )
    if not name.isdecimal():
        found, program = cancellable(lambda: scan_core(name))
        return Scan(found.pid, program, heap=found)
    pid = int(name)
    check_process(pid)
    return _process(pid, pause or 0.0, judge)


def _process(pid: int, pause: float, judge: Analyser) -> Scan:
    from leakscope.recording import live
    from leakscope.recording.own import own_ranges
    from leakscope.scan import cancellable, scan_process, scan_untraced
    from leakscope.scan.subject import process_name
    from leakscope.trace.live_files import find_live_file

    program = process_name(pid)
    traced = find_live_file(pid)
    if traced is None:
        heap = cancellable(lambda: scan_untraced(pid, max_pause_s=pause))
        return Scan(pid, program, heap=heap)
    path = traced.path
    own = own_ranges(path)
    recording = cancellable(
        lambda: scan_process(pid, lambda: live.read(path), own=own, max_pause_s=pause)
    )
    findings = Findings.of(judge.analyse(recording), f"process {pid}")
    return Scan(pid, program, recording=recording, findings=findings)
