# SPDX-License-Identifier: Apache-2.0
"""`leakscope compare`: one program under leakscope and under another tool, side by side."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from typing import TYPE_CHECKING

from leakscope.cli._output import add_report_options, ink_for, statuses
from leakscope.cli._reading import analyser_for
from leakscope.cli._status import worst
from leakscope.cli._writing import check_outputs, write_report
from leakscope.errors import TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.findings import Findings
    from leakscope.trace.launch import Run

HELP = """\
Run a program twice, under leakscope and under another tool, and show by call stack what each
says: where they agree, where they differ, and why.

The program runs as with `leakscope run`, once after the other; its own output is there twice.
Exit status: 1 one of them found leaks (--exit-code sets another); without leaks the program's
own; where that is 0: 2 could not do it, 3 leakscope is undecided, 0 clean.
"""

_FALLBACKS = ("valgrind", "lsan")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "leakscope compare [OPTION...] -- PROGRAM [ARGUMENT...]"
    parser.add_argument(
        "--with",
        dest="with_tool",
        metavar="TOOL",
        default="valgrind",
        help="the other tool, as of `leakscope run --with` (default: valgrind)",
    )
    parser.add_argument(
        "--tool-path",
        metavar="PATH",
        help="where that tool's program or library is, when it is not where Debian has it",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but the comparison")
    add_report_options(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Run both, compare, and return the exit status."""
    from leakscope.drive import tool

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError(
            "there is no program to run", hint="leakscope compare -- PROGRAM ARGUMENTS"
        )
    tool(args.with_tool)
    check_outputs([args.report_file])
    with tempfile.TemporaryDirectory(prefix="leakscope-compare-") as folder:
        again = _rewinder()
        theirs = _other(command, args, f"{folder}/other/")  # first: what is missing is said at once
        _say(args, f"under {args.with_tool} {command[0]} {theirs.outcome}")
        again()
        ours = _own(command, f"{folder}/own/")
        _say(args, f"under leakscope {command[0]} {ours.outcome}")
        mine, other = _judged(ours, args), _judged(theirs, args)
    problems = (*ours.problems, *theirs.problems)
    for problem in problems:
        _say(args, problem)
    _write(mine, other, args)
    leaks, _ = statuses([("", mine), ("", other)], args)
    _, undecided = statuses([("", mine)], args)
    return worst(leaks=leaks, own=ours.returncode, failed=bool(problems), undecided=undecided)


def _write(mine: Findings, other: Findings, args: argparse.Namespace) -> None:
    from leakscope.report.agreement import agreement_json, render_agreement
    from leakscope.workflow.agreement import compare_findings

    found = compare_findings(mine, other, args.with_tool)
    stream = sys.stderr
    if args.json:
        text = agreement_json(found)
    else:
        ink = ink_for(None if args.report_file else stream, args.colour)
        text = render_agreement(found, ink, limit=args.limit)
    write_report(text, args, stream)


def _own(command: Sequence[str], output: str) -> Run:
    from leakscope._tracing import run as launch
    from leakscope.trace.settings import Settings

    return launch(command, Settings(), output=output)


def _other(command: Sequence[str], args: argparse.Namespace, output: str) -> Run:
    from leakscope.workflow.driving import drive

    return drive(args.with_tool, command, output=output, tool_path=args.tool_path)


def _judged(done: Run, args: argparse.Namespace) -> Findings:
    """Return the findings on the program itself, not on what it started."""
    own = [each for each in done.recordings if each.process.pid == done.pid] or done.recordings[:1]
    if not own:
        raise TargetError(f"nothing was recorded of {done.command[0]}")
    return analyser_for(args).analyse(own[0])


class _rewinder:  # noqa: N801 - used as a function
    """Puts the standard input back to where it was, for the second run, where that can be."""

    def __init__(self) -> None:
        self._at: int | None = None
        with contextlib.suppress(OSError):
            self._at = os.lseek(0, 0, os.SEEK_CUR)

    def __call__(self) -> None:
        if self._at is not None:
            with contextlib.suppress(OSError):
                os.lseek(0, self._at, os.SEEK_SET)


def _say(args: argparse.Namespace, text: str) -> None:
    from leakscope.report.text import printable

    if not args.quiet:
        print(f"leakscope: {printable(text)}", file=sys.stderr, flush=True)
