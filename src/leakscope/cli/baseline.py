# SPDX-License-Identifier: Apache-2.0
"""`leakscope baseline`: keep what is held now, so that only what is new or grown fails later."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from leakscope.cli._reading import add_reading_options
from leakscope.cli._sides import input_files, read_judged
from leakscope.cli._status import CLEAN, FAILED, UNDECIDED
from leakscope.cli._streams import require_output
from leakscope.cli._writing import check_outputs, write_report
from leakscope.report.text import printable
from leakscope.words import plural

if TYPE_CHECKING:
    import argparse

    from leakscope.errors import LeakscopeError

HELP = """\
Write what is held now, by call stack, so that later only what is new or has grown counts:

  leakscope baseline tests.leakscope/ -o leaks.json
  leakscope run --baseline leaks.json -- make test

Stacks are known by their functions, so the file outlives a rebuild; it has a line for each stack
and belongs into version control. Of several recordings, of one run or of repeated ones, it is the
most that one of them holds at a stack. What is suppressed is no part of it.
Exit status: 0 written, 2 it could not be, 3 a recording says nothing.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("recordings", nargs="+", metavar="FILE|DIRECTORY|PID|NAME")
    parser.add_argument(
        "-o",
        "--report-file",
        "--output",
        metavar="FILE",
        help="write FILE (default: the standard output)",
    )
    add_reading_options(parser.add_argument_group("reading"))


def run(args: argparse.Namespace) -> int:
    """Read, judge, and write."""
    from leakscope.judge.diff import highest
    from leakscope.report.baseline import to_json

    if args.report_file is None:
        require_output()
    check_outputs([args.report_file], input_files(args.recordings))
    failed: list[LeakscopeError] = []
    judged = read_judged(args.recordings, args, failed)
    looked = highest([(one.label, one.findings) for one in judged])
    write_report(to_json(looked), args, sys.stdout)
    if args.report_file is not None:
        stacks = sum(not stand.quiet for stand in looked.stands.values())
        name = printable(args.report_file)
        print(f"leakscope: {plural(stacks, 'stack')} in {name}", file=sys.stderr)
    if failed:
        return FAILED
    return UNDECIDED if looked.side.blind is not None else CLEAN
