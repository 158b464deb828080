# SPDX-License-Identifier: Apache-2.0
"""The command line: a table of commands, each in a file of its own that is loaded when asked for.

A command module has `HELP` (one paragraph), `configure(parser)` and `run(args) -> int`.
Exit status: 0 clean, 1 leaks found, 2 could not do it, 3 undecided, 130 interrupted. Errors of
`leakscope.errors` become one sentence and a hint on standard error; set LEAKSCOPE_DEBUG=1
to see the traceback as well.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from leakscope._digits import is_number
from leakscope.cli._parser import Parser
from leakscope.cli._streams import complain, open_standard_streams, require_output, silence
from leakscope.cli._verbs import Command, load_command
from leakscope.errors import LeakscopeError, UsageError
from leakscope.proc.dispositions import settle

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "Command", "main"]

_BROKEN_PIPE = 141  # what a shell shows for a program that SIGPIPE ended
_INTERRUPTED = 130
# Commands that wait for a program, and for signals meanwhile.
_WAITING = {"attach", "compare", "find", "java", "android", "run", "scan", "top", "watch"}
_FAILED = 2
_REPORTING = {
    "attach",
    "diff",
    "find",
    "java",
    "kernel",
    "report",
    "scan",
    "watch",
}  # all they do is to tell …
_FILES = ("report_file", "html", "csv", "record")  # … on the output, or in one of these


COMMANDS = (
    Command("run", "trace a program from its start and report what it leaks", "leakscope.cli.run"),
    Command(
        "compare", "say what another tool sees in a program, beside us", "leakscope.cli.compare"
    ),
    Command(
        "attach",
        "record a program that runs already, and report what it leaks",
        "leakscope.cli.attach",
    ),
    Command("detach", "take the agent out of running processes", "leakscope.cli.detach"),
    Command("top", "show what a traced program holds, live", "leakscope.cli.top"),
    Command("report", "show the report on a recording again", "leakscope.cli.report"),
    Command(
        "scan", "say which blocks of a running process nothing points to", "leakscope.cli.scan"
    ),
    Command("find", "say whether a process leaks, what, and who holds it", "leakscope.cli.find"),
    Command("diff", "say what is new, grown or gone between two runs", "leakscope.cli.diff"),
    Command("export", "write what was found for other programs", "leakscope.cli.export"),
    Command("baseline", "keep what is held now, for a gate in CI", "leakscope.cli.baseline"),
    Command("suppress", "write a suppression for a finding", "leakscope.cli.suppress"),
    Command("watch", "say which processes and kernel caches leak", "leakscope.cli.watch"),
    Command("android", "look at the memory of apps on a device, by adb", "leakscope.cli.android"),
    Command("java", "say which Java virtual machines leak, and what", "leakscope.cli.java"),
    Command(
        "kernel", "say what the kernel itself holds, and what leaks in it", "leakscope.cli.kernel"
    ),
    Command(
        "control", "start, stop or dump the recording of a running program", "leakscope.cli.control"
    ),
    Command(
        "header",
        "print leakscope.h, for programs that nothing can be preloaded into",
        "leakscope.cli.header",
    ),
    Command(
        "doctor",
        "say what works on this machine, and how to enable the rest",
        "leakscope.cli.doctor",
    ),
)

_EXAMPLES = """\
examples:
  leakscope                             where is the memory of this machine?
  leakscope find 1234                   does this process leak, and what?
  leakscope watch nginx --for 1h        how fast does it grow, is it a leak?
  leakscope attach 1234                 which line leaks, without a restart?
  leakscope scan 1234                   which of its blocks are lost?
  leakscope run -- ./app args           trace it, report when it ends
  leakscope report app.1234.leakscope   the same report again, anywhere
  leakscope doctor ./app                will it work here?

`leakscope COMMAND --help` tells more. Exit status: 0 clean, 1 leaks found,
2 could not do it, 3 undecided; `run` without leaks: the program's own.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status. `argv` excludes the program's name."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    settle()
    open_standard_streams()
    try:
        return _run(arguments)
    except LeakscopeError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout)
        return _BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - a bug must not end in status 1, "leaks found"
        return _fail(
            LeakscopeError(
                f"a bug in leakscope stopped it: {type(error).__name__}: {error}",
                hint="Please report it with what LEAKSCOPE_DEBUG=1 adds to this message.",
            )
        )


def _fail(error: LeakscopeError) -> int:
    complain(error)
    if os.environ.get("LEAKSCOPE_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    return _FAILED


def _run(arguments: list[str]) -> int:
    try:
        status = _dispatch(arguments)
    except SystemExit as leaving:  # argparse: --help or a wrong option
        status = leaving.code if isinstance(leaving.code, int) else 0
    sys.stdout.flush()  # here, so that a closed pipe is ours to handle
    return status


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        return _triage(arguments)
    name, *rest = arguments
    if name == "help":
        return _dispatch([*rest[:1], "--help"])
    command = next((c for c in COMMANDS if c.name == name), None)
    if command is None:
        raise _unknown(name)
    if name == "kernel":  # its verbs are loaded while the options are read
        _numpy_first()
    module = load_command(command)
    parser = Parser(f"leakscope {name}", description=module.HELP)
    module.configure(parser)
    args = parser.parse_args(rest)
    if name in _REPORTING and not any(getattr(args, each, None) for each in _FILES):
        require_output()
    if name in _WAITING:
        _numpy_first()
    return module.run(args)


def _numpy_first() -> None:
    """Import numpy before anything else does, so that its threads take no signal."""
    from leakscope import _numpy  # noqa: F401


def _triage(arguments: list[str]) -> int:
    from leakscope.cli import triage

    width = max(len(command.name) for command in COMMANDS)
    table = "\n".join(f"  {c.name:<{width}}  {c.line}" for c in COMMANDS)
    parser = Parser(
        "leakscope",
        usage="leakscope [COMMAND] [OPTION...]",
        description=f"Find the line of code that makes memory grow.\n\ncommands:\n{table}",
        epilog=_EXAMPLES,
    )
    triage.configure(parser)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    args = parser.parse_args(arguments)
    if args.version:
        from leakscope import __version__

        print(f"leakscope {__version__}")
        return 0
    require_output()
    return triage.run(args)


def _unknown(name: str) -> UsageError:
    from difflib import get_close_matches

    from leakscope.report.text import printable

    near = get_close_matches(name, [command.name for command in COMMANDS], n=1)
    if near:
        hint = f"Did you mean `leakscope {near[0]}`?"
    elif is_number(name):
        hint = (
            f"Whether process {printable(name[:80])} leaks: leakscope find {printable(name[:80])}"
        )
    elif os.access(name, os.F_OK):
        hint = f"To trace a program: leakscope run -- {printable(name)}"
    else:
        hint = "`leakscope --help` lists the commands."
    return UsageError(f"there is no command '{printable(name[:80])}'", hint=hint)
