# SPDX-License-Identifier: Apache-2.0
"""`leakscope doctor`: what works here, for a program or a process, and how to enable the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = """\
Say what will work here: on this machine, for a program, or for a running process.

The verdict comes first, then what works. A line that begins with ! is in the way; - is
missing and not needed by what works. Nothing is changed.
Exit status: 0 it can be traced, or the process scanned, 2 it cannot.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("subject", nargs="?", metavar="PID|PROGRAM")
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Examine, tell, and return 0 when leaks can be looked for."""
    from leakscope.report.doctor import render_checkup, to_json
    from leakscope.trace.doctor import examine

    checkup = examine(args.subject)
    print(to_json(checkup) if args.json else render_checkup(checkup))
    return 0 if checkup.able else 2
