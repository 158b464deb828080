# SPDX-License-Identifier: Apache-2.0
"""The report on saved tables of memory, for `leakscope report`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from leakscope.cli._output import ink_for
from leakscope.cli._page import write_page
from leakscope.cli._progress import Progress
from leakscope.cli._status import UNDECIDED
from leakscope.cli._streams import complain
from leakscope.cli._writing import write_report
from leakscope.errors import LeakscopeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from leakscope.model.snapshots import Snapshot, Snapshots
    from leakscope.workflow.opening import Named

__all__ = ["add_snapshot_options", "report_snapshots"]


def add_snapshot_options(parser: argparse.ArgumentParser) -> None:
    """Add what `report_snapshots` reads from its `args`."""
    group = parser.add_argument_group("saved tables of memory")
    group.add_argument(
        "--every", metavar="TIME", help="how far apart looks are that tell no times: 10s, 5m, 1h"
    )


def report_snapshots(
    named: Sequence[Named], args: argparse.Namespace, failed: list[LeakscopeError], *, others: int
) -> int:
    """Report on all looks in the files named, in their order; returns the exit status.

    A file that cannot be read is complained of and added to `failed`; raised where nothing else
    can be reported.
    """
    from leakscope._told import reading_told
    from leakscope.observe.asked import parse_duration
    from leakscope.report.snapshots import render_snapshots, to_json
    from leakscope.workflow.snapshots import judge_snapshots

    every = None if args.every is None else parse_duration(args.every)
    looks: list[Snapshot] = []
    with Progress() as progress, reading_told(progress.share):
        for number, one in enumerate(named, 1):
            progress.stage(f"reading {one.label}")
            try:
                looks += one.tables()
            except LeakscopeError as error:
                failed.append(error)
                if number == len(named) and not looks and not others:
                    raise
                complain(error)
        if not looks:
            return 0
        progress.stage("judging what was seen")
        found = judge_snapshots(looks, every_s=every)
    stream = None if args.report_file else sys.stdout
    if args.json:
        text = to_json(found)
    else:
        text = render_snapshots(
            found, ink_for(stream, args.colour), limit=args.limit, show_all=args.all
        )
    if args.html is not None:  # first: the terminal may be gone
        from leakscope.report.answers.tables import of_snapshots

        write_page(args.html, [of_snapshots(found)])
    write_report(text, args, sys.stdout)
    return _status(found, args)


def _status(found: Snapshots, args: argparse.Namespace) -> int:
    """Return the status for leaks, or for what one look, or a short course, cannot tell."""
    from leakscope.model.series import TrendVerdict

    growing = any(trend.verdict is TrendVerdict.GROWING for trend in found.trends)
    if found.causes or (growing and "growing" in map(str, args.fail_on)):
        return int(args.exit_code)
    open_ones = (TrendVerdict.NOT_ENOUGH_DATA, TrendVerdict.GROWING)
    if growing or all(trend.verdict in open_ones for trend in found.trends):
        return int(getattr(args, "undecided_exit_code", UNDECIDED))
    return 0
