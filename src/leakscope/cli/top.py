# SPDX-License-Identifier: Apache-2.0
"""`leakscope top`: the live screen of a traced process, or a recording as a still picture."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from leakscope.cli._reading import add_debug_dir_option
from leakscope.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from leakscope.model.findings import Findings
    from leakscope.model.recordings import Recording

__all__ = ["check_terminal", "show"]

HELP = """\
Show on a full screen what a traced program holds, while it runs: memory over time, the allocation
sites with course, rate and verdict so far, call stack and source of the chosen one.

The program is not stopped, except for 0.1 s at most by s and h. Verdicts are those of the report, on
what has been seen so far. It looks once a second, or less often where a look is dear.
A recording, or a program that has ended, is a still picture.

keys:
  arrows, Enter   choose a site; make what is told of it large
  s               scan now: which blocks does nothing point to?
  h               what holds the blocks of the chosen site?
  d               write a recording to the current directory
  p               pause recording, or go on
  /               show only sites with this function, file or verdict; Esc: all
  o, r            another order; look now
  q               end; the program goes on

Exit status: 0 shown, 2 could not do it.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "what", metavar="PID|NAME|REC", help="a process that leakscope records, or a recording"
    )
    add_debug_dir_option(
        parser, "look for programs, libraries and debug files here first; repeatable"
    )
    parser.add_argument(
        "--no-debuginfod",
        action="store_true",
        help="do not ask the servers of DEBUGINFOD_URLS for debug information",
    )


def run(args: argparse.Namespace) -> int:
    """Show the screen until it is ended."""
    from leakscope.workflow.top_looks import open_top

    open_top(args.what, _Judging(args))  # what is not traced is told first
    check_terminal(f"leakscope report {args.what}")
    show(args.what, args)
    return 0


def check_terminal(instead: str) -> None:
    """Raise `UsageError` where there is no terminal to show a screen on."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        raise UsageError("the screen needs a terminal, and this is none", hint=instead)


def show(what: str, args: argparse.Namespace) -> int | None:
    """Show the screen until it is ended; returns the signal that ended it, if one did."""
    from leakscope.cli._output import ink_for
    from leakscope.tui.top import TopScreen
    from leakscope.workflow.top_looks import open_top

    judging = _Judging(args)
    looks = open_top(what, judging)
    screen = TopScreen(looks, judging.judge_all, unicode=ink_for(sys.stdout).unicode)
    try:
        screen.run()
    finally:
        screen.finish()
        if not screen.is_looking:  # it reads what would be closed
            judging.forget()
    return screen.received


class _Judging:
    """One analyser for what is shown and one for all of it; names are kept between readings."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self.forget()

    def forget(self) -> None:
        """Make ready for another recording."""
        from leakscope._analysis import Analyser, KeptSymbols

        if (kept := getattr(self, "_kept", None)) is not None:
            kept.close()
        self._kept = KeptSymbols()
        self._analysers: dict[int, Analyser] = {}

    def judge(self, recording: Recording, most: int) -> Findings:
        """Return the findings, the `most` that weigh most; names are those of the last reading."""
        from leakscope._analysis import Analyser

        if most not in self._analysers:
            self._analysers[most] = Analyser(
                debug_dirs=self._args.debug_dir,
                debuginfod=not self._args.no_debuginfod,
                most_findings=most,
                kept=self._kept,
            )
        return self._analysers[most].analyse(recording)

    def judge_all(self, recording: Recording) -> Findings:
        """Return all findings on a recording that is judged once."""
        from leakscope._analysis import Analyser

        return Analyser(
            debug_dirs=self._args.debug_dir, debuginfod=not self._args.no_debuginfod
        ).analyse(recording)
