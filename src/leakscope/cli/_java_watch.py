# SPDX-License-Identifier: Apache-2.0
"""`leakscope java watch`: whose growth it is, of one virtual machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from leakscope._digits import is_number
from leakscope.cli._output import add_colour_option, ink_for
from leakscope.cli._page import add_html_option, write_page
from leakscope.cli._status import LEAKS, UNDECIDED
from leakscope.cli._writing import check_outputs, write_report
from leakscope.errors import UsageError
from leakscope.observe.asked import parse_distance, parse_duration

if TYPE_CHECKING:
    import argparse

    from leakscope.java.machines import Machine

HELP = """\
Watch one Java virtual machine and say whose growth it is: the Java heap's, by class; that of
class data, threads, direct buffers, the virtual machine itself; or native code's.

A few times it asks which objects live, and each time the virtual machine collects its garbage
for that and stands still meanwhile; --histograms 0 leaves that out.
"""

_MOST_HISTOGRAMS = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("pid", metavar="PID|NAME", help="the virtual machine, or its program")
    parser.add_argument(
        "--for", dest="duration", default="60s", metavar="TIME", help="watch for so long (60s)"
    )
    parser.add_argument("--every", default="1s", metavar="TIME", help="between looks (1s)")
    parser.add_argument(
        "--histograms",
        default="5",
        metavar="N",
        help="ask N times which objects live (5); 0: the virtual machine is never stopped",
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    parser.add_argument(
        "--report-file", metavar="FILE", help="write the report to FILE instead of the terminal"
    )
    add_html_option(parser)
    add_colour_option(parser)


def run(args: argparse.Namespace) -> int:
    """Watch, then say whose growth it is."""
    from leakscope.java.watching import watch_machine
    from leakscope.report import java_machines

    length, every = parse_duration(args.duration), parse_distance(args.every)
    if not is_number(args.histograms) or int(args.histograms[:5]) > _MOST_HISTOGRAMS:
        raise UsageError(f"--histograms {args.histograms[:20]} is not a number from 0 to 100")
    check_outputs((args.report_file, args.html))
    machine = machine_of(args.pid)
    watched = watch_machine(
        machine, length, every, int(args.histograms), told=lambda line: _say(f"leakscope: {line}")
    )
    ink = ink_for(None if args.report_file else sys.stdout, args.colour)
    text = (
        java_machines.watch_json(watched) if args.json else java_machines.render_watch(watched, ink)
    )
    if args.html is not None:  # first: the terminal may be gone
        from leakscope.report.answers.virtual_machines import of_machine

        write_page(args.html, [of_machine(watched)])
    write_report(text, args, sys.stdout)
    if watched.verdict is None:
        return 0
    return LEAKS if watched.verdict.is_leak else UNDECIDED


def machine_of(name: str) -> Machine:
    """Return the virtual machine that is named by its number or its program.

    Raises `TargetError` for what is none, and `UsageError` for several.
    """
    from leakscope.errors import TargetError
    from leakscope.java.machines import find_machine, find_machines

    if is_number(name):
        if len(name) > 10:
            raise TargetError(f"there is no process {name[:80]}")
        return find_machine(int(name))
    found = [machine for machine in find_machines() if name and _answers(machine.name, name)]
    if not found:
        raise TargetError(
            f"no Java virtual machine here runs {name[:80]!r}",
            hint="`leakscope java` lists those that run here.",
        )
    if len(found) > 1:
        pids = ", ".join(str(machine.pid) for machine in found[:8])
        raise UsageError(f"{name} runs in {len(found)} virtual machines: {pids}", hint="Name one.")
    return found[0]


def _answers(command: str, name: str) -> bool:
    """Whether a program is called so: its main class with or without package, or its archive."""
    first = command.split(" ", maxsplit=1)[0]
    return name in (first, first.rsplit(".", 1)[-1], first.rsplit("/", 1)[-1])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
