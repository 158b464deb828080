# SPDX-License-Identifier: Apache-2.0
"""Whatever a user names, judged: for the commands that compare, export and suppress findings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from leakscope.cli._progress import Progress
from leakscope.cli._reading import analyser_for, part_label
from leakscope.cli._streams import complain
from leakscope.errors import LeakscopeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from leakscope.model.findings import Findings
    from leakscope.model.recordings import Recording
    from leakscope.workflow.opening import Named

__all__ = ["JudgedInput", "input_files", "read_judged"]


class JudgedInput(NamedTuple):
    """What was found in one recording, which is None for a report written as JSON."""

    label: str
    findings: Findings
    recording: Recording | None


def input_files(names: Sequence[str]) -> list[str]:
    """Return those of `names` that are files, which no output may replace."""
    return [name for name in names if Path(name).is_file()]


def read_judged(
    names: Sequence[str], args: argparse.Namespace, failed: list[LeakscopeError]
) -> list[JudgedInput]:
    """Return what is found in everything that is named; `failed` gets what could not be read.

    Raises the error where nothing could be.
    """
    analyser = analyser_for(args)
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
                label = part_label(source.label, number, len(recordings))
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
