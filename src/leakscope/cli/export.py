# SPDX-License-Identifier: Apache-2.0
"""`leakscope export`: what was found, as a file that other programs open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope._paths import absolute
from leakscope.cli._reading import add_reading_options
from leakscope.cli._sides import input_files, read_judged
from leakscope.cli._status import CLEAN, FAILED
from leakscope.cli._streams import require_output
from leakscope.cli._writing import check_outputs
from leakscope.report.export import EXPORTS, Exported

if TYPE_CHECKING:
    import argparse

    from leakscope.errors import LeakscopeError

_WIDTH = max(len(name) for name in EXPORTS)
_TABLE = "\n".join(f"  {name:{_WIDTH}}  {export.line}" for name, export in EXPORTS.items())
HELP = f"""\
Write what was found as a file that other programs open.

Takes whatever `leakscope report` opens, and reports written with --json. FORMAT is one of

{_TABLE}

Profiles hold all that is held; sarif, junit, github and gitlab what leaks. Several recordings
become one file. Exit status: 0 written, 2 it could not be; whether something leaks, tells
`leakscope report`.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("recordings", nargs="+", metavar="FILE|DIRECTORY|PID|NAME")
    parser.add_argument(
        "--to", required=True, choices=tuple(EXPORTS), metavar="FORMAT", help="see above"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write FILE (default: the standard output)"
    )
    parser.add_argument(
        "--leaks", action="store_true", help="write only what leaks, also in profiles"
    )
    parser.add_argument(
        "--source-root",
        metavar="DIR",
        help="the paths of source files are relative to DIR where a format wants that (default: the"
        " current directory)",
    )
    add_reading_options(parser.add_argument_group("reading"))


def run(args: argparse.Namespace) -> int:
    """Read, judge, and write."""
    from leakscope.cli._exporting import write_export

    to_file = args.output not in {None, "-"}
    if to_file:
        check_outputs([args.output], input_files(args.recordings))
    else:
        require_output()
    failed: list[LeakscopeError] = []
    every = []
    for one in read_judged(args.recordings, args, failed):
        timeline = None if one.recording is None else one.recording.timeline
        findings = one.findings
        if args.leaks:
            findings, timeline = findings.only_leaks(), None
        every.append(Exported(one.label, findings, timeline))
    root = None if args.source_root is None else str(absolute(args.source_root))
    write_export(args.to, every, args.output, root)
    return FAILED if failed else CLEAN
