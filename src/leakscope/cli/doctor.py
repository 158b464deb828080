# SPDX-License-Identifier: Apache-2.0
"""`leakscope doctor`: what works here, for a program or a process, and how to enable the rest."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from leakscope.trace.doctor import Checkup

HELP = """\
Say what will work here: on this machine, for a program, or for a running process.

The verdict comes first, then what works. A line that begins with ! is in the way; - is
missing and not needed by what works. Nothing is changed.
Exit status: 0 it can be traced, or the process scanned, 2 it cannot.
"""

SCHEMA = "leakscope-doctor/1"
_MARKS = {"works": "+", "limited": "~", "missing": "-", "broken": "!", "note": " "}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("subject", nargs="?", metavar="PID|PROGRAM")
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Examine, tell, and return 0 when leaks can be looked for."""
    from leakscope.trace.doctor import examine

    checkup = examine(args.subject)
    print(_to_json(checkup) if args.json else _to_text(checkup))
    return 0 if checkup.able else 2


def _to_json(checkup: Checkup) -> str:
    return json.dumps({"schema": SCHEMA, **dataclasses.asdict(checkup)}, indent=2)


def _to_text(checkup: Checkup) -> str:
    from leakscope.report.text import printable

    width = max(len(check.name) for check in checkup.checks)
    lines = [printable(checkup.verdict)]
    for check in checkup.checks:
        lines.append(f"{_MARKS[check.state]} {check.name:<{width}}  {printable(check.text)}")
        if check.fix:
            lines.append(f"  {'':<{width}}  → {printable(check.fix)}")
    return "\n".join(lines)
