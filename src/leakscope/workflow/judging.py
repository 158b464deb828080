# SPDX-License-Identifier: Apache-2.0
"""Whatever a user names, judged: recordings, files of other tools, reports written with --json."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from leakscope.words import part_label
from leakscope.workflow.opening import open_named
from leakscope.workflow.told import is_document, told_findings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from leakscope.errors import LeakscopeError
    from leakscope.model.findings import Findings
    from leakscope.model.recordings import Recording

__all__ = ["Analysing", "JudgedInput", "judged_inputs"]


class Analysing(Protocol):
    """What makes findings of a recording."""

    def analyse(self, recording: Recording) -> Findings:
        """Return what is found in it."""
        ...


class JudgedInput(NamedTuple):
    """What was found in one recording, which is None for a report written as JSON."""

    label: str
    findings: Findings
    recording: Recording | None


def judged_inputs(
    name: str,
    judge: Analysing,
    failed: Callable[[LeakscopeError], None],
    stage: Callable[[str], None] = lambda _: None,
) -> Iterator[JudgedInput]:
    """Yield what is found in everything that is named so.

    `failed` gets what could not be read of several files of one name; `stage` is told what is
    done just now. Raises `LeakscopeError` where nothing of that name can be opened.
    """
    from leakscope.errors import LeakscopeError

    if is_document(name):
        yield from (JudgedInput(*each, None) for each in told_findings(name))
        return
    for source in open_named(name):
        try:
            recordings = source.read()
        except LeakscopeError as error:
            failed(error)
            continue
        for number, recording in enumerate(recordings, 1):
            label = part_label(source.label, number, len(recordings))
            stage(f"judging {label}")
            yield JudgedInput(label, judge.analyse(recording), recording)
