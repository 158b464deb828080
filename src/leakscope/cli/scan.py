# SPDX-License-Identifier: Apache-2.0
"""`leakscope scan`: say which blocks of a running process or a core file nothing points to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope._digits import is_number
from leakscope._paths import exists
from leakscope.cli._gate import export_names, refuse_gate
from leakscope.cli._heap import report_core, report_heap
from leakscope.cli._output import add_report_options, report_recordings
from leakscope.cli._writing import check_outputs, write_report
from leakscope.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from leakscope.cli._page import Holders
    from leakscope.model.findings import Finding
    from leakscope.model.holders import Holding
    from leakscope.model.recordings import Recording

_PAUSE_S = 0.1
_SHORTEST_PRINT = 6  # digits of a fingerprint that are taken for one

HELP = """\
Stop a process for a moment, and say which of its blocks nothing points to any more.

It stands still for a tenth of a second at most, or for --max-pause SECONDS, while its memory is copied. Where that
takes longer it is forked, if that can do no harm; if it can, nothing is done and the reason is told.

A process that leakscope traces gives findings with call stacks and lines. For any other one
the heap is walked from outside (glibc's malloc, jemalloc, tcmalloc): lost blocks are told by their size, and the
account says how much of the memory the program uses and how much its allocator keeps.
A core file is read in the same way.
Exit status: 0 nothing lost, 1 lost blocks or leaks, 2 could not do it.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "pid",
        metavar="PID|NAME|CORE",
        help="the process, traced by leakscope or not; or a core file",
    )
    parser.add_argument(
        "--held-by",
        metavar="SITE",
        help="show what holds the blocks of one place: FILE:LINE, a function, or a fingerprint",
    )
    parser.add_argument(
        "--max-pause",
        metavar="SECONDS",
        type=float,
        default=_PAUSE_S,
        help="let the process stand still for so long at most (default: 0.1)",
    )
    add_report_options(parser)


def run(args: argparse.Namespace) -> int:
    """Scan, report, and return the exit status."""
    from leakscope.scan.subject import check_pause, check_process
    from leakscope.workflow.opening import InputKind, open_one

    check_outputs([args.report_file, args.html, *export_names(args)], [args.pid])
    check_pause(args.max_pause)
    if is_number(args.pid) and not exists(args.pid):
        check_process(int(args.pid))
    one = open_one(args.pid)
    if one.pid is None:
        if one.kind is not InputKind.CORE:
            raise UsageError(
                f"{one.label} is {one.kind}; a scan needs a process or a core file",
                hint=f"leakscope report {one.label}",
            )
        _refuse_held_by(args)
        refuse_gate(args, one.label, one.kind)
        return report_core(one.label, args)
    check_process(one.pid)
    if one.path is None:
        _refuse_held_by(args)
        refuse_gate(args, one.label, one.kind)
        return _untraced(one.pid, args)
    return (_held_by if args.held_by else _traced)(one.pid, one.path, args)


def _traced(pid: int, path: Path, args: argparse.Namespace) -> int:
    from leakscope.recording import live
    from leakscope.recording.own import own_ranges
    from leakscope.scan import cancellable, scan_holders, scan_process

    own = own_ranges(path)
    held: Holders | None = None
    if args.html is not None:  # a page shows who holds what, too
        recording, holders = cancellable(
            lambda: scan_holders(pid, lambda: live.read(path), own=own, max_pause_s=args.max_pause)
        )

        def held(recording: Recording, site: int) -> Sequence[Holding]:
            return holders.of_site(recording, site)[0]
    else:
        recording = cancellable(
            lambda: scan_process(pid, lambda: live.read(path), own=own, max_pause_s=args.max_pause)
        )
    status = report_recordings([(f"process {pid}", recording)], args, sys.stdout, held)
    if recording.scan is not None and not args.json:
        facts = recording.scan
        print(
            f"leakscope: process {pid} was stopped for {facts.pause_ms:.0f} ms and {facts.method}"
            f" ({facts.threads} thread{'s' if facts.threads != 1 else ''}); the scan took"
            f" {facts.seconds:.1f} s",
            file=sys.stderr,
        )
    return status


def _untraced(pid: int, args: argparse.Namespace) -> int:
    from leakscope.scan import cancellable, scan_untraced
    from leakscope.scan.subject import process_name

    scan = cancellable(lambda: scan_untraced(pid, max_pause_s=args.max_pause))
    return report_heap(scan, process_name(pid), args)


def _refuse_held_by(args: argparse.Namespace) -> None:
    if args.held_by:
        raise UsageError(
            "--held-by needs a process that leakscope traces: only it knows who allocated a block",
            hint="Start the program with `leakscope run -- PROGRAM`.",
        )


def _held_by(pid: int, path: Path, args: argparse.Namespace) -> int:
    from leakscope._analysis import Analyser
    from leakscope.recording import live
    from leakscope.recording.own import own_ranges
    from leakscope.report.holders import render_holders, to_json
    from leakscope.scan import cancellable, scan_holders

    if args.html is not None:
        raise UsageError(
            "--html shows who holds each finding, --held-by one of them as text",
            hint="Leave out one of the two.",
        )
    own = own_ranges(path)
    recording, holders = cancellable(
        lambda: scan_holders(pid, lambda: live.read(path), own=own, max_pause_s=args.max_pause)
    )
    analyser = Analyser(
        debug_dirs=[Path(name) for name in args.debug_dir], debuginfod=not args.no_debuginfod
    )
    findings = analyser.analyse(recording).findings
    sites = {finding.site: finding for finding in findings if finding.site is not None}
    chosen = [finding for finding in sites.values() if _names(finding, args.held_by)]
    if not chosen:
        some = ", ".join(_place(finding) for finding in list(sites.values())[:3])
        raise UsageError(
            f"no place that holds memory is named {args.held_by!r}",
            hint=f"The heaviest are {some}." if some else None,
        )
    answers = [
        (finding, *holders.of_site(recording, finding.site))
        for finding in chosen
        if finding.site is not None
    ]
    if args.json:
        text = to_json(answers)
    else:
        text = "\n".join(render_holders(*answer, sites) for answer in answers)
    write_report(text, args, sys.stdout)
    return 0


def _names(finding: Finding, text: str) -> bool:
    """Whether a user who writes `text` can mean this finding."""
    prints = (finding.fingerprint, finding.stable_fingerprint or "")
    if len(text) >= _SHORTEST_PRINT and any(each.startswith(text) for each in prints):
        return True
    frame = finding.source or next(iter(finding.stack), None)
    if frame is None:
        return False
    if frame.file is not None and frame.line is not None:
        place = f"{frame.file}:{frame.line}"
        if place == text or place.endswith("/" + text):
            return True
    name = (frame.function or "").split("(")[0]
    return bool(name) and text.removesuffix("()") in {name, frame.function}


def _place(finding: Finding) -> str:
    from leakscope.report.holders import place_text

    return place_text(finding)
