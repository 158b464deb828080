# SPDX-License-Identifier: Apache-2.0
"""`leakscope detach`: take out of running processes what an attach has put there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.errors import TargetError, UsageError

if TYPE_CHECKING:
    import argparse

    from leakscope.trace.attach.detach import Removed

_PAUSE_S = 0.5

HELP = """\
Take leakscope's agent out of a running process, whoever put it there and whatever became of them.

The functions get their own bytes back, and what was mapped is unmapped, in the processes that were forked
meanwhile as well, and in the descendants that the same leakscope follows. A `leakscope attach` that still runs notices, and reports.
Exit status: 0 nothing of it is left, 2 it could not be done, 3 memory of the agent is left, unused.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("target", metavar="PID|NAME", nargs="?", help="the process")
    parser.add_argument("--all", action="store_true", help="all processes that may be looked at")


def run(args: argparse.Namespace) -> int:
    """Detach, say what was done, and return the exit status."""
    from leakscope.trace.attach.detach import followed_by, remove, remove_from_children
    from leakscope.trace.attach.island import attached_processes, find_attached
    from leakscope.workflow.opening import pid_of

    if bool(args.target) == args.all:
        raise UsageError("name one process, or --all", hint="leakscope detach PID")
    if args.all:
        found = attached_processes()
        if not found:
            print("no process is attached to")
            return 0
    else:
        pid = pid_of(args.target)
        one = find_attached(pid)
        if one is None:
            raise TargetError(
                f"process {pid} is not attached to", hint="`leakscope detach --all` looks at all."
            )
        found = [one, *followed_by(one)]
    kept = False
    done: set[int] = set()
    for attached in found:
        if attached.pid in done:
            continue
        results = [remove(attached, max_pause_s=_PAUSE_S)]
        results += remove_from_children(attached, max_pause_s=_PAUSE_S)
        for result in results:
            done.add(result.pid)
            kept |= not result.unmapped
            _tell(result)
    return 3 if kept else 0


def _tell(result: Removed) -> None:
    if result.failed:
        print(f"process {result.pid}: not detached: {result.reason}")
        return
    text = f"process {result.pid}: detached; it stood still for {result.pause_ms:.1f} ms"
    if not result.unmapped:
        text += f"; the agent's memory stays in it, unused, because {result.reason}"
    if result.foreign:
        text += f"; {result.foreign} functions were changed by somebody else, and left alone"
    print(text)
