# SPDX-License-Identifier: Apache-2.0
"""`leakscope run`: trace a program from its start and report when it ends."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from leakscope._paths import absolute, as_typed, exists, is_directory
from leakscope.cli._gate import export_names, gate_for, judges_all
from leakscope.cli._output import add_report_options, judge_recordings, statuses
from leakscope.cli._status import worst
from leakscope.cli._writing import check_outputs
from leakscope.errors import UsageError
from leakscope.trace.settings import Settings, parse_signal, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leakscope.model.findings import Findings
    from leakscope.trace.launch import Run

HELP = """\
Trace a program and its children from their start, and report when it ends.

The program keeps its standard input, output and error, its terminal and its signals. The
report goes to standard error, after the program's own output, or to --report-file; JSON
belongs into a file, because the program may write to standard error as well. Each traced
process leaves a recording that `leakscope report` can show again, anywhere.

Exit status: 1 leaks found (--exit-code sets another); without leaks the program's own, 128 + N
when signal N killed it; where that is 0: 2 could not do it, 3 undecided, 0 clean.
"""

_T = TypeVar("_T")
_LONGEST_TYPED = 400  # characters of a command that a report repeats


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.usage = "leakscope run [OPTION...] -- PROGRAM [ARGUMENT...]"
    other = parser.add_argument_group("another tool")
    other.add_argument(
        "--with",
        dest="with_tool",
        metavar="TOOL",
        help="run it under another tool instead, and report on what that found: valgrind, massif,"
        " dhat, lsan, mtrace, heaptrack, jemalloc, gperftools, dmalloc, efence, leaktracer, libleak,"
        " memleax, bcc (memwatch and ccmalloc: how it is done)",
    )
    other.add_argument(
        "--tool-path",
        metavar="PATH",
        help="where that tool's program or library is, when it is not where Debian has it",
    )
    what = parser.add_argument_group("what is recorded")
    what.add_argument(
        "--sample",
        type=_value(parse_size),
        metavar="SIZE",
        help="sample one byte in SIZE on average, for example 512KiB, at nearly no cost"
        " (default: every allocation)",
    )
    what.add_argument(
        "--min-size",
        type=_value(parse_size),
        metavar="SIZE",
        help="leave out smaller allocations",
    )
    what.add_argument(
        "--max-size", type=_value(parse_size), metavar="SIZE", help="leave out larger allocations"
    )
    what.add_argument(
        "--depth", type=int, metavar="N", help="frames kept of each stack, 1 to 256 (default: 128)"
    )
    what.add_argument(
        "--no-children",
        dest="children",
        action="store_false",
        help="record the program alone, not the processes that it starts",
    )
    what.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="record programs of this name alone, wherever they are started; * stands for any"
        " text; repeatable",
    )
    what.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="NAME",
        help="do not record programs of this name; repeatable",
    )
    what.add_argument(
        "--no-scan",
        dest="scan",
        action="store_false",
        help="do not look which blocks are lost when a process ends",
    )
    when = parser.add_argument_group("when")
    when.add_argument(
        "--start-after", type=float, metavar="SECONDS", help="begin to record later, after start-up"
    )
    when.add_argument(
        "--start-signal",
        type=_value(parse_signal),
        metavar="SIGNAL",
        help="begin to record when the program receives SIGNAL, for example USR1",
    )
    when.add_argument(
        "--stop-signal",
        type=_value(parse_signal),
        metavar="SIGNAL",
        help="stop recording on SIGNAL; when it is also the start signal, it switches",
    )
    when.add_argument(
        "--dump-signal",
        type=_value(parse_signal),
        metavar="SIGNAL",
        help="write a snapshot of the recording on SIGNAL",
    )
    when.add_argument(
        "--wait-children",
        action="store_true",
        help="wait for daemons and background processes too; Ctrl-C ends the waiting",
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="directory or file name for recordings; %%n stands for the program, %%p for its pid"
        " (default: %%n.%%p.leakscope in the current directory)",
    )
    results.add_argument(
        "--keep-all",
        action="store_true",
        help="also keep the recordings of child processes in which nothing leaks",
    )
    results.add_argument(
        "--no-report", dest="report", action="store_false", help="only write the recordings"
    )
    results.add_argument(
        "--program-exit-code",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="without leaks, exit with the program's own status, 128 + N when signal N killed it"
        " (the default; with --no-program-exit-code that status does not count)",
    )
    results.add_argument(
        "--live",
        action="store_true",
        help="show the screen of `leakscope top` while it runs, and the report after it; the program"
        " reads nothing, and what it writes goes to PROGRAM.output in the current directory",
    )
    results.add_argument("-q", "--quiet", action="store_true", help="say nothing but the report")
    add_report_options(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Run the program, report, and return the exit status."""
    from leakscope.cli._driving import check_tool, drive

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("there is no program to run", hint="leakscope run -- PROGRAM ARGUMENTS")
    _check(args)
    check_tool(args)
    args.typed = shlex.join(command)
    if len(args.typed) > _LONGEST_TYPED:
        args.typed = f"{shlex.quote(command[0])} ARGUMENTS"
    if args.with_tool is not None:
        return _report(drive(command, args), args)
    if args.live:
        from leakscope.cli._live import run_live

        return run_live(args, command[0], lambda streams: _trace(command, args, streams))
    return _trace(command, args)


def _trace(
    command: Sequence[str], args: argparse.Namespace, streams: Sequence[int | None] = ()
) -> int:
    from leakscope._tracing import run as launch

    done = launch(
        command,
        _settings(args),
        streams=streams,
        output=args.output,
        wait_children=args.wait_children,
        scan=args.scan,
        keep_all=args.keep_all,
        # What is to be shown of them, or counts as a failure, has to be judged in full.
        drop_clean=args.report
        and not (args.all or args.json or "unknown" in args.fail_on or judges_all(args)),
        progress=lambda text: None if args.quiet else _say(text),
    )
    return _report(done, args)


def _report(done: Run, args: argparse.Namespace) -> int:
    """Report on what was recorded, and return the exit status."""
    command = done.command
    if not args.quiet:
        _say(f"{command[0]} {done.outcome}")
        for note in done.notes:
            _say(note)
    for problem in done.problems:
        _say(problem)
    leaks, undecided, dropped = 0, 0, 0
    if args.report and (done.recordings or not done.running):
        args.passing = (
            ()
            if args.keep_all
            else {
                as_typed(path)
                for path, each in zip(done.files, done.recordings, strict=False)
                if each.process.pid != done.pid
            }
        )
        labelled = (
            (as_typed(path), each) for path, each in zip(done.files, done.recordings, strict=False)
        )
        judged = judge_recordings(labelled, args, sys.stderr)
        leaks, undecided = statuses(judged, args)
        if not args.keep_all:
            kept = _without_clean_children(done, [findings for _, findings in judged], args)
            dropped = len(done.files) - len(kept)
            done = replace(done, files=kept)
    if not args.quiet:
        _tell_files(done, dropped, args)
    own = done.returncode if args.program_exit_code else 0
    if own and not leaks and not args.quiet:
        _say(f"exit status {own} is that of {command[0]}")
    return worst(leaks=leaks, own=own, failed=bool(done.problems), undecided=undecided)


def _settings(args: argparse.Namespace) -> Settings:
    """Return what is asked for, each option under the name that `Settings` has for it."""
    given = {each.name: getattr(args, each.name) for each in fields(Settings)}
    return Settings(**given | {"only": tuple(args.only), "exclude": tuple(args.exclude)})


def _check(args: argparse.Namespace) -> None:
    """Refuse now what could not be done after the program has run, perhaps for hours."""
    if not args.report and (args.report_file or args.json or args.html):
        option = "--report-file" if args.report_file else "--json" if args.json else "--html"
        raise UsageError(f"{option} asks for a report and --no-report for none")
    if not args.report and (args.export or args.baseline or args.budget):
        raise UsageError("--export, --baseline and --budget need what --no-report leaves out")
    if args.live and args.with_tool is not None:
        raise UsageError("--live shows what leakscope records, and --with runs another tool")
    gate_for(args)  # a baseline that cannot be read is told of before the program runs
    if args.suppressions:
        from leakscope.judge.suppressions import load_suppressions

        load_suppressions([Path(name) for name in args.suppressions])
    for name in args.debug_dir:
        if not is_directory(name):
            raise UsageError(f"there is no directory {name} to look for debug files in")
    made = args.output if args.output and args.output.endswith("/") else None
    # What lies in a folder that is made right before the start is looked at then.
    later = made is not None and not exists(made)
    outputs = [
        name
        for name in (args.report_file, args.html, *export_names(args))
        if not (later and name and made and absolute(name).parent == absolute(made))
    ]
    check_outputs(outputs, [name for name in (args.output, args.baseline) if name])


def _without_clean_children(
    done: Run, found: Sequence[Findings], args: argparse.Namespace
) -> tuple[Path, ...]:
    """Remove the recordings of children in which nothing leaks; return the files that stay.

    What is undecided stays: somebody may want to look at it. So does the program's own, of before
    and after an exec.
    """
    kept = []
    for path, findings in zip(done.files, found, strict=True):
        child = findings.process.pid != done.pid
        told = findings.leaks or findings.free_errors or findings.undecided
        if child and not (told or findings.fail(args.fail_on)):
            with contextlib.suppress(OSError):
                path.unlink()
        else:
            kept.append(path)
    return tuple(kept)


def _tell_files(done: Run, dropped: int, args: argparse.Namespace) -> None:
    if dropped:
        what = "recording of a child" if dropped == 1 else "recordings of children"
        _say(f"{dropped:,} {what} without a leak not kept; --keep-all keeps them")
    if len(done.files) == 1:
        _say(f"recording: {as_typed(done.files[0])}")
    elif done.files:
        _say(f"{len(done.files)} recordings, the program's own: {as_typed(done.files[0])}")
    if args.report_file and args.report:
        _say(f"report: {args.report_file}")
    if args.html and args.report:
        _say(f"page: {args.html}")
    for each in done.running:
        _say(
            f"process {each.pid} still runs and is being recorded:"
            f" leakscope report {each.pid}, and when it has ended: leakscope report {each.path}"
        )


def _say(text: str) -> None:
    from leakscope.report.text import printable

    print(f"leakscope: {printable(text)}", file=sys.stderr, flush=True)


def _value(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Make argparse tell what our parser says."""

    def convert(text: str) -> _T:
        try:
            return parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(f"{error}") from error

    return convert
