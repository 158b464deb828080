# SPDX-License-Identifier: Apache-2.0
"""Steer a recording while its program runs: stop, start, look, take a snapshot.

Everything goes through the live recording's file. The program is not stopped, signalled or
asked; the agent in it reads one word of the header.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from leakscope._paths import is_directory
from leakscope.recording import live, packed
from leakscope.trace._harvest import program_name
from leakscope.trace.live_files import PAUSED, LiveFile, find_live_file, not_traced
from leakscope.trace.output import plan_output

if TYPE_CHECKING:
    import os
    from pathlib import Path

__all__ = ["AgentStatus", "dump", "look", "mark", "start", "stop"]


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What the agent in a process is doing."""

    pid: int
    path: Path  # of the live recording
    paused: bool
    sample: int | None  # mean bytes between samples; None: every allocation
    dump_requests: int  # dump signals received so far
    bytes_used: int  # memory or disk that the live recording takes


def look(pid: int) -> AgentStatus:
    """Return what the agent in `pid` does. Raises `TargetError` when it records nothing."""
    file = _live_file(pid)
    return AgentStatus(
        pid=pid,
        path=file.path,
        paused=bool(file.field("control") & PAUSED),
        sample=file.field("sample_bytes") or None,
        dump_requests=file.field("dump_requests"),
        bytes_used=file.path.stat().st_blocks * 512,
    )


def stop(pid: int) -> AgentStatus:
    """Stop recording new allocations in `pid`; frees of recorded ones are still seen."""
    _live_file(pid).set_paused(True)
    return look(pid)


def start(pid: int) -> AgentStatus:
    """Start recording in `pid`, or go on with it."""
    _live_file(pid).set_paused(False)
    return look(pid)


def mark(pid: int, name: str) -> None:
    """Give this moment of the recording of `pid` a name, for `leakscope report --since`.

    Raises `TargetError`, `RecordingError`, or `UsageError` for the name.
    """
    _live_file(pid).add_mark(name)


def dump(pid: int, output: str | os.PathLike[str] | None = None) -> Path:
    """Pack what is recorded of `pid` up to now and return the file.

    `output` is as in `leakscope.trace.launch.run`. Works at any moment, without the help of
    the program. Raises `TargetError` or `RecordingError`.
    """
    file = _live_file(pid)
    planned = plan_output(output)
    recording = live.read(file.path)
    process = replace(recording.process, ended="running")
    name = program_name(process)
    named = output is not None and not is_directory(output)
    path = planned.path(name, pid) if named else planned.snapshot(name, pid)
    try:
        packed.write(replace(recording, process=process), path)
    except BaseException:
        planned.release(path)
        raise
    return path


def _live_file(pid: int) -> LiveFile:
    file = find_live_file(pid)
    if file is not None and file.started():
        return file
    raise not_traced(pid)
