# SPDX-License-Identifier: Apache-2.0
"""Findings as text for a person at a terminal: the verdict first, then where and why.

The order is fixed: one line with the verdict, the process, each finding by weight (place,
sentence, source lines, stack, evidence, next step), what is quiet, then what the
recording saw and did not see. Plain ASCII or Unicode, with or without colour; no line is
wider than asked except for the path of the line to look at, which is never cut.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.model.amounts import sum_known
from leakscope.model.findings import Evidence, Finding, Findings, Verdict
from leakscope.model.remarks import KERNEL
from leakscope.report import _coverage
from leakscope.report._places import (
    SourceContext,
    both_within,
    callers_lines,
    chief_frame,
    function_text,
    location_text,
    place_lines,
    relative,
    source_lines,
    stack_lines,
)
from leakscope.report.earlier import TITLE, earlier_texts
from leakscope.report.free_errors import free_error_lines, free_error_summary
from leakscope.report.ink import ALARM, CALM, STEP, WARNING, Ink
from leakscope.report.steps import step_lines
from leakscope.report.text import cells, printable
from leakscope.report.tool_errors import tool_error_lines
from leakscope.words import (
    bytes_text,
    confidence_words,
    count_text,
    duration_text,
    file_part,
    interval_text,
    plural,
    rate_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["SourceContext", "next_lines", "next_text", "process_text", "render"]
__all__ += ["render_brief", "totals_text", "weight_text"]

_INDENT = "   "
_NARROWEST = 40
_SCREEN = 24  # lines; a longer report repeats its verdict at the end
_OVERVIEW = 3  # findings from which a list of them comes first
_UNDECIDED = 5  # rows of undecided sites before the rest is summed up
_SIGNALS = 4  # supporting signals shown unless everything is asked for

_LIBRARIES = ("libc ", "loader ", "libstdc++ ")  # whose known one-offs are quiet

# Not a leak on their own, but worth a look: in a table each, with what would settle it.
_GROWTH = {
    Verdict.GROWING: "Grew until {end}, as a job does that loads, works and ends",
    Verdict.FILLING: "Still filling up, ever more slowly",
}


def render(
    findings: Findings,
    *,
    width: int = 80,
    colour: bool = False,
    source_context: SourceContext | None = None,
    limit: int = 10,
    show_known: bool = False,
    verbose: bool = False,
    unicode: bool = True,
    base: str | None = None,
    recording: str | None = "FILE",
    command: str | None = None,
) -> str:
    """Return the report on one process, ending in a newline.

    `limit` is the number of findings shown in full, `show_known` adds the quiet ones,
    `verbose` keeps every frame and every piece of evidence. `base` is a directory that
    source paths are shown relative to, `recording` the file that a next command would name, None
    where it is not kept; `command` is what was run, as a shell takes it, where that is known.
    """
    ink = Ink(max(width, _NARROWEST), colour, unicode, base)
    limit = max(limit, 0)
    loud = [f for f in findings.findings if f.is_leak]
    growth = [f for f in findings.findings if f.known is None and f.verdict in _GROWTH]
    undecided = [f for f in findings.findings if f.known is None and f.verdict is Verdict.UNKNOWN]
    shown = {id(f) for f in (*loud, *growth, *undecided)}
    quiet = [f for f in findings.findings if id(f) not in shown]

    lines = [*_headline(findings, ink), *free_error_summary(findings.free_errors, ink)]
    lines += _process(findings, ink)
    lines += next_lines(findings, ink, recording, command)
    for runtime in findings.runtimes:
        lines += ink.wrap(printable(runtime), "Note: ", "  ")
    for problem in _coverage.problems(findings):
        lines += ink.paint_all(WARNING, ink.wrap(problem, "warning: ", "  "))
    groups = _group([*loud, *growth, *undecided] if verbose else loud)
    if len(groups) >= _OVERVIEW:
        lines += ["", *_overview(groups[:limit], ink)]
    for number, group in enumerate(groups[:limit], 1):
        lines += ["", *_finding(number, group, ink, source_context, verbose)]
    if groups[limit:]:
        lines += ["", *_rest(groups, limit, ink)]
    if not verbose:
        end = "now" if findings.process.ended == "running" else "the end"
        for verdict, title in _GROWTH.items():
            members = [f for f in growth if f.verdict is verdict]
            lines += _undecided(title.format(end=end), members, ink, limit)
        lines += _undecided("Not enough data to judge", undecided, ink, limit)
    lines += free_error_lines(findings.free_errors, ink, limit=limit, verbose=verbose)
    lines += tool_error_lines(findings, ink, limit=limit, verbose=verbose)
    if show_known:
        for title, members in _by_verdict(quiet):
            lines += ["", *_table(title, members, ink, limit)]
    lines += ["", *_totals(findings, ink)]
    if quiet and not show_known:
        lines += _hidden(quiet, ink)
    lines += _suppressions(findings, ink)
    lines += ink.wrap(_coverage.summary(findings), "Coverage: ", "  ")
    for remark in _coverage.remarks(findings):
        lines += ink.wrap(remark, "  ", "    ")
    if findings.scan is not None:
        lines += ink.wrap(_coverage.scan_text(findings.scan), "Scan: ", "  ")
    if findings.earlier is not None:
        told, fate = earlier_texts(findings.earlier)
        lines += [*ink.wrap(told, f"{TITLE}: ", "  "), *ink.wrap(fate, "  ", "    ")]
    for note in findings.notes:
        lines += ink.wrap(note, "Note: ", "  ")
    if len(lines) > _SCREEN:
        lines += ["", *_headline(findings, ink)]
    return "\n".join(lines) + "\n"


def render_brief(findings: Findings, *, width: int = 80, colour: bool = False) -> str:
    """Return one or two lines on a process about which there is little to say."""
    ink = Ink(max(width, _NARROWEST), colour)
    lines = [*_headline(findings, ink), *free_error_summary(findings.free_errors, ink)]
    for problem in _coverage.problems(findings):
        lines += ink.paint_all(WARNING, ink.wrap(problem, "  warning: ", "    "))
    return "\n".join(lines) + "\n"


def next_lines(
    findings: Findings, ink: Ink, recording: str | None, command: str | None = None
) -> list[str]:
    """Return `next_text` as lines: for the first screen, whatever follows."""
    return step_lines(next_text(findings, ink, recording, command), ink)


def next_text(
    findings: Findings, ink: Ink, recording: str | None, command: str | None = None
) -> str:
    """Say what to look at, and the command to type.

    `recording` is the file to name in it, None where it is not kept; `command` what was run.
    """
    verdicts = (*_GROWTH, Verdict.UNKNOWN)
    quiet = [f for f in findings.findings if f.known is None and f.verdict in verdicts]
    members = [*findings.leaks, *quiet]
    if findings.process.exe == KERNEL:
        return _kernel_step(members, ink, brief="brief" in findings.coverage.troubles)
    sampled = findings.coverage.mode == "sampled" and findings.verdict is Verdict.UNKNOWN
    if recording is not None:
        recording = file_part(recording)
        if findings.process.ended == "running":  # labelled "process 1234", and named by its number
            recording = recording.removeprefix("process ")
    undecided = findings.verdict in (Verdict.UNKNOWN, Verdict.GROWING, Verdict.FILLING)
    again = command or _program(findings, ink)
    # What was logged from within can hardly be traced otherwise: it is linked statically, or afar.
    logged = findings.coverage.mode == "leakscope.h"
    run = "leakscope report leakscope.PID.log" if logged else f"leakscope run -- {again}"
    told = findings.coverage.mode not in {"exact", "sampled"} and not logged  # by another tool
    if told and not findings.leaks and (undecided or findings.blind is not None):
        name = shlex.quote(Path(findings.process.exe or "").name or "PID")
        text = f"look at it where it runs (leakscope find {name}), or trace it here: {run}"
    elif findings.process.is_kernel and not (members and members[0].is_leak):
        start = "see what grows" if undecided else "nothing to mend; what grows"
        text = f"{start}: sudo leakscope kernel watch --for 1h"
    elif not members and not undecided:
        what = f"try other inputs: {run}"
        if findings.findings and recording is not None:
            what = f"what is held: leakscope report --all {shlex.quote(recording)}"
        over = next((each for each in findings.budgets if each.exceeded), None)
        if over is not None:
            start = f"raise the budget, or hold less in {over.pattern}"
        else:
            wrong = findings.free_errors or findings.errors
            start = "mend the errors below" if wrong else "nothing to mend"
        text = f"{start}; {what}"
    elif members and members[0].is_leak:
        frame = chief_frame(members[0])
        place = "" if frame is None else location_text(frame, ink) or frame.function or ""
        where = f"look at {printable(place)}; " if place else ""
        text = f"{where}whole stacks: leakscope report --verbose {shlex.quote(recording or 'FILE')}"
    elif findings.process.ended == "running" and findings.process.pid is not None:
        text = f"see how it goes on: leakscope watch {findings.process.pid}"
    else:
        what = "record every allocation" if sampled else "run it for longer, or on more input"
        text = f"{what}: {run}"
    return text


def _kernel_step(members: Sequence[Finding], ink: Ink, *, brief: bool) -> str:
    """Return the next step after a trace of the kernel, of which `members` are not settled."""
    if not members and not brief:
        return "nothing to mend; --all shows what is held"
    if not members or not members[0].is_leak:
        return "trace for longer: leakscope kernel trace --for 10m"
    frame = chief_frame(members[0])
    where = (
        "" if frame is None else f"look at {function_text(frame) or location_text(frame, ink)}; "
    )
    return f"{where}--verbose shows whole stacks"


def _program(findings: Findings, ink: Ink) -> str:
    """Return the program as a shell takes it; its arguments are not recorded."""
    path = relative(findings.process.exe or "PROGRAM", ink)
    return shlex.quote(path if "/" in path or path == "PROGRAM" else f"./{path}")


# -- head ---------------------------------------------------------------------


def _headline(findings: Findings, ink: Ink) -> list[str]:
    code = CALM
    if findings.leaks:
        code = ALARM
    elif findings.verdict in (Verdict.FILLING, Verdict.UNKNOWN) or _coverage.problems(findings):
        code = WARNING
    return ink.paint_all(code, ink.wrap(findings.headline, "leakscope: ", "  "))


def _process(findings: Findings, ink: Ink) -> list[str]:
    return [ink.dim(line) for line in ink.wrap(process_text(findings), "", "  ")]


def process_text(findings: Findings) -> str:
    """Return whose recording it is, for how long it ran, and how it ended."""
    process = findings.process
    name = _name(findings)
    text = f"{name} (pid {process.pid})" if process.pid is not None else name
    if findings.duration_ns is not None:
        text += f", ran {duration_text(findings.duration_ns)}"
    if process.ended == "exited" and process.exit_status is not None:
        text += f", exited with status {process.exit_status}"
    elif process.ended == "running":
        text += ", still running"
    elif process.ended:
        text += f", {process.ended}"
    return text


def _name(findings: Findings) -> str:
    return (findings.process.exe or "").rsplit("/", 1)[-1] or "process"


def _overview(groups: Sequence[Sequence[Finding]], ink: Ink) -> list[str]:
    digits = len(str(len(groups)))
    lines = []
    for number, group in enumerate(groups, 1):
        size = bytes_text(sum(f.leak_bytes for f in group))
        head = f"  {number:>{digits}}. {group[0].verdict.value:<8} {size:>9}  "
        lines.append(head + _where(group[0], ink.width - cells(head), ink))
    return lines


# -- one finding --------------------------------------------------------------


def _group(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Put findings at the same place together; leaks first, the heaviest place first."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        kind = "leak" if finding.is_leak else finding.verdict
        groups.setdefault((kind, finding.place), []).append(finding)
    weights = {key: -sum(f.leak_bytes for f in members) for key, members in groups.items()}
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0] != "leak", weights[key]))]


def _finding(
    number: int,
    group: Sequence[Finding],
    ink: Ink,
    source_context: SourceContext | None,
    verbose: bool,
) -> list[str]:
    first, others = group[0], group[1:]
    lines = _title(number, first, ink)
    lines += [ink.bold(line) for line in ink.wrap(weight_text(group, ink), _INDENT)]
    lines += place_lines(first, ink)
    lines += ink.wrap(_said(group), _INDENT)
    lines += source_lines(first, ink, source_context) or [""]
    lines += stack_lines(first, ink, whole=verbose)
    if others:
        lines += callers_lines(group, ink, whole=verbose)
    signals = _telling(first.evidence, len(first.evidence) if verbose else _SIGNALS)
    if signals:
        lines.append("")
    if signals and others:
        text = f"of the heaviest stack, {_portion(first, group)}:"
        lines += [ink.dim(line) for line in ink.wrap(text, _INDENT)]
    for signal in signals:
        lines += ink.wrap(signal.text, f"{_INDENT}{'+' if signal.supports else '-'} ", "     ")
    if first.next_step:
        lines += ink.paint_all(STEP, ink.wrap(first.next_step, f"{_INDENT}Next: ", "     "))
    same = (
        f", in any build {printable(first.stable_fingerprint)}" if first.stable_fingerprint else ""
    )
    lines.append(ink.dim(f"{_INDENT}id {printable(first.fingerprint)}{same}"))
    return lines


def _portion(first: Finding, group: Sequence[Finding]) -> str:
    count, all_of = first.leak_count, sum_known(f.leak_count for f in group)
    return f"{count_text(count)} of the {plural(all_of, 'block')}"


def _telling(evidence: Sequence[Evidence], most: int) -> list[Evidence]:
    """The first few signals, and all that speak against the verdict."""
    return [e for e in evidence if e.supports][:most] + [e for e in evidence if not e.supports]


def _title(number: int, finding: Finding, ink: Ink) -> list[str]:
    verdict = finding.verdict.value.upper()
    said = [confidence_words(finding.confidence)] if finding.verdict.is_leak else []
    said += [finding.pattern.value] if finding.pattern is not None else []
    lines = ink.wrap(ink.dot.join([verdict, *said]), f"{number}. ", _INDENT)
    painted = ink.paint(ALARM if finding.is_leak else WARNING, verdict)
    return [lines[0].replace(verdict, painted, 1), *lines[1:]]


def _said(group: Sequence[Finding]) -> str:
    """What happened, of all stacks together where their sum is shown: never "all 30" of 60."""
    first = group[0]
    if len(group) == 1:
        return first.sentence
    others = [f for f in group if f.verdict is not Verdict.LOST]
    if others == list(group):
        return f"Of the heaviest of {len(group):,} stacks: {first.sentence}"
    if others:
        gone = [f for f in group if f.verdict is Verdict.LOST]
        return f"{_said(gone)} Not lost, but not freed either: {_said(others)}"
    lost = sum_known(f.leak_count for f in group)
    live = sum_known(f.live_count for f in group)
    if lost is None:
        of = "All" if lost == live else "Some"
    else:
        of = f"All {lost:,}" if live in (lost, None) else f"{lost:,} of {live:,}"
    text = f"{of} blocks from here are lost, by {len(group):,} stacks: nothing points"
    text += " to them any more, or only other lost blocks do."
    unknown = sum(f.unexamined_count or 0 for f in group)
    return f"{text} {unknown:,} more were not examined." if unknown else text


def weight_text(group: Sequence[Finding], ink: Ink) -> str:
    """Return live bytes and blocks with their growth; intervals only where they are not summed."""
    alone = group[0] if len(group) == 1 else None
    live = sum(f.live_bytes for f in group), sum_known(f.live_count for f in group)
    count = sum_known(f.leak_count for f in group)
    part = count is not None and live[1] is not None and count < live[1]
    text = f"{bytes_text(sum(f.leak_bytes for f in group))} in {plural(count, 'block')}"
    if part:
        text += f", of {bytes_text(live[0])} in {count_text(live[1])}"
    if not any(f.live_bytes for f in group):
        text = f"{bytes_text(sum(f.peak_bytes or 0 for f in group))} at the peak, freed at the end"
    if (
        alone
        and alone.live_bytes_low is not None
        and alone.live_bytes_high is not None
        and not part
    ):
        low, high = bytes_text(alone.live_bytes_low), bytes_text(alone.live_bytes_high)
        text = f"about {text} ({interval_text(low, high)})"
    rates = [f.rate for f in group if f.rate is not None]
    if rates:
        rate = sum(rates)
        verb = "growing" if rate >= 0 else "shrinking"
        text += f"{ink.dot}{verb} {rate_text(abs(rate))}"
        if alone and alone.rate_low is not None and alone.rate_high is not None and rate >= 0:
            low, high = rate_text(alone.rate_low), rate_text(alone.rate_high)
            text += f" ({interval_text(low, high)})"
    return f"{text}{ink.dot}{', '.join(sorted({f.kind for f in group}))}"


# -- tables and the end -------------------------------------------------------


def _where(finding: Finding, room: int, ink: Ink) -> str:
    """Function and location of a finding in `room` columns; the location has precedence."""
    frame = chief_frame(finding)
    if frame is None:
        return "(no call stack)"
    return both_within(function_text(frame) or "", location_text(frame, ink), room, ink)


def _undecided(title: str, members: Sequence[Finding], ink: Ink, limit: int) -> list[str]:
    """A table of what is no leak so far, and the step that would settle it."""
    if not members:
        return []
    lines = ["", *_table(title, members, ink, min(limit, _UNDECIDED))]
    step = next((f.next_step for f in members if f.next_step), None)
    if step:
        lines += ink.paint_all(STEP, ink.wrap(step, "  Next: ", "    "))
    return lines


def _table(title: str, members: Sequence[Finding], ink: Ink, limit: int) -> list[str]:
    size = bytes_text(sum(f.leak_bytes for f in members))
    what = "live" if any(f.live_bytes for f in members) else "at the peak"
    text = f"{title}: {plural(len(members), 'site')}, {size} {what}"
    lines = [ink.bold(line) for line in ink.wrap(text, "", "  ")]
    for finding in members[:limit]:
        blocks = f"in {plural(finding.leak_count, 'block')}" if finding.leak_count else "given back"
        if finding.leak_count is None:
            blocks = ""
        head = f"  {bytes_text(finding.leak_bytes):>8} {blocks:<16} "
        lines.append(head + _where(finding, ink.width - cells(head), ink))
    if members[limit:]:
        lines.append(ink.dim(f"  {ink.ellipsis} and {count_text(len(members) - limit)} more"))
    return lines


def _rest(groups: Sequence[Sequence[Finding]], limit: int, ink: Ink) -> list[str]:
    members = [f for group in groups[limit:] for f in group]
    more = "leaking" if all(f.is_leak for f in members) else "suspicious"
    places = plural(len(groups) - limit, f"more {more} place")
    size = bytes_text(sum(f.leak_bytes for f in members))
    verb = "holds" if len(groups) - limit == 1 else "hold"
    return ink.wrap(f"{places} {verb} {size}; --limit {len(groups)} shows all", "", "  ")


def _by_verdict(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    tables: dict[str, list[Finding]] = {}
    for finding in findings:
        title = finding.verdict.value if finding.known is None else f"quiet, {finding.known}"
        tables.setdefault(title[:1].upper() + title[1:], []).append(finding)
    return list(tables.items())


def _totals(findings: Findings, ink: Ink) -> list[str]:
    return ink.wrap(totals_text(findings), "Total: ", "  ")


def totals_text(findings: Findings) -> str:
    """Return what was held and allocated in all; what the source does not know is left out."""
    allocs, frees, live = findings.total_allocs, findings.total_frees, findings.live_bytes
    known = None not in (allocs, frees, findings.live_count)
    if known and not (allocs or frees or findings.live_count):
        return "no allocation was seen"
    when = "now" if findings.process.ended == "running" else "at the end"
    held, events = [], []
    if live is not None:
        text = "nothing live"
        if live or findings.live_count:
            blocks = findings.live_count
            text = f"{bytes_text(live)} live"
            text += f" in {plural(blocks, 'block')}" if blocks is not None else ""
        held.append(f"{text} {when}")
    if findings.peak_bytes is not None:
        held.append(f"peak {bytes_text(findings.peak_bytes)}")
    if allocs is not None:
        size = findings.total_alloc_bytes
        of = f" of {bytes_text(size)}" if size is not None else ""
        events.append(plural(allocs, "allocation") + of)
    if frees is not None:
        events.append(plural(frees, "free"))
    text = "; ".join(", ".join(parts) for parts in (held, events) if parts)
    return text or "not known from this source"


def _hidden(quiet: Sequence[Finding], ink: Ink) -> list[str]:
    """Say in one line what was judged harmless, so that nothing goes unsaid."""
    parts: dict[str, list[Finding]] = {}
    for finding in quiet:
        name = finding.verdict.value if finding.known is None else _quiet_name(finding.known)
        parts.setdefault(name, []).append(finding)
    text = ", ".join(
        f"{count_text(len(members))} {name} ({bytes_text(sum(f.leak_bytes for f in members))})"
        for name, members in parts.items()
    )
    return ink.wrap(f"{text}; --all shows them", "Not shown: ", "  ")


def _quiet_name(known: str) -> str:
    if known.startswith("run-time: "):
        return f"of {known.removeprefix('run-time: ')} itself"
    for passed in ("suppressed", "in the baseline", "within the budget"):
        if known.startswith(passed):
            return passed
    return "kept by libraries" if known.startswith(_LIBRARIES) else "known"


def _suppressions(findings: Findings, ink: Ink) -> list[str]:
    lines = []
    for use in findings.suppressions:
        if use.expired:
            why = f" ({use.why})" if use.why else ""
            text = (
                f"{use.name} ({use.source}) was to hold until {use.until}{why}: it no longer hides"
                f" {bytes_text(use.bytes)} at {plural(use.sites, 'site')}"
            )
            lines += ink.paint_all(WARNING, ink.wrap(text, "Expired: ", "  "))
            continue
        text = (
            f"{use.name} ({use.source}) hid {bytes_text(use.bytes)} in "
            f"{plural(use.blocks, 'block')} at {plural(use.sites, 'site')}"
        )
        if use.until is not None:
            text += f", until {use.until}"
        lines += ink.wrap(text, "Suppressed: ", "  ")
    for budget in findings.budgets:
        over = "over budget: " if budget.exceeded else ""
        text = (
            f"{over}{budget.pattern} holds {bytes_text(budget.bytes)} at"
            f" {plural(budget.sites, 'site')} and may hold {bytes_text(budget.limit_bytes)}"
        )
        wrapped = ink.wrap(text, "Budget: ", "  ")
        lines += ink.paint_all(WARNING, wrapped) if over else wrapped
    return lines
