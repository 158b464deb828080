# SPDX-License-Identifier: Apache-2.0
"""`leakscope.run`: trace a program from its start to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

from leakscope import _tracing
from leakscope._library import values
from leakscope._library.analysing import analyser
from leakscope._library.results import Run
from leakscope.errors import UsageError
from leakscope.trace.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from leakscope._library.values import Duration, PathLike, Signal, Size, Stream

__all__ = ["run"]


def run(
    command: PathLike | Sequence[PathLike],
    *,
    cwd: PathLike | None = None,
    env: Mapping[str, str] | None = None,
    timeout: Duration | None = None,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    output: PathLike | None = None,
    scan: bool = True,
    sample: Size | None = None,
    min_size: Size | None = None,
    max_size: Size | None = None,
    depth: int | None = None,
    start_after: Duration | None = None,
    start_signal: Signal | None = None,
    stop_signal: Signal | None = None,
    dump_signal: Signal | None = None,
    children: bool = True,
    wait_children: bool = False,
    only: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    suppressions: PathLike | Sequence[PathLike] = (),
    debug_dirs: PathLike | Sequence[PathLike] = (),
    debuginfod: bool = True,
    min_bytes: Size = 0,
    progress: Callable[[str], None] | None = None,
) -> Run:
    """Run a program to its end and return its recordings, one for each traced process.

    `command` is a program, or a list of a program and its arguments; no shell reads it. It starts
    in the directory `cwd`, from where its name is looked up too, with the variables `env`, and with
    our standard streams unless others are given: descriptors, open files, `subprocess.DEVNULL`, and
    for `stderr` `subprocess.STDOUT`.

    After `timeout` the program and all that it started are sent SIGTERM, and SIGKILL five seconds
    later if that does not do (a process that is being searched for lost blocks has a minute). The
    result then holds what was recorded until then, `timed_out` is true and `notes` says so; nothing
    is raised. For that the program leads a process group of its own, so it cannot read from the
    terminal.

    Recordings are written to `output`, a directory or a file name in which %n and %p stand for
    program and pid; None is the current directory. `scan` tells lost blocks from reachable ones when
    a process ends. `sample` is the mean number of bytes between samples; None records every
    allocation. `min_size` and `max_size` leave out smaller and larger allocations, `depth` bounds
    the frames kept of a stack. Recording begins `start_after` the start, or on `start_signal`, ends
    on `stop_signal`; on `dump_signal` a snapshot is written, whose path `progress` is told.
    `children` False records the program alone; `wait_children` waits for daemons and background
    processes too; `only` and `exclude` choose programs by name. `suppressions`, `debug_dirs`, `debuginfod` and `min_bytes` are as in `analyse`,
    for the findings of the result.

    Called in the main thread, it passes the signals that this process receives on to the program,
    Ctrl-C too, until it has ended; handlers stay as they are. Any number of threads may run programs
    at the same time.

    Raises `UsageError`, `TargetError` or `RecordingError` before anything was started when it cannot
    work, and `TargetError` afterwards when nothing could be recorded.
    """
    where = None if cwd is None else values.path("cwd", cwd)
    words = values.command_line(command, where)
    if not words or not words[0]:
        raise UsageError("there is no program to run", hint='Give one: run(["./app", "--flag"]).')
    seconds = values.duration("timeout", timeout)
    if seconds is not None and seconds <= 0:
        raise UsageError("a timeout of 0 seconds lets no program start", hint="Give timeout=60.")
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        raise UsageError(
            "this process ignores SIGCHLD, so the kernel tells nobody how a program ended",
            hint="Call signal.signal(signal.SIGCHLD, signal.SIG_DFL) before.",
        )
    if stderr == subprocess.STDOUT:
        stderr = 1 if stdout is None else stdout
    judge = analyser(suppressions, debug_dirs, debuginfod, min_bytes)
    settings = Settings(
        sample=values.size("sample", sample),
        min_size=values.size("min_size", min_size),
        max_size=values.size("max_size", max_size),
        depth=values.whole("depth", depth),
        start_after=values.duration("start_after", start_after),
        start_signal=values.signal_number("start_signal", start_signal),
        stop_signal=values.signal_number("stop_signal", stop_signal),
        dump_signal=values.signal_number("dump_signal", dump_signal),
        children=children,
        only=tuple(values.paths("only", only)),
        exclude=tuple(values.paths("exclude", exclude)),
    )
    with contextlib.ExitStack() as opened:
        streams = []
        for name, given in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            fd = values.stream(name, given)
            if fd is not None:
                opened.callback(os.close, fd)
            streams.append(fd)
        done = _tracing.run(
            words,
            settings,
            cwd=where,
            env=values.environment(env),
            timeout=seconds,
            streams=streams,
            output=None if output is None else values.path("output", output),
            scan=scan,
            wait_children=wait_children,
            progress=progress,
        )
    return Run.of(done, judge)
