# SPDX-License-Identifier: Apache-2.0
"""`leakscope run --live`: the program runs in a session of its own, the terminal shows the screen.

A second process of ours, forked before any thread is there, does all that `leakscope run` does; what
it says is kept and told once the screen is gone. So nothing of the program gets on the screen, and a
screen that fails harms nothing of the run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.cli.top import check_terminal, show
from leakscope.errors import LeakscopeError, UsageError
from leakscope.report.text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

__all__ = ["run_live"]

_LOOK_S = 0.05
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_MOST_FILES = 1000


def run_live(
    args: argparse.Namespace, program: str, work: Callable[[tuple[int, int, int]], int]
) -> int:
    """Show the screen while `work` runs the program with these standard streams.

    Returns what `work` returns. After q the program goes on, and we wait for it.
    """
    check_terminal("leakscope run -- PROGRAM, and elsewhere: leakscope top PID")
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    path, output = _output_file(program)
    with tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _run(said.fileno(), nowhere, lambda: work((nowhere, output, output)))
        os.close(output)
        status = _show_and_wait(child, path, args)
        said.seek(0)
        with contextlib.suppress(OSError):
            sys.stderr.flush()
            sys.stderr.buffer.write(said.read())
            sys.stderr.flush()
    _say(f"what {program} wrote: {path}")
    return status


def _run(said: int, nowhere: int, work: Callable[[], int]) -> None:
    """Be the process that runs the program; never returns."""
    status = 2
    try:
        os.setsid()
        for number in (0, 1):
            os.dup2(nowhere, number)
        os.dup2(said, 2)
        try:
            status = work()
        except LeakscopeError as error:
            from leakscope.cli._streams import complain

            complain(error)
        except KeyboardInterrupt:
            status = 130
        except BaseException as error:  # noqa: BLE001 - the other process tells of it
            _say(f"a bug in leakscope stopped it: {type(error).__name__}: {error}")
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)


def _show_and_wait(child: int, output: Path, args: argparse.Namespace) -> int:
    ended = None
    pid = None
    with _forwarding(child):
        while pid is None and ended is None:
            time.sleep(_LOOK_S)
            ended = _status(child, wait=False)
            pid = _traced(child)
        if ended is None:
            received = None
            try:
                received = show(str(pid), args)
            except LeakscopeError as error:  # it ended before the first look, say
                _say(str(error))
            if received is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, received)
            ended = _status(child, wait=False)
        if ended is None:
            _say(f"it goes on until it ends; Ctrl-C ends it. What it writes: {output}")
            with _forwarding(child):  # again: the screen has put back what it took
                ended = _status(child, wait=True)
    return 2 if ended is None else ended


@contextlib.contextmanager
def _forwarding(child: int) -> Iterator[None]:
    """Send what ends us to the session of the program, which then ends both."""

    def forward(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, number)

    before = {n: signal.getsignal(n) for n in _FORWARDED}
    ours = [n for n, handler in before.items() if handler is not signal.SIG_IGN]
    for number in ours:
        signal.signal(number, forward)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _status(child: int, *, wait: bool) -> int | None:
    done, status = os.waitpid(child, 0 if wait else os.WNOHANG)
    if not done:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _traced(child: int) -> int | None:
    """The first process below `child` that records, once there is one."""
    from leakscope.trace.live_files import find_live_file

    try:
        text = Path(f"/proc/{child}/task/{child}/children").read_text(encoding="ascii")
    except OSError:
        return None
    for pid in map(int, text.split()):
        try:
            file = find_live_file(pid)
            if file is not None and file.started():
                return pid
        except LeakscopeError:
            continue  # it has just begun, or ended
    return None


def _output_file(program: str) -> tuple[Path, int]:
    """Make a new file for what the program writes, in the current directory."""
    name = Path(program).name or "program"
    for number in range(_MOST_FILES):
        path = Path(f"{name}.{number}.output" if number else f"{name}.output")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            return path, os.open(path, flags, 0o600)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(
                f"cannot write {path}, where the program's output would go: {error.strerror}",
                hint="Start it from a directory that you may write to.",
            ) from error
    raise UsageError(f"there are {_MOST_FILES:,} files {name}.N.output here", hint="Remove some.")


def _say(text: str) -> None:
    print(f"leakscope: {printable(text)}", file=sys.stderr, flush=True)
