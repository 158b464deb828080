# SPDX-License-Identifier: Apache-2.0
"""The page that commands write with --html."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leakscope._paths import current
from leakscope.cli._writing import write_private

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from leakscope._analysis import Analyser
    from leakscope.model.answers import Answer
    from leakscope.model.findings import Findings
    from leakscope.model.holders import Holding
    from leakscope.model.recordings import Recording

    Holders = Callable[[Recording, int], Sequence[Holding]]

__all__ = ["add_html_option", "judged_answer", "write_page"]

_PROFILES = 16  # recordings of one page that have their graph
_HELD = 20  # findings whose holders are asked for
_BRIEF = 50  # findings told of each recording after those


def add_html_option(parser: argparse._ActionsContainer) -> None:
    """Add the option that says where the page goes."""
    parser.add_argument(
        "--html", metavar="FILE", help="also write a page with plots, one file that needs no other"
    )


def judged_answer(
    label: str,
    recording: Recording,
    analyser: Analyser,
    args: argparse.Namespace,
    number: int,
    completed: Callable[[Findings], Findings],
    holders: Holders | None = None,
) -> tuple[Findings, Answer]:
    """Judge a recording, the page's `number`th, and return the findings and the answer for it."""
    from leakscope._profile import lives_of
    from leakscope.report.answers.findings import of_findings, to_tell
    from leakscope.symbols import source_context

    if number < _PROFILES:
        findings, profile = analyser.analyse_all(recording)
    else:
        findings, profile = analyser.analyse(recording), None
    findings = completed(findings)
    told = to_tell(findings) if number < _PROFILES else []
    held = {}
    if holders is not None:
        sites = [finding.site for finding in told[:_HELD] if finding.site is not None]
        held = {site: holders(recording, site) for site in sites}
    passing = label in getattr(args, "passing", ()) and not findings.leaks
    answer = of_findings(
        findings,
        label=None if passing else label,
        typed=getattr(args, "typed", None),
        source_context=None if args.no_source else source_context,
        base=current(),
        profile=profile,
        lives=lives_of(recording, told),
        holders=held,
    )
    if number >= _PROFILES and len(answer.results) > _BRIEF:
        from dataclasses import replace

        more = answer.left_out + len(answer.results) - _BRIEF
        answer = replace(answer, results=answer.results[:_BRIEF], left_out=more)
    return findings, answer


def write_page(
    name: str, answers: Sequence[Answer], compare: tuple[int, int] | None = None
) -> None:
    """Write the page for this user only, whole or not at all; `compare` is as in `to_html`."""
    from leakscope.report.html import to_html

    write_private(Path(name), to_html(answers, compare))
