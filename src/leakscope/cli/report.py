# SPDX-License-Identifier: Apache-2.0
"""`leakscope report`: the report on what was recorded earlier, here or elsewhere, or still grows."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

from leakscope.cli._gate import export_names, refuse_gate
from leakscope.cli._heap import report_core
from leakscope.cli._output import add_report_options, judge_recordings, statuses
from leakscope.cli._snapshots import add_snapshot_options, report_snapshots
from leakscope.cli._status import worst
from leakscope.cli._streams import complain, require_output
from leakscope.cli._writing import check_outputs
from leakscope.cli.watch import add_store_options
from leakscope.errors import LeakscopeError, RecordingError, UsageError
from leakscope.words import part_label, plural

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from leakscope.model.recordings import Recording
    from leakscope.workflow.opening import Named

HELP = """\
Show the report on one or more recordings: what leaks, where, and why we think so.

A recording is a file that `leakscope run` or `leakscope watch --record` left, a directory
of such files, a process that is being traced right now, by its number or name, or a file
of another tool, such as valgrind, a sanitizer or heaptrack; `-` is standard input. Saved
tables of memory (smaps, slabinfo, class histograms, output of free) that are named in
order, or stand in one file, are a course, and their growth is judged. A core file is
scanned, as `leakscope scan` does. Of a heap dump of Java it shows what holds a large share,
and of several of one process what leaks. What a file is, its content tells.
Exit status: 0 clean, 1 leaks found (see --exit-code), 2 a recording cannot be read,
3 undecided.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("recordings", nargs="+", metavar="FILE|DIRECTORY|PID|NAME")
    add_report_options(parser)
    add_store_options(parser)
    add_snapshot_options(parser)
    parser.add_argument("-o", "--output", dest="report_file", help="same as --report-file")


def run(args: argparse.Namespace) -> int:
    """Report on everything that can be read; 2 when something cannot and nothing else leaks."""
    from leakscope.cli._java_report import report_dumps
    from leakscope.cli.watch import report_store
    from leakscope.workflow.opening import InputKind

    if args.report_file is None and args.html is None and args.csv is None:
        require_output()
    failed: list[LeakscopeError] = []
    named = _open(args.recordings, failed)
    dumps = [one.label for one in named if one.kind is InputKind.HEAP_DUMP]
    if dumps:
        return report_dumps(dumps, args, others=len(named) - len(dumps), failed=failed)
    tables = [one for one in named if one.kind is InputKind.TABLE]
    alone = [one for one in named if one.kind in (InputKind.WATCH, InputKind.CORE)]
    runs = [one for one in named if one not in alone and one not in tables]
    if args.since is not None and any(one.kind is InputKind.CORE for one in alone):
        raise UsageError("a core file is one moment: --since is for recordings")
    to_files = args.report_file or args.html or args.csv
    if tables and len(tables) < len(named) and (args.json or to_files):
        raise UsageError(
            f"{tables[0].label} is {tables[0].kind}, which is reported apart from the others",
            hint=f"leakscope report {tables[0].label}",
        )
    if alone and len(named) > 1 and (len(args.recordings) > 1 or args.json or to_files):
        raise UsageError(
            f"{alone[0].label} is {alone[0].kind}, which is reported alone",
            hint=f"leakscope report {alone[0].label}",
        )
    read = [one.path for one in named if one.path is not None]
    outputs = [args.report_file, args.html, args.csv, *export_names(args)]
    check_outputs(outputs, [*read, args.baseline] if args.baseline else read)
    if alone:
        refuse_gate(args, alone[0].label, alone[0].kind)
    other = next((one for one in named if one.kind is not InputKind.WATCH), None)
    for option in ("csv", "of", "until"):
        if other is not None and getattr(args, option) is not None:
            raise UsageError(
                f"--{option} is for recordings of a watch, and {other.label} is {other.kind}"
            )
    found = [
        report_store(one.label, args)
        if one.kind is InputKind.WATCH
        else report_core(one.label, args)
        for one in alone
    ]
    leaks = undecided = 0
    if tables:
        found.append(report_snapshots(tables, args, failed, others=len(alone) + len(runs)))
    if runs:
        # Many small values are made and hardly a cycle: looking for some costs a tenth of it.
        gc.set_threshold(200_000)
        judged = judge_recordings(
            _load_each(runs, failed, others=len(alone) + len(tables), since=args.since),
            args,
            sys.stdout,
        )
        leaks, undecided = statuses(judged, args)
    return worst(
        leaks=leaks or next((s for s in found if s == args.exit_code), 0),
        failed=bool(failed) or 2 in found,
        undecided=undecided or max(found, default=0),
    )


def _open(names: Sequence[str], failed: list[LeakscopeError]) -> list[Named]:
    """Return all that is named; what is nothing, among several, does not hide the rest."""
    from leakscope.workflow.opening import open_named

    found: list[Named] = []
    for name in names:
        try:
            opened = open_named(name)
            found += opened
            _say_what_is_left_out(name, opened)
        except LeakscopeError as error:
            failed.append(error)
            if len(failed) == len(names):
                raise
            complain(error)
    return found


def _say_what_is_left_out(name: str, opened: Sequence[Named]) -> None:
    """Say which files of a folder with files of other tools are none: a log may be among them."""
    from pathlib import Path

    from leakscope.workflow.opening import InputKind

    kinds = (InputKind.FOREIGN, InputKind.TABLE)
    folder = Path(name)
    if not any(one.kind in kinds for one in opened) or not folder.is_dir():
        return
    known = {one.path for one in opened}
    if folder in known:
        return
    others = sorted(path.name for path in folder.iterdir() if path.is_file() and path not in known)
    if others:
        names = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        complain(
            RecordingError(
                f"not read, of no format that is known: {plural(len(others), 'file')} in {name}"
                f" ({names})"
            )
        )


def _load_each(
    named: Sequence[Named],
    failed: list[LeakscopeError],
    *,
    others: int,
    since: str | None,
) -> Iterator[tuple[str, Recording]]:
    """Load one recording after the other; the bad ones among several do not hide the rest."""
    bad = early = told = 0
    for one in named:
        try:
            read = one.read()
            found = [part for each in read if (part := _since(each, since)) is not None]
            early += len(read) - len(found)
        except LeakscopeError as error:
            failed.append(error)
            bad += 1
            if bad == len(named) and not others:
                raise
            complain(error)
            continue
        for number, recording in enumerate(found, 1):
            yield part_label(one.label, number, len(found)), recording
            told += 1
    if early and not told and not others:
        raise UsageError(f"nothing can be told since {since}: the recording ends before it")
    if early:
        over = "1 recording ends" if early == 1 else f"{early:,} recordings end"
        print(f"leakscope: left out, as {over} within the first {since}", file=sys.stderr)


def _since(recording: Recording, wanted: str | None) -> Recording | None:
    """Return what came after a mark, or after the first 20s, 30m, 2h; None: it ended before."""
    from leakscope.judge.since import find_mark, since
    from leakscope.model.recordings import Mark
    from leakscope.observe.asked import parse_duration

    if wanted is None:
        return recording
    try:
        mark = find_mark(recording, wanted)
    except UsageError as error:
        try:
            mark = Mark("", int(parse_duration(wanted) * 1e9))
        except UsageError:
            raise UsageError(
                f"{wanted!r} is no time such as 20s, 30m or 2h, and {error}", hint=error.hint
            ) from None
        if mark.at_ns > recording.duration_ns:
            return None
    return since(recording, mark)
