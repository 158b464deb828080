# SPDX-License-Identifier: Apache-2.0
"""Whatever a user names, judged: for the commands that compare, export and suppress findings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from leakscope.cli._output import size_value
from leakscope.cli._progress import Progress
from leakscope.cli._streams import complain
from leakscope.errors import LeakscopeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from leakscope.model.findings import Findings
    from leakscope.model.recordings import Recording
    from leakscope.workflow.opening import Named

__all__ = ["JudgedInput", "add_reading_options", "input_files", "read_judged"]


class JudgedInput(NamedTuple):
    """What was found in one recording, which is None for a report written as JSON."""

    label: str
    findings: Findings
    recording: Recording | None


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `read_judged` takes."""
    group = parser.add_argument_group("reading")
    group.add_argument(
        "--min-bytes",
        type=size_value,
        default=0,
        metavar="SIZE",
        help="leave out findings that hold less, for example 64KiB",
    )
    group.add_argument(
        "--suppressions",
        action="append",
        default=[],
        metavar="FILE",
        help="suppressions in LeakSanitizer's or valgrind's syntax; repeatable",
    )
    group.add_argument(
        "--debug-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="look for separate debug files here as well; repeatable",
    )
    group.add_argument(
        "--no-debuginfod",
        action="store_true",
        help="do not ask the servers of DEBUGINFOD_URLS for debug information",
    )


def input_files(names: Sequence[str]) -> list[str]:
    """Return those of `names` that are files, which no output may replace."""
    return [name for name in names if Path(name).is_file()]


def read_judged(
    names: Sequence[str], args: argparse.Namespace, failed: list[LeakscopeError]
) -> list[JudgedInput]:
    """Return what is found in everything that is named; `failed` gets what could not be read.

    Raises the error where nothing could be.
    """
    from leakscope._analysis import Analyser

    analyser = Analyser(
        suppressions=[Path(name) for name in args.suppressions],
        debug_dirs=[Path(name) for name in args.debug_dir],
        debuginfod=not args.no_debuginfod,
        min_bytes=args.min_bytes,
    )
    found: list[JudgedInput] = []
    problems: list[LeakscopeError] = []
    with Progress() as progress:
        progress.stage("reading")
        for source in _sources(names, problems):
            try:
                if isinstance(source, str):
                    from leakscope.workflow.told import told_findings

                    found += [JudgedInput(*each, None) for each in told_findings(source)]
                    continue
                recordings = source.read()
            except LeakscopeError as error:
                problems.append(error)
                continue
            for number, recording in enumerate(recordings, 1):
                label = _label(source.label, number, len(recordings))
                progress.stage(f"judging {label}")
                found.append(JudgedInput(label, analyser.analyse(recording), recording))
    if problems and not found:
        raise problems[0]
    for problem in problems:
        complain(problem)
    failed += problems
    return found


def _sources(names: Sequence[str], problems: list[LeakscopeError]) -> Iterator[Named | str]:
    from leakscope.workflow.opening import open_named
    from leakscope.workflow.told import is_document

    for name in names:
        if is_document(name):
            yield name
            continue
        try:
            yield from open_named(name)
        except LeakscopeError as error:
            problems.append(error)


def _label(label: str, number: int, count: int) -> str:
    from leakscope.report.terminal import PART

    return label if count == 1 else f"{label}{PART}{number}"
