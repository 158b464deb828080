# SPDX-License-Identifier: Apache-2.0
"""From recordings to a report on a stream and an exit status, for every command that reports."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

from leakscope._digits import is_number
from leakscope._paths import current
from leakscope.cli._gate import add_gate_options, gate_for, write_exports
from leakscope.cli._page import add_html_option, judged_answer, write_page
from leakscope.cli._progress import Progress
from leakscope.cli._reading import add_reading_options, analyser_for
from leakscope.cli._status import LEAKS, UNDECIDED
from leakscope.cli._values import exit_code_value, whole_number, words_value
from leakscope.cli._writing import write_report

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence

    from leakscope.cli._page import Holders
    from leakscope.model.answers import Answer
    from leakscope.model.findings import Findings
    from leakscope.model.frames import Frame
    from leakscope.model.recordings import Recording
    from leakscope.report.ink import Ink

__all__ = ["add_colour_option", "add_report_options", "ink_for", "judge_recordings"]
__all__ += ["report_recordings", "statuses"]

_FAIL_ON = {
    "leaks": frozenset({"lost", "leaking"}),
    "lost": frozenset({"lost"}),
    "leaking": frozenset({"leaking"}),
    "growth": frozenset({"growing", "filling"}),
    "unknown": frozenset({"unknown"}),
    "errors": frozenset({"error"}),
    "new": frozenset({"new"}),
    "grown": frozenset({"grown"}),
}
_PLAIN_WIDTH = 80
_NARROWEST = 20


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `report_recordings` reads from its `args`."""
    group = parser.add_argument_group("report")
    group.add_argument("--json", action="store_true", help="write JSON instead of text")
    group.add_argument(
        "--report-file", metavar="FILE", help="write the report to FILE instead of the terminal"
    )
    add_html_option(group)
    group.add_argument(
        "--limit",
        type=whole_number,
        default=10,
        metavar="N",
        help="show at most N findings in full (default 10)",
    )
    group.add_argument(
        "--all",
        action="store_true",
        help="also show what is quiet by default: known and suppressed, bounded, one-off, churn",
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", help="show whole stacks and all evidence"
    )
    add_reading_options(group)
    group.add_argument("--no-source", action="store_true", help="do not show source lines")
    add_colour_option(group)
    group.add_argument(
        "--exit-code",
        type=exit_code_value,
        default=LEAKS,
        metavar="N",
        help="exit status when leaks are found (default 1)",
    )
    group.add_argument(
        "--undecided-exit-code",
        type=exit_code_value,
        default=UNDECIDED,
        metavar="N",
        help="exit status when the evidence is too little to say either (default 3)",
    )
    group.add_argument(
        "--fail-on",
        type=_verdicts,
        default=_FAIL_ON["leaks"],
        metavar="WHAT",
        help="what gives that status, with commas between: leaks (the default: lost, leaking), lost,"
        " leaking, growth (growing, filling), unknown, errors (wrong frees); with --baseline also new,"
        " grown: whatever else is new or has grown",
    )
    add_gate_options(parser)


def add_colour_option(parser: argparse._ActionsContainer) -> None:
    """Add the option that `ink_for` takes."""
    parser.add_argument(
        "--colour",
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colour the text (default auto: on a terminal, unless NO_COLOR is set)",
    )


def report_recordings(
    recordings: Iterable[tuple[str, Recording]],
    args: argparse.Namespace,
    stream: TextIO,
    holders: Holders | None = None,
) -> int:
    """Judge each recording, write one report on all of them, return the exit status.

    `recordings` are labelled with a file or process name and may be produced one by one;
    `args` are those of `add_report_options`. The status is that of `statuses`.
    A reader that closes the pipe early changes nothing about it.
    """
    leaks, undecided = statuses(judge_recordings(recordings, args, stream, holders=holders), args)
    return leaks or undecided


def judge_recordings(
    recordings: Iterable[tuple[str, Recording]],
    args: argparse.Namespace,
    stream: TextIO,
    completed: Callable[[Findings], Findings] = lambda findings: findings,
    holders: Holders | None = None,
) -> list[tuple[str, Findings]]:
    """Judge each recording, write one report on all of them, return what was found in each.

    `completed` adds what is known from elsewhere, `holders` tells for the page who holds the
    blocks of a site.
    """
    from leakscope._told import reading_told

    judged: list[tuple[str, Findings]] = []
    every: list[Recording] = []
    answers: list[Answer] = []
    with Progress() as progress, reading_told(progress.share):
        analyser = analyser_for(args, gate_for(args))
        progress.stage("reading")
        for label, recording in recordings:
            progress.stage(f"judging {label}")
            if args.html is None:
                judged.append((label, completed(analyser.analyse(recording))))
            else:
                findings, answer = judged_answer(
                    label, recording, analyser, args, len(answers), completed, holders
                )
                judged.append((label, findings))
                answers.append(answer)
            if args.export:
                every.append(recording)
            progress.stage("reading")
        progress.stage("writing the report")
        if args.html is not None:  # first: the terminal may be gone
            write_page(args.html, answers)
        if args.json:
            from leakscope.report.json_ import to_json

            text = to_json(*(f for _, f in judged), labels=[label for label, _ in judged])
        else:
            text = _text(judged, args, None if args.report_file else stream)
    write_report(text, args, stream)
    write_exports(judged, every, args)
    return judged


def statuses(judged: Iterable[tuple[str, Findings]], args: argparse.Namespace) -> tuple[int, int]:
    """Return the status for leaks and the one for what is undecided, 0 where there is none.

    The first is `args.exit_code` when a finding is of `args.fail_on`, the second
    `args.undecided_exit_code` when a recording tells neither leaks nor their absence.
    """
    every = [findings for _, findings in judged]
    failed = any(findings.fail(args.fail_on) for findings in every)
    undecided = any(findings.undecided for findings in every)
    return (
        int(args.exit_code) if failed else 0,
        int(args.undecided_exit_code) if undecided else 0,
    )


def ink_for(stream: TextIO | None, colour: str = "auto", *, base: str | None = None) -> Ink:
    """Return how to mark a report for `stream`; None is a file. `base` is as in `Ink`."""
    from leakscope.report.ink import Ink

    return Ink(_width(stream), _colour(colour, stream), _can_show(stream, "…·▶│─▁█"), base)


# -- text ---------------------------------------------------------------------


def _text(
    judged: Sequence[tuple[str, Findings]], args: argparse.Namespace, stream: TextIO | None
) -> str:
    """The terminal report on one process, or on each of a tree, heaviest first."""
    from leakscope.report.processes import render_processes

    return render_processes(
        judged,
        width=_width(stream),
        colour=_colour(args.colour, stream),
        unicode=_can_show(stream, "…·▶│─"),
        source_context=None if args.no_source else _source_context,
        limit=args.limit,
        show_all=args.all,
        verbose=args.verbose,
        base=current(),
        command=getattr(args, "typed", None),  # of `run`
        passing=getattr(args, "passing", ()),
    )


def _source_context(frame: Frame, radius: int) -> list[tuple[int, str]]:
    from leakscope.symbols import source_context  # here: a report without findings shows none

    return source_context(frame, radius)


def _width(stream: TextIO | None) -> int:
    if stream is None or not stream.isatty():
        return _PLAIN_WIDTH
    wanted = os.environ.get("COLUMNS", "")
    if is_number(wanted) and len(wanted) < 6 and int(wanted) > 0:
        return max(int(wanted), _NARROWEST)
    try:
        return max(os.get_terminal_size(stream.fileno()).columns or _PLAIN_WIDTH, _NARROWEST)
    except (OSError, ValueError):
        return _PLAIN_WIDTH


def _colour(wanted: str, stream: TextIO | None) -> bool:
    if wanted != "auto":
        return wanted == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream is not None and stream.isatty()


def _can_show(stream: TextIO | None, text: str) -> bool:
    encoding = "utf-8" if stream is None else getattr(stream, "encoding", None)
    if encoding is None:
        return True
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _verdicts(text: str) -> frozenset[str]:
    words = words_value(text, _FAIL_ON)
    return frozenset[str]().union(*(_FAIL_ON[word] for word in words))
