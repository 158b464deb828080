# SPDX-License-Identifier: Apache-2.0
"""`leakscope java`: which virtual machines run here, and which of them grow."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from leakscope.cli._output import add_colour_option, ink_for
from leakscope.cli._page import add_html_option, write_page
from leakscope.cli._progress import Progress
from leakscope.cli._status import LEAKS, UNDECIDED
from leakscope.cli._writing import check_outputs, write_report
from leakscope.observe.asked import parse_distance, parse_duration

if TYPE_CHECKING:
    import argparse

HELP = """\
Say which Java virtual machines run here: their heaps after the last collection, class data,
threads, private memory, and which of these grow.

It reads the counters that a virtual machine keeps in a file, and asks nothing of it. A verdict
takes 15 minutes of watching (--for 15m); how fast something grows it says sooner.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument(
        "--for", dest="duration", default="3s", metavar="TIME", help="look for so long (3s)"
    )
    parser.add_argument("--every", default="1s", metavar="TIME", help="between looks (1s)")
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    parser.add_argument(
        "--report-file", metavar="FILE", help="write the report to FILE instead of the terminal"
    )
    add_html_option(parser)
    add_colour_option(parser)


def run(args: argparse.Namespace) -> int:
    """Look on for a while, then say what was seen."""
    from leakscope.java.machines import find_machines
    from leakscope.java.watching import MachineWatch
    from leakscope.report import java_machines

    length, every = parse_duration(args.duration), parse_distance(args.every)
    check_outputs((args.report_file, args.html))
    watches = [MachineWatch(machine) for machine in find_machines()]
    until = time.monotonic() + (length if watches else 0.0)
    with Progress() as progress, contextlib.suppress(KeyboardInterrupt):
        progress.stage("looking at virtual machines")
        while True:
            watches = [watch for watch in watches if watch.look()]
            left = until - time.monotonic()
            if left <= 0 or not watches:
                break
            time.sleep(min(every, left))
    seen = [watch.judge() for watch in watches]
    ink = ink_for(None if args.report_file else sys.stdout, args.colour)
    text = java_machines.list_json(seen) if args.json else java_machines.render_list(seen, ink)
    if args.html is not None:  # first: the terminal may be gone
        from leakscope.report.answers.virtual_machines import of_machines

        write_page(args.html, [of_machines(seen)])
    write_report(text, args, sys.stdout)
    worst = [java_machines.standing(each) for each in seen]
    return LEAKS if "leak" in worst else UNDECIDED if "growing" in worst else 0
