# SPDX-License-Identifier: Apache-2.0
"""`leakscope report`: the report on recordings made earlier, here or elsewhere, or still growing."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope._digits import is_number
from leakscope._paths import exists, is_directory, is_file
from leakscope.cli._output import add_report_options, check_outputs, judge_recordings, statuses
from leakscope.cli._status import worst
from leakscope.cli._streams import complain, require_output
from leakscope.cli.watch import add_store_options
from leakscope.errors import LeakscopeError, RecordingError, TargetError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from leakscope.model.recordings import Recording

HELP = """\
Show the report on one or more recordings: what leaks, where, and why we think so.

A recording is a file that `leakscope run` or `leakscope watch --record` left, a directory
of such files, the number of a process that is being traced right now, or a file of another
tool: valgrind's XML.
Exit status: 0 clean, 1 leaks found (see --exit-code), 2 a recording cannot be read,
3 undecided.
"""

_SUFFIXES = (".leakscope", ".live")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("recordings", nargs="+", metavar="FILE|DIRECTORY|PID")
    add_report_options(parser)
    add_store_options(parser)
    parser.add_argument("-o", "--output", dest="report_file", help="same as --report-file")


def run(args: argparse.Namespace) -> int:
    """Report on everything that can be read; 2 when something cannot and nothing else leaks."""
    from leakscope.cli.watch import report_store
    from leakscope.observe.store import is_store

    if args.report_file is None and args.html is None and args.csv is None:
        require_output()
    if len(args.recordings) == 1 and is_store(args.recordings[0]):
        return report_store(args.recordings[0], args)
    watched = next((name for name in args.recordings if is_store(name)), None)
    if watched is not None:
        raise UsageError(
            f"{watched} is a recording of a watch, which is reported alone",
            hint=f"leakscope report {watched}",
        )
    # A report makes many small values and hardly a cycle: looking for some costs a tenth of it.
    gc.set_threshold(200_000)
    failed: list[LeakscopeError] = []
    sources = [source for name in args.recordings for source in _sources(name)]
    check_outputs([args.report_file, args.html, args.csv], [path for _, path in sources])
    if args.html is not None or args.csv is not None:
        raise UsageError("--html and --csv are for recordings of a watch")
    judged = judge_recordings(_load_each(sources, failed), args, sys.stdout)
    leaks, undecided = statuses(judged, args)
    return worst(leaks=leaks, failed=bool(failed), undecided=undecided)


def _load_each(
    sources: Sequence[tuple[str, Path]], failed: list[LeakscopeError]
) -> Iterator[tuple[str, Recording]]:
    """Load one recording after the other; the bad ones among several do not hide the rest."""
    from leakscope.formats import read_foreign
    from leakscope.recording import load
    from leakscope.report.terminal import PART

    for label, path in sources:
        try:
            found = read_foreign(path) or (load(path),)
        except LeakscopeError as error:
            failed.append(error)
            if len(failed) == len(sources):
                raise
            complain(error)
            continue
        for number, recording in enumerate(found, 1):
            yield (label if len(found) == 1 else f"{label}{PART}{number}"), recording


def _sources(name: str) -> list[tuple[str, Path]]:
    """Return the labelled recordings that one argument stands for."""
    path = Path(name)
    try:
        if not is_directory(path):
            if is_number(name) and not exists(path):
                return [(f"process {name}", _live(int(name)))]
            return [(name, path)]
        found = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES and is_file(p))
    except OSError as error:
        raise RecordingError(f"cannot read {name}: {error.strerror}") from error
    if not found:
        raise RecordingError(
            f"there is no recording in the directory {name}",
            hint="Recordings of `leakscope run` end in .leakscope; name those of a watch themselves.",
        )
    return [(str(each), each) for each in found]


def _live(pid: int) -> Path:
    from leakscope.trace.live_files import find_live_file

    live = find_live_file(pid)
    if live is None:
        raise TargetError(
            f"process {pid} is not being traced",
            hint="Start it with `leakscope run`, which records from the first allocation on.",
        )
    return live.path
