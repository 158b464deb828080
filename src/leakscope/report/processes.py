# SPDX-License-Identifier: Apache-2.0
"""The text on all processes of a run: those that leak in full and heaviest first, the rest in a line."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

from leakscope.judge.together import leaking_places
from leakscope.report._coverage import problems
from leakscope.report._shared import shared_lines
from leakscope.report.ink import WARNING, Ink
from leakscope.report.terminal import next_lines, render, render_brief
from leakscope.report.text import cells, clip_left, printable
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from leakscope.model.findings import Findings
    from leakscope.report.terminal import SourceContext

__all__ = ["render_processes"]

_NAMES = 5
_BRIEF = 20  # processes with nothing to report that get a line of their own


def render_processes(
    judged: Sequence[tuple[str, Findings]],
    *,
    width: int = 80,
    colour: bool = False,
    unicode: bool = True,
    source_context: SourceContext | None = None,
    limit: int = 10,
    show_all: bool = False,
    verbose: bool = False,
    base: str | None = None,
    command: str | None = None,
    passing: Collection[str] = (),
) -> str:
    """Return the report on one process, or on each of several, ending in a newline.

    Each has a label, the name of its recording; those of `passing` are kept only when something
    leaks. The rest is as in `render`.
    """

    def full(label: str, findings: Findings) -> str:
        return render(
            findings,
            width=width,
            colour=colour,
            source_context=source_context,
            limit=limit,
            show_known=show_all,
            verbose=verbose,
            unicode=unicode,
            base=base,
            recording=kept(label, findings),
            command=command,
        )

    def kept(label: str, findings: Findings) -> str | None:
        return None if label in passing and not findings.leaks else label

    if not judged:
        return "leakscope: no leak found\n"
    if len(judged) == 1:
        return full(*judged[0])
    rule = "─" if unicode else "-"
    leaking = sum(1 for _, findings in judged if findings.leaks)
    parts = [f"leakscope: {leaking} of {len(judged)} processes leak\n"]
    places = leaking_places(judged)
    ink = Ink(width, colour, unicode, base)
    order = sorted(judged, key=lambda each: -sum(finding.leak_bytes for finding in each[1].leaks))
    label, chief = order[0]
    first = next_lines(chief, ink, kept(label, chief), command)
    parts += [f"{line}\n" for line in first]
    parts += [f"{line}\n" for line in shared_lines(places, ink, max(limit, 1))]
    parts += [f"{line}\n" for line in _replaced_lines([each for _, each in judged], ink)]
    # Of processes that leak at the same places, one is told in full.
    shown: set[tuple[str, ...]] = set()
    detailed = []
    for each in order:
        leaks = {finding.place for finding in each[1].leaks}
        if show_all or leaks - shown or each[1].free_errors:
            detailed.append(each)
        shown |= leaks
    for label, findings in detailed:
        parts.append(f"\n{_heading(label, width, rule)}\n{full(label, findings)}")
    told = {id(findings) for _, findings in detailed}
    rest = [each for each in order if id(each[1]) not in told]
    alike = [f for _, f in rest if f.leaks and not problems(f)]
    parts += [f"{line}\n" for line in _alike_lines(alike, ink)]
    brief = [each for each in rest if not each[1].leaks or problems(each[1])]
    for label, findings in brief[:_BRIEF]:
        parts.append(f"\n{_heading(label, width, rule)}\n")
        parts.append(render_brief(findings, width=width, colour=colour))
    if brief[_BRIEF:]:
        what = "without more to say" if any(f.leaks for _, f in brief) else "without a leak"
        parts.append(f"\n{len(brief) - _BRIEF} more processes {what}; --all shows them\n")
    return "".join(parts)


def _alike_lines(alike: Sequence[Findings], ink: Ink) -> list[str]:
    """Count the processes that leak nowhere but at places that are told already, by program."""
    if not alike:
        return []
    names = Counter(PurePath(each.process.exe or "?").name for each in alike)
    of = ", ".join(f"{count:,} of {printable(name)}" for name, count in names.most_common(_NAMES))
    more = "" if len(names) <= _NAMES else f" and of {plural(len(names) - _NAMES, 'other program')}"
    size = bytes_text(sum(leak.leak_bytes for each in alike for leak in each.leaks))
    which, verb = ("process", "leaks") if len(alike) == 1 else ("processes", "leak")
    text = (
        f"{len(alike):,} more {which} {verb} {size} at these places alone: {of}{more}; --all shows"
    )
    return ["", *ink.wrap(f"{text} {'it' if len(alike) == 1 else 'them'}")]


def _replaced_lines(every: Sequence[Findings], ink: Ink) -> list[str]:
    """Say what was held when one program gave way to another: nobody could look at it there."""
    replaced = [
        each
        for each in every
        if each.process.ended == "replaced by exec" and each.scan is None and each.live_count
    ]
    if not replaced:
        return []
    blocks = sum(each.live_count or 0 for each in replaced)
    size = bytes_text(sum(each.live_bytes or 0 for each in replaced))
    programs = plural(len(replaced), "program that was", "programs that were")
    text = (
        f"{plural(blocks, 'block')} ({size}) of {programs} replaced by exec: whether anything still"
        " pointed to them"
    )
    return ink.paint_all(WARNING, ink.wrap(text, "Not examined: ", "  "))


def _heading(label: str, width: int, rule: str) -> str:
    name = clip_left(printable(label), width - 6, "...")
    return f"{rule * 2} {name} {rule * max(width - cells(name) - 4, 2)}"
