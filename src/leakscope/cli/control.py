# SPDX-License-Identifier: Apache-2.0
"""`leakscope control`: steer the recording of a running program."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from leakscope.errors import UsageError
from leakscope.words import bytes_text

if TYPE_CHECKING:
    import argparse

HELP = """\
Steer the recording of a program that runs under `leakscope run` or with the agent preloaded.

  status   say whether it records, and where
  stop     stop recording new allocations; frees of recorded ones are still seen
  start    begin, or go on
  dump     write a snapshot that `leakscope report` can show, without stopping anything
  mark     give this moment a name: `leakscope report --since NAME` then tells of what was
           allocated after it and is still there (a load test, a request, a reload)

Exit status: 0 done, 2 could not do it.
"""

_ACTIONS = ("status", "stop", "start", "dump", "mark")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("pid", metavar="PID|NAME")
    parser.add_argument("action", choices=_ACTIONS, nargs="?", default="status")
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the mark")
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="directory or file name for a dump; %%n stands for the program, %%p for its pid"
        " (default: %%n.%%p.dumpN.leakscope in the current directory)",
    )


def run(args: argparse.Namespace) -> int:
    """Do it and say what is now the case."""
    from leakscope.trace import control
    from leakscope.workflow.opening import pid_of

    pid = pid_of(args.pid)
    if args.output is not None and args.action != "dump":
        raise UsageError("--output belongs to dump")
    if args.name is None and args.action == "mark":
        raise UsageError(
            "a mark needs a name", hint=f"leakscope control {args.pid} mark before-load"
        )
    if args.name is not None and args.action != "mark":
        raise UsageError(
            f"{args.action} takes no name", hint=f"leakscope control {args.pid} {args.action}"
        )
    if args.action == "mark":
        control.mark(pid, args.name)
        print(f"process {pid}: marked. leakscope report {pid} --since {shlex.quote(args.name)}")
        return 0
    if args.action == "dump":
        print(control.dump(pid, args.output))
        return 0
    act = {"status": control.look, "stop": control.stop, "start": control.start}[args.action]
    status = act(pid)
    how = f"one byte in {status.sample} sampled" if status.sample else "every allocation"
    print(f"process {status.pid}: {'paused' if status.paused else 'recording'}, {how}")
    print(f"live recording: {status.path} ({bytes_text(status.bytes_used)})")
    return 0
