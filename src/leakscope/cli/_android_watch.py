# SPDX-License-Identifier: Apache-2.0
"""`leakscope android watch`: which kind of an app's memory grows."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING

from leakscope.cli._android_doctor import adb_of, add_device_options
from leakscope.cli._output import add_colour_option, ink_for
from leakscope.cli._page import add_html_option, write_page
from leakscope.cli._status import LEAKS, UNDECIDED
from leakscope.cli._writing import check_outputs, write_report
from leakscope.observe.asked import parse_duration

if TYPE_CHECKING:
    import argparse

HELP = """\
Watch one app on a device (dumpsys meminfo), and say which kind of its memory grows: Java, native,
graphics, code, stacks. A verdict takes 30 minutes; how fast something grows it says sooner.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("package", metavar="PACKAGE", help="the app")
    parser.add_argument(
        "--for", dest="duration", default="60s", metavar="TIME", help="watch for so long (60s)"
    )
    parser.add_argument("--every", default="5s", metavar="TIME", help="between looks (5s)")
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    parser.add_argument(
        "--report-file", metavar="FILE", help="write the report to FILE instead of the terminal"
    )
    add_html_option(parser)
    add_device_options(parser)
    add_colour_option(parser)


def run(args: argparse.Namespace) -> int:
    """Watch, then say what grows."""
    from leakscope.android.meminfo import MeminfoWatch
    from leakscope.errors import TargetError
    from leakscope.model.series import TrendVerdict
    from leakscope.report.android import render_watch, watch_json

    length, every = parse_duration(args.duration), parse_duration(args.every)
    check_outputs((args.report_file, args.html))
    watch = MeminfoWatch(adb_of(args), args.package)
    watch.look()
    if args.dry_run:
        return 0
    gone: str | None = None
    until = time.monotonic() + length
    with contextlib.suppress(KeyboardInterrupt):
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(every, left))
            try:
                watch.look()
            except TargetError as error:
                gone = str(error)
                break
    trends = watch.judge()
    ink = ink_for(None if args.report_file else sys.stdout, args.colour)
    text = (
        json.dumps(watch_json(args.package, watch.looks, trends, gone)) + "\n"
        if args.json
        else render_watch(args.package, watch.looks, trends, gone, ink)
    )
    if args.html is not None:  # first: the terminal may be gone
        from leakscope.report.answers.devices import of_app

        write_page(args.html, [of_app(args.package, watch.looks, trends, gone)])
    write_report(text, args, sys.stdout)
    verdicts = {trend.verdict for trend in trends}
    if TrendVerdict.LEAK in verdicts:
        return LEAKS
    open_ = {TrendVerdict.GROWING, TrendVerdict.NOT_ENOUGH_DATA}
    return UNDECIDED if verdicts & open_ else 0
