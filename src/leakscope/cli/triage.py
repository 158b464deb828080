# SPDX-License-Identifier: Apache-2.0
"""`leakscope` without a command: where the memory of this machine is, in seconds."""

from __future__ import annotations

import argparse
import math
import shutil
import sys

from leakscope.cli._output import add_colour_option, ink_for
from leakscope.cli._page import add_html_option, write_page
from leakscope.cli._writing import check_outputs, write_text

HELP = """\
Say where the memory of this machine is, what is odd about it and what to run next.

It looks twice, so what grows is seen. Exit status: 0, or 2 when /proc cannot be read. Odd
things do not change it: two looks cannot tell a leak.
"""

_APART_S, _LEAST_APART_S, _MOST_APART_S = 1.5, 0.2, 600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    parser.add_argument(
        "--apart",
        type=_seconds,
        default=_APART_S,
        metavar="SECONDS",
        help=f"time between the two looks (default {_APART_S})",
    )
    add_html_option(parser)
    add_colour_option(parser)


def run(args: argparse.Namespace) -> int:
    """Look twice and print the screen."""
    from leakscope.report.triage import render_triage, to_json
    from leakscope.workflow.triage import look_twice

    check_outputs([args.html])
    triage = look_twice(args.apart)
    if args.html is not None:
        from leakscope.report.answers.machines import of_triage

        write_page(args.html, [of_triage(triage)])
    height = shutil.get_terminal_size().lines if sys.stdout.isatty() else None
    ink = ink_for(sys.stdout, args.colour)
    text = to_json(triage) if args.json else render_triage(triage, ink, height=height)
    write_text(sys.stdout, text)
    return 0


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = math.nan
    if not _LEAST_APART_S <= value <= _MOST_APART_S:
        raise argparse.ArgumentTypeError(
            f"'{text[:40]}' is no time from {_LEAST_APART_S} to {_MOST_APART_S:.0f} seconds"
        )
    return value
