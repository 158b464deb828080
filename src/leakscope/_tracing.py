# SPDX-License-Identifier: Apache-2.0
"""Run a program under the agent and scan each of its processes right before it ends."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from leakscope import _numpy  # noqa: F401 - before anything that imports numpy
from leakscope.recording import live
from leakscope.recording.own import own_ranges
from leakscope.trace.farewell import Examination
from leakscope.trace.launch import Run
from leakscope.trace.launch import run as launch

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from leakscope.model.recordings import Recording
    from leakscope.trace.farewell import Farewell
    from leakscope.trace.settings import Settings

__all__ = ["run"]


def run(
    command: Sequence[str | os.PathLike[str]],
    settings: Settings,
    *,
    scan: bool = True,
    output: str | os.PathLike[str] | None = None,
    wait_children: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    streams: Sequence[int | None] = (),
    progress: Callable[[str], None] | None = None,
    keep_all: bool = True,
    drop_clean: bool = False,
) -> Run:
    """Run `command` to its end and return its recordings, one for each traced process.

    `scan` tells lost blocks from reachable ones when a process ends by exit, _exit or a fatal
    signal. `output` is a directory or a file name in which %n and %p stand for program and
    pid; `drop_clean` leaves out children that lost no block and grew nowhere, with their
    recordings; the rest is as `leakscope.trace.launch.run` says.
    """
    return launch(
        command,
        settings,
        output=output,
        wait_children=wait_children,
        env=env,
        cwd=cwd,
        timeout=timeout,
        streams=streams,
        progress=progress,
        keep_all=keep_all,
        examination=Examination(_begin, _prepare) if scan else None,
        near_limit=_near_limit if scan else None,
        is_clean=_is_clean if drop_clean else None,
    )


def _is_clean(recording: Recording) -> bool:
    from leakscope.judge.clean import holds_no_leak

    return holds_no_leak(recording)


def _near_limit(pid: int, path: Path, pause_s: float) -> Recording:
    from leakscope.scan.process import scan_process

    return scan_process(pid, lambda: live.read(path), own=own_ranges(path), max_pause_s=pause_s)


def _prepare() -> None:
    pass


@contextlib.contextmanager
def _begin(farewell: Farewell) -> Iterator[Callable[[], Recording | None]]:
    from leakscope.scan.process import scan_ending
    from leakscope.target.ending import Ending

    # First of all the other threads are stopped: alone, they would be gone in a moment.
    with Ending(farewell.pid, farewell.tid, farewell.sp, farewell.tls) as ending:

        def examine() -> Recording | None:
            recording = live.read(farewell.path)
            if not len(recording.blocks):
                return None
            return scan_ending(
                ending,
                recording,
                own=own_ranges(farewell.path),
                stack_end=farewell.stack_end,
                pointers=[farewell.signal_stack],
            )

        yield examine
