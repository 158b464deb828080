# SPDX-License-Identifier: Apache-2.0
"""`leakscope android heap`: a native heap dump of an app or a program, reported; all is undone."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from leakscope._digits import is_number
from leakscope.cli._android_doctor import adb_of, add_device_options
from leakscope.cli._output import add_report_options, judge_recordings, statuses
from leakscope.cli._status import worst
from leakscope.cli._writing import check_outputs
from leakscope.errors import UsageError
from leakscope.observe.asked import parse_duration
from leakscope.report.text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from leakscope.android.heap import Request

HELP = """\
Take a native heap dump on a device and report it: malloc_debug is switched on in the way that is
asked for, what has to be is started again, the dump is taken and fetched, and what was set on the
device is put back, also when something fails. --dry-run shows every call of adb and makes none.

For growth take two dumps, some time apart: leakscope report FIRST SECOND.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    # Here --all is a way to switch it on, and not "show all".
    parser.conflict_handler = "resolve"
    add_report_options(parser)
    parser.set_defaults(all=False)
    way = parser.add_argument_group("how malloc_debug is switched on, one of")
    way.add_argument(
        "--app",
        metavar="PACKAGE|PID",
        help="for one app, which is started again; a PID runs with it",
    )
    way.add_argument("--program", metavar="NAME", help="for one program of the system; takes root")
    way.add_argument(
        "--zygote", metavar="PACKAGE", help="for all apps, of which one is dumped; root"
    )
    way.add_argument("--all", dest="everything", metavar="NAME", help="for all processes; root")
    way.add_argument("--shell", metavar="COMMAND", help="for one command, dumped at its end")
    parser.add_argument(
        "--options", default="backtrace", metavar="TEXT", help="of malloc_debug (backtrace)"
    )
    parser.add_argument(
        "--wait", default="10s", metavar="TIME", help="between start and dump (10s)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the new file (native_heap.NAME.txt)"
    )
    add_device_options(parser)


def run(args: argparse.Namespace) -> int:
    """Take the dump, then report it."""
    from leakscope.android.heap import take_heap
    from leakscope.formats import read_foreign

    request = _request(args)
    check_outputs((args.report_file,))
    adb = adb_of(args)
    with _ends_orderly():
        path = take_heap(adb, request, told=lambda line: _say(f"leakscope: {line}"))
    if args.dry_run:
        print(f"leakscope report {path}")
        return 0
    _say(f"leakscope: the dump is in {path}")
    found = [(str(path), recording) for recording in read_foreign(path) or ()]
    leaks, undecided = statuses(judge_recordings(found, args, sys.stdout), args)
    return worst(leaks=leaks, undecided=undecided)


@contextlib.contextmanager
def _ends_orderly() -> Iterator[None]:
    """Whoever ends us, what was set on the device is put back."""

    def leave(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {each: signal.signal(each, leave) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _request(args: argparse.Namespace) -> Request:
    from leakscope.android.heap import Request, SwitchWay

    asked = {
        SwitchWay.APP: args.app,
        SwitchWay.PROGRAM: args.program,
        SwitchWay.ZYGOTE: args.zygote,
        SwitchWay.ALL: args.everything,
        SwitchWay.SHELL: args.shell,
    }
    named = [(way, name) for way, name in asked.items() if name is not None]
    if len(named) != 1 or not named[0][1]:
        raise UsageError(
            "name one of --app, --program, --zygote, --all and --shell",
            hint="leakscope android heap --app com.example.app",
        )
    way, name = named[0]
    if way is SwitchWay.APP and is_number(name):
        way = SwitchWay.PROCESS
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in name.split(" ")[0])[-60:]
    output = Path(args.output or f"native_heap.{plain}.txt")
    return Request(way, name, args.options, parse_duration(args.wait), output)


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
