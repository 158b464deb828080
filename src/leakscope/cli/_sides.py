# SPDX-License-Identifier: Apache-2.0
"""Whatever a user names, judged: for the commands that compare, export and suppress findings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.cli._progress import Progress
from leakscope.cli._reading import analyser_for
from leakscope.cli._streams import complain
from leakscope.errors import LeakscopeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from leakscope.workflow.judging import JudgedInput

__all__ = ["input_files", "read_judged"]


def input_files(names: Sequence[str]) -> list[str]:
    """Return those of `names` that are files, which no output may replace."""
    return [name for name in names if Path(name).is_file()]


def read_judged(
    names: Sequence[str], args: argparse.Namespace, failed: list[LeakscopeError]
) -> list[JudgedInput]:
    """Return what is found in everything that is named; `failed` gets what could not be read.

    Raises the error where nothing could be.
    """
    from leakscope.workflow.judging import judged_inputs

    analyser = analyser_for(args)
    found: list[JudgedInput] = []
    problems: list[LeakscopeError] = []
    with Progress() as progress:
        progress.stage("reading")
        for name in names:
            try:
                found += judged_inputs(name, analyser, problems.append, progress.stage)
            except LeakscopeError as error:
                problems.append(error)
    if problems and not found:
        raise problems[0]
    for problem in problems:
        complain(problem)
    failed += problems
    return found
