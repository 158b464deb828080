# SPDX-License-Identifier: Apache-2.0
"""Run a program under the agent and scan each of its processes right before it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope import _numpy  # noqa: F401 - before anything that imports numpy
from leakscope.recording import live
from leakscope.recording.own import own_ranges
from leakscope.trace.launch import Run
from leakscope.trace.launch import run as launch

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from leakscope.model.recordings import Recording
    from leakscope.trace._farewell import Farewell

__all__ = ["run"]

# A process that forked and ends at once held what its parent holds: nothing new to learn.
_SHORT_NS = 20_000_000


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    scan: bool = True,
    output: str | os.PathLike[str] | None = None,
    sample: int | None = None,
    min_size: int | None = None,
    max_size: int | None = None,
    depth: int | None = None,
    start_after: float | None = None,
    start_signal: int | None = None,
    stop_signal: int | None = None,
    dump_signal: int | None = None,
    children: bool = True,
    wait_children: bool = False,
    env: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Run:
    """Run `command` to its end and return its recordings, one for each traced process.

    `scan` tells lost blocks from reachable ones when a process ends by exit, _exit or a fatal
    signal. `output` is a directory or a file name in which %n and %p stand for program and
    pid; `sample` is the mean number of bytes between samples (None: every allocation);
    `wait_children` waits for daemons and background processes too. Sizes in bytes,
    `start_after` in seconds, signals as numbers.

    Raises `UsageError`, `TargetError` or `RecordingError` before anything was started when it
    cannot work, and `TargetError` afterwards when the agent never came up.
    """
    return launch(
        command,
        output=output,
        sample=sample,
        min_size=min_size,
        max_size=max_size,
        depth=depth,
        start_after=start_after,
        start_signal=start_signal,
        stop_signal=stop_signal,
        dump_signal=dump_signal,
        children=children,
        wait_children=wait_children,
        env=env,
        progress=progress,
        examine=_examine if scan else None,
    )


def _examine(farewell: Farewell) -> Recording | None:
    from leakscope.scan import scan_process

    first = live.read(farewell.path)
    if not len(first.blocks):
        return None
    if first.process.forked_from is not None and first.duration_ns < _SHORT_NS:
        return None
    return scan_process(
        farewell.pid,
        lambda: live.read(farewell.path),
        own=own_ranges(farewell.path),
        stack_ends={farewell.tid: farewell.stack_end} if farewell.stack_end else None,
        pointers=[farewell.signal_stack],
    )
