# SPDX-License-Identifier: Apache-2.0
"""`leakscope report` on heap dumps of Java."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from leakscope.cli._output import ink_for
from leakscope.cli._page import write_page
from leakscope.cli._progress import Progress
from leakscope.cli._status import worst
from leakscope.cli._streams import complain
from leakscope.cli._writing import check_outputs, write_report
from leakscope.errors import LeakscopeError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from leakscope.model.heapdump import HeapAnswer

__all__ = ["report_dumps"]


def report_dumps(
    names: Sequence[str],
    args: argparse.Namespace,
    *,
    others: int = 0,
    failed: list[LeakscopeError] | None = None,
) -> int:
    """Report one dump, or the growth between several; return the exit status.

    `others` are things named with them that are no heap dumps, `failed` those that are nothing.
    """
    from leakscope.java.growth import compare_dumps
    from leakscope.report import java
    from leakscope.report.answers.java_heaps import of_dump, of_growth

    failed = [] if failed is None else failed
    if others:
        raise UsageError(
            f"{names[0]} is a heap dump of Java, which is reported with others of its process alone",
            hint=f"leakscope report {' '.join(names[:3])}",
        )
    if args.csv is not None:
        raise UsageError("--csv is for recordings of a watch")
    check_outputs([args.report_file, args.html], names)
    answers = _analyse(names, failed)
    ink = ink_for(None if args.report_file else sys.stdout, args.colour)
    if len(answers) == 1:
        answer = answers[0]
        text = (
            java.dump_json(answer)
            if args.json
            else java.render_dump(answer, ink, limit=args.limit, verbose=args.verbose)
        )
        if args.html is not None:  # first: the terminal may be gone
            write_page(args.html, [of_dump(answer)])
        write_report(text, args, sys.stdout)
        return worst(leaks=0, failed=bool(failed), undecided=int(args.undecided_exit_code))
    growth = compare_dumps(answers)
    text = (
        java.growth_json(growth)
        if args.json
        else java.render_growth(growth, ink, limit=args.limit, verbose=args.verbose)
    )
    if args.html is not None:
        write_page(args.html, [of_growth(growth)])
    write_report(text, args, sys.stdout)
    leaks = growth.verdict is not None and str(growth.verdict) in args.fail_on
    undecided = growth.verdict is not None and str(growth.verdict) in ("growing", "unknown")
    return worst(
        leaks=int(args.exit_code) if leaks else 0,
        failed=bool(failed),
        undecided=int(args.undecided_exit_code) if undecided else 0,
    )


def _analyse(names: Sequence[str], failed: list[LeakscopeError]) -> list[HeapAnswer]:
    """Analyse one dump after the other; a bad one among several does not hide the rest."""
    from leakscope.java.analysis import analyse_dump

    answers = []
    with Progress() as progress:
        for name in names:
            progress.stage(f"analysing {name}")
            try:
                answers.append(analyse_dump(name))
            except LeakscopeError as error:
                failed.append(error)
                if not answers and name == names[-1]:
                    raise
                complain(error)
    return answers
