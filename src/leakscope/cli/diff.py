# SPDX-License-Identifier: Apache-2.0
"""`leakscope diff`: what is new, grown, shrunk and gone between two builds, runs or tools."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from leakscope._paths import current
from leakscope.cli._gate import percent_value
from leakscope.cli._output import add_colour_option, ink_for
from leakscope.cli._page import add_html_option, write_page
from leakscope.cli._reading import add_reading_options
from leakscope.cli._sides import input_files, read_judged
from leakscope.cli._status import LEAKS, UNDECIDED, worst
from leakscope.cli._values import exit_code_value, whole_number, words_value
from leakscope.cli._writing import check_outputs, write_report
from leakscope.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from leakscope.errors import LeakscopeError
    from leakscope.judge.diff import Looked
    from leakscope.model.changes import Comparison

HELP = """\
Compare what two builds, two runs or two tools say: which call stacks are new, grown, shrunk
or gone, in bytes and blocks.

Each side is anything that `leakscope report` opens: a recording, a directory of them, a traced
process, a file of another tool; or a report written with --json, or a baseline. Stacks are the
same by their functions, so other line numbers, another optimisation or another path are no
change.
Exit status: 0 nothing new or grown, 1 something is (--fail-on chooses what counts), 2 a side
cannot be read, 3 undecided: a side says nothing.
"""

_FAIL_ON = ("new", "grown", "shrunk", "gone", "lost", "leaks")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = (
        "leakscope diff [OPTION...] BEFORE AFTER\n"
        "       leakscope diff [OPTION...] --before FILE... --after FILE..."
    )
    parser.add_argument("sides", nargs="*", metavar="BEFORE AFTER")
    parser.add_argument(
        "--before", action="append", default=[], metavar="FILE", help="one of the older; repeatable"
    )
    parser.add_argument(
        "--after", action="append", default=[], metavar="FILE", help="one of the newer; repeatable"
    )
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--fail-on",
        type=_changes,
        default=frozenset({"new", "grown"}),
        metavar="WHAT",
        help="what gives exit status 1, with commas between: new, grown (the default: both), shrunk,"
        " gone; lost: what is newly lost or lost more; leaks: likewise what is lost or leaking",
    )
    group.add_argument(
        "--tolerance",
        type=percent_value,
        metavar="PERCENT",
        help="growth of so much is no change (default: 0 of lost blocks, 10 of what is held)",
    )
    group.add_argument(
        "--exit-code",
        type=exit_code_value,
        default=LEAKS,
        metavar="N",
        help="exit status when something changed that counts (default 1)",
    )
    group.add_argument(
        "--undecided-exit-code",
        type=exit_code_value,
        default=UNDECIDED,
        metavar="N",
        help="exit status when a side says nothing (default 3)",
    )
    report = parser.add_argument_group("report")
    report.add_argument("--json", action="store_true", help="write JSON instead of text")
    report.add_argument(
        "-o",
        "--report-file",
        metavar="FILE",
        help="write the report to FILE instead of the terminal",
    )
    add_html_option(report)
    report.add_argument(
        "--limit",
        type=whole_number,
        default=10,
        metavar="N",
        help="show at most N changes of each kind (default 10)",
    )
    report.add_argument("-v", "--verbose", action="store_true", help="show whole stacks")
    add_colour_option(report)
    add_reading_options(parser.add_argument_group("reading"))


def run(args: argparse.Namespace) -> int:
    """Compare, report, and return the exit status."""
    from leakscope.judge.diff import Tolerance, compare

    before, after = _sides(args)
    check_outputs([args.report_file, args.html], input_files([*before, *after]))
    failed: list[LeakscopeError] = []
    sides = [_looked(names, args, failed) for names in (before, after)]
    share = args.tolerance
    comparison = compare(
        sides[0], sides[1], Tolerance() if share is None else Tolerance(share, share)
    )
    status = worst(
        leaks=int(args.exit_code) if _fails(comparison, args.fail_on) else 0,
        failed=bool(failed),
        undecided=int(args.undecided_exit_code) if comparison.undecided else 0,
    )
    from leakscope.report.diff import render_diff, to_json

    if args.html is not None:  # first: the terminal may be gone
        from leakscope.report.answers.comparisons import of_comparison
        from leakscope.symbols import source_context

        answers = of_comparison(comparison, source_context=source_context, base=current())
        write_page(args.html, answers, (0, 1))
    if args.json:
        text = to_json(comparison, status)
    else:
        stream = None if args.report_file else sys.stdout
        ink = ink_for(stream, args.colour, base=current())
        text = render_diff(comparison, ink, limit=args.limit, verbose=args.verbose)
    write_report(text, args, sys.stdout)
    return status


def _sides(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    if args.before or args.after:
        if args.sides or not (args.before and args.after):
            raise UsageError(
                "--before and --after go together, without other names",
                hint="leakscope diff --before OLD... --after NEW...",
            )
        return args.before, args.after
    if len(args.sides) != 2:
        raise UsageError(
            f"two sides are compared, and {len(args.sides) or 'none'} of them named",
            hint="leakscope diff BEFORE AFTER, each a file or a directory; several on a side:"
            " --before FILE, --after FILE",
        )
    return [args.sides[0]], [args.sides[1]]


def _looked(names: Sequence[str], args: argparse.Namespace, failed: list[LeakscopeError]) -> Looked:
    from leakscope.judge.diff import looked_at
    from leakscope.workflow.baselines import is_baseline, read_baseline

    if any(is_baseline(name) for name in names):
        if len(names) > 1:
            raise UsageError(f"a baseline is a side of its own: {', '.join(names)}")
        return read_baseline(names[0])
    return looked_at([(one.label, one.findings) for one in read_judged(names, args, failed)])


def _fails(comparison: Comparison, what: frozenset[str]) -> bool:
    for row in comparison.changes:
        if row.change.value in what:
            return True
        if row.change.value in {"new", "grown"} and (
            ("lost" in what and row.measure == "lost")
            or ("leaks" in what and (row.measure == "lost" or row.verdict_after == "leaking"))
        ):
            return True
    return False


def _changes(text: str) -> frozenset[str]:
    return words_value(text, _FAIL_ON)
