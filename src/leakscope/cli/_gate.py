# SPDX-License-Identifier: Apache-2.0
"""Options of reports that CI needs: a baseline, budgets, and files for other programs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from leakscope.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.judge.gate import Budget, Gate
    from leakscope.model.findings import Findings
    from leakscope.model.recordings import Recording

__all__ = ["add_gate_options", "export_names", "gate_for", "judges_all", "refuse_gate"]
__all__ += ["percent_value", "write_exports"]


def add_gate_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `gate_for` and `write_exports` take."""
    group = parser.add_argument_group("gate")
    group.add_argument(
        "--baseline",
        metavar="FILE",
        help="let pass what was there before: FILE is made by `leakscope baseline`, or a report"
        " written with --json; only what is new or has grown then counts as a leak",
    )
    group.add_argument(
        "--budget",
        type=_budget,
        action="append",
        default=[],
        metavar="WHAT=SIZE",
        help="what a function with all that it calls, a file, FILE:LINE or a module may hold, for"
        " example 'parse_row=64KiB'; leaks within it pass, more fails; repeatable",
    )
    group.add_argument(
        "--tolerance",
        type=percent_value,
        metavar="PERCENT",
        help="growth since the baseline by so much is none (default: 0 of lost blocks, 10 of what"
        " is held)",
    )
    group.add_argument(
        "--export",
        type=_export,
        action="append",
        default=[],
        metavar="FORMAT=FILE",
        help="also write FILE for other programs, as `leakscope export` does; repeatable",
    )


def gate_for(args: argparse.Namespace) -> Gate | None:
    """Return what lets findings pass, None where nothing was asked for. Raises `RecordingError`."""
    if args.baseline is None:
        unmet = {"new", "grown"} & set(args.fail_on)
        if unmet:
            raise UsageError(
                f"--fail-on {'new' if 'new' in unmet else 'grown'} needs something to compare with",
                hint="Name it with --baseline FILE; `leakscope baseline` makes one.",
            )
        if not args.budget:
            return None
    from leakscope.judge.diff import Tolerance
    from leakscope.judge.gate import Gate
    from leakscope.workflow.baselines import read_baseline

    baseline = None if args.baseline is None else read_baseline(args.baseline)
    share = args.tolerance
    return Gate(
        baseline,
        args.baseline or "",
        tuple(args.budget),
        None if share is None else Tolerance(share, share),
    )


def export_names(args: argparse.Namespace) -> list[str]:
    """Return the files that `write_exports` will write."""
    return [name for _, name in args.export if name != "-"]


def refuse_gate(args: argparse.Namespace, label: str, kind: str) -> None:
    """Raise `UsageError` where a gate was asked for what is no recording of allocations."""
    if args.export or args.baseline or args.budget:
        raise UsageError(
            f"{label} is {kind}: --export, --baseline and --budget are for recordings of allocations"
        )


def judges_all(args: argparse.Namespace) -> bool:
    """Whether also what leaks nothing has to be judged in full."""
    return bool(args.export or args.budget or {"new", "grown"} & set(args.fail_on))


def write_exports(
    judged: Sequence[tuple[str, Findings]],
    recordings: Sequence[Recording],
    args: argparse.Namespace,
) -> None:
    """Write what --export asks for. Raises `LeakscopeError`."""
    if not args.export:
        return
    from leakscope.cli._exporting import write_export
    from leakscope.report.export import Exported

    every = [
        Exported(label, findings, recording.timeline)
        for (label, findings), recording in zip(judged, recordings, strict=True)
    ]
    for name, path in args.export:
        write_export(name, every, path)


def percent_value(text: str) -> float:
    """Return a share of 1 from "5" or "5%"; for argparse."""
    try:
        share = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage such as 5")
    return share


def _budget(text: str) -> Budget:
    from leakscope.judge.gate import Budget
    from leakscope.trace.settings import parse_size

    what, equals, size = text.rpartition("=")
    try:
        if not equals:
            raise UsageError("a budget is WHAT=SIZE, for example parse_row=64KiB")
        return Budget.parse(what, parse_size(size))
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{error}") from error


def _export(text: str) -> tuple[str, str]:
    from leakscope.report.export import EXPORTS

    name, equals, path = text.partition("=")
    if not equals or not path or name not in EXPORTS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no FORMAT=FILE, where FORMAT is one of {', '.join(EXPORTS)}"
        )
    return name, path
