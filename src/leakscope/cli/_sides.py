# SPDX-License-Identifier: Apache-2.0
"""Whatever a user names, judged: for the commands that compare, export and suppress findings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.cli._progress import Progress
from leakscope.cli._reading import analyser_for
from leakscope.cli._streams import complain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from leakscope.errors import LeakscopeError
    from leakscope.workflow.judging import JudgedInput

__all__ = ["input_files", "read_judged"]


def input_files(names: Sequence[str]) -> list[str]:
    """Return those of `names` that are files, which no output may replace."""
    return [name for name in names if Path(name).is_file()]


def read_judged(
    names: Sequence[str], args: argparse.Namespace, failed: list[LeakscopeError]
) -> list[JudgedInput]:
    """Return what is found in everything that is named.

    `failed` gets what could not be read of a folder, which the rest of it is told without. Raises
    the error of a name of which nothing could be: what is written without it would look whole.
    """
    from leakscope.workflow.judging import judged_inputs

    analyser = analyser_for(args)
    found: list[JudgedInput] = []
    problems: list[LeakscopeError] = []
    with Progress() as progress:
        progress.stage("reading")
        for name in names:
            bad: list[LeakscopeError] = []
            judged = list(judged_inputs(name, analyser, bad.append, progress.stage))
            if bad and not judged:
                raise bad[0]
            found += judged
            problems += bad
    for problem in problems:
        complain(problem)
    failed += problems
    return found
