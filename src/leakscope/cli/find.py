# SPDX-License-Identifier: Apache-2.0
"""`leakscope find`: say whether a process leaks, what, how fast, and who holds it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from leakscope.cli._output import add_colour_option, ink_for
from leakscope.cli._page import add_html_option, write_page
from leakscope.cli._writing import check_outputs, write_report
from leakscope.errors import UsageError

if TYPE_CHECKING:
    import argparse

_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3600.0

HELP = """\
Say whether a running process leaks, what, how fast, and who holds it.

First /proc tells for ten seconds how fast it grows. Then its heap is walked twice, 20 seconds apart: lost
bytes that grow in between are a leak; of what can still be reached it says which sizes grow,
what they look like, and which variable, stack or register holds them. For each walk the process stands still for
a tenth of a second at most (--max-pause). On a terminal you are asked before (--yes answers); elsewhere it is
walked unless --no-stop is given.
A NAME means the process of that name that grows fastest.
Exit status: 0 nothing grows, 1 a leak, 2 could not do it, 3 growth without a proof.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("target", metavar="PID|NAME", help="the process")
    parser.add_argument(
        "--for", dest="duration", default="30s", metavar="TIME", help="look so long (30s)"
    )
    parser.add_argument(
        "--no-stop",
        action="store_true",
        help="never stop the process: only /proc is read, and no heap is walked",
    )
    attach = parser.add_mutually_exclusive_group()
    attach.add_argument(
        "--attach",
        action="store_true",
        help="record its allocations meanwhile as `leakscope attach` does, so that lines are named; its"
        " heap is walked twice more, before and after, to say what was there already and what became of it",
    )
    attach.add_argument(
        "--no-attach", action="store_true", help="put nothing into the process (the default)"
    )
    parser.add_argument("--yes", action="store_true", help="answer yes to what would be asked")
    parser.add_argument(
        "--max-pause",
        metavar="SECONDS",
        type=float,
        default=_PAUSE_S,
        help="let the process stand still for so long at most, each time (default: 0.1)",
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    parser.add_argument(
        "--report-file", metavar="FILE", help="write the report to FILE instead of the terminal"
    )
    add_html_option(parser)
    add_colour_option(parser)


def run(args: argparse.Namespace) -> int:
    """Find, report, and return the exit status."""
    from leakscope._finding import find
    from leakscope.observe.asked import parse_duration
    from leakscope.report.find import render_found, to_json
    from leakscope.workflow.opening import refuse_file

    check_outputs([args.report_file, args.html])
    refuse_file(args.target)
    if not 0 < args.max_pause <= _LONGEST_PAUSE_S:
        raise UsageError(
            f"a pause of {args.max_pause:g} s is not possible", hint="--max-pause SECONDS, 0.1 say."
        )
    asks = sys.stdin.isatty() and sys.stderr.isatty() and not args.yes
    found = find(
        args.target,
        seconds=parse_duration(args.duration),
        stop=not args.no_stop,
        attach=args.attach,
        max_pause_s=args.max_pause,
        ask=_ask if asks else None,
        say=_say if sys.stderr.isatty() else None,
    )
    if args.html is not None:
        from leakscope.report.answers.heaps import of_found

        write_page(args.html, [of_found(found)])
    stream = None if args.report_file else sys.stdout
    text = to_json(found) if args.json else render_found(found, ink_for(stream, args.colour))
    write_report(text, args, sys.stdout)
    return found.status


def _say(text: str) -> None:
    from leakscope.report.text import printable

    print(f"leakscope: {printable(text)} ...", file=sys.stderr)


def _ask(question: str) -> bool:
    from leakscope.report.text import printable

    print(f"leakscope: {printable(question)} [Y/n] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)  # after Ctrl-D the report begins a line of its own
    return bool(answer) and answer.strip().lower() in {"", "y", "yes"}
