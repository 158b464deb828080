# SPDX-License-Identifier: Apache-2.0
"""The answer on one recording: findings, wrong frees, what adds up to the memory held."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.answers import AccountRow, AccountTable, Answer, Result, Signal, Step, Tone
from leakscope.model.findings import Verdict
from leakscope.report import _coverage
from leakscope.report._places import chief_frame, function_text, location_text
from leakscope.report.answers.places import place_of, stack_of
from leakscope.report.earlier import TITLE, earlier_tables, earlier_texts
from leakscope.report.ink import Ink
from leakscope.report.steps import command_of
from leakscope.report.terminal import next_text, process_text, totals_text, weight_text
from leakscope.report.text import printable
from leakscope.words import bytes_text, confidence_words, duration_text, file_part, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from leakscope.model.answers import Lives, Profile
    from leakscope.model.findings import Finding, Findings, SuppressionUse
    from leakscope.model.frames import Frame
    from leakscope.model.free_errors import FreeError
    from leakscope.model.holders import Holding
    from leakscope.model.tool_errors import FoundError
    from leakscope.report.terminal import SourceContext

__all__ = ["MOST_RESULTS", "of_findings", "to_tell"]

MOST_RESULTS = 1000
"""Findings that are told in full; the rest are rows of the profile."""

_SOURCES = 200  # findings with lines of source
_RADIUS = 4  # lines on each side
_WARNING = frozenset({Verdict.GROWING, Verdict.FILLING, Verdict.UNKNOWN})


def to_tell(findings: Findings) -> list[Finding]:
    """Return the findings that are told in full: leaks first, then what is open, heaviest first."""

    def rank(finding: Finding) -> tuple[bool, bool, bool, int]:
        loud = finding.known is None
        return (
            not finding.is_leak,
            not loud,
            finding.verdict not in _WARNING,
            -finding.leak_bytes,
        )

    return sorted(findings.findings, key=rank)[:MOST_RESULTS]


def of_findings(
    findings: Findings,
    *,
    label: str | None = None,
    command: str = "report",
    typed: str | None = None,
    source_context: SourceContext | None = None,
    base: str | None = None,
    profile: Profile | None = None,
    lives: Mapping[int, Lives] | None = None,
    holders: Mapping[int, Sequence[Holding]] | None = None,
) -> Answer:
    """Return the answer on one recording.

    `label` is the file that a next command names, None where it is not kept; `typed` what was
    run, as a shell takes it. `base` is a directory that paths are shown relative to. `lives` and
    `holders` are by site.
    """
    ink = Ink(10_000, base=base)
    rows = {} if profile is None else {n: i for i, n in enumerate(profile.numbers.tolist())}
    told = to_tell(findings)
    results = [
        _result(
            finding,
            ink,
            source_context if number < _SOURCES else None,
            _command(finding, findings, label),
            None if finding.site is None else rows.get(finding.site),
            (lives or {}).get(finding.site or 0),
            tuple((holders or {}).get(finding.site or 0, ())),
        )
        for number, finding in enumerate(told)
    ]
    wrong = [
        _free_error(error, n, ink, source_context) for n, error in enumerate(findings.free_errors)
    ]
    step = next_text(findings, ink, label, typed)
    return Answer(
        command=command,
        subject=_subject(findings),
        tone=_tone(findings),
        headline=printable(findings.headline),
        about=(printable(process_text(findings)),),
        warnings=tuple(
            printable(each) for each in (*_coverage.problems(findings), *findings.runtimes)
        ),
        steps=(Step(printable(step), _pasted(step)),),
        accounts=_accounts(findings, profile),
        results=tuple(_unique([*wrong, *map(_told_by_tool, findings.errors), *results])),
        left_out=len(findings.findings) - len(told),
        coverage=_told(findings),
        profile=profile,
    )


def _subject(findings: Findings) -> str:
    process = findings.process
    name = PurePath(process.exe or "process").name or "process"
    return printable(f"{name} (pid {process.pid})" if process.pid is not None else name)


def _tone(findings: Findings) -> Tone:
    if findings.leaks or findings.free_errors:
        return Tone.ALARM
    open_ = findings.verdict in (Verdict.FILLING, Verdict.UNKNOWN)
    return Tone.WARNING if open_ or _coverage.problems(findings) else Tone.CALM


def _pasted(step: str) -> str | None:
    command = command_of(step)
    return None if command is None else printable(command)


def _told(findings: Findings) -> tuple[tuple[str, str], ...]:
    """What was held, seen and not seen, as under each report."""
    found = [("Total", totals_text(findings)), ("Coverage", _coverage.summary(findings))]
    found += [("Limit", remark) for remark in _coverage.remarks(findings)]
    if findings.scan is not None:
        found.append(("Scan", _coverage.scan_text(findings.scan)))
    if findings.earlier is not None:
        found += [(TITLE, text) for text in earlier_texts(findings.earlier)]
    found += [("Suppressed", _hidden(use)) for use in findings.suppressions]
    found += [("Note", note) for note in findings.notes]
    return tuple((name, printable(text)) for name, text in found)


def _hidden(use: SuppressionUse) -> str:
    hidden = f"{bytes_text(use.bytes)} in {plural(use.blocks, 'block')}"
    return f"{use.name} ({use.source}) hid {hidden} at {plural(use.sites, 'site')}"


# -- accounts -----------------------------------------------------------------


def _accounts(findings: Findings, profile: Profile | None) -> tuple[AccountTable, ...]:
    found = [_by_verdict(findings), _by_use(profile)]
    known = tuple(account for account in found if account is not None)
    return (*known, *earlier_tables(findings.earlier))


def _by_verdict(findings: Findings) -> AccountTable | None:
    """Where the live bytes belong: each verdict, what is known, and what is no finding."""
    total = findings.live_bytes
    if not total:
        return None
    parts: dict[tuple[str, str, Tone], int] = {}

    def add(name: str, what: str, tone: Tone, size: int) -> None:
        parts[name, what, tone] = parts.get((name, what, tone), 0) + size

    for finding in findings.findings:
        held = finding.live_bytes
        if finding.known is not None:
            add("known", "quiet by default", Tone.CALM, held)
            continue
        if finding.verdict is Verdict.LOST and finding.lost_bytes is not None:
            rest = max(held - finding.lost_bytes, 0)
            add("still pointed to", "at places that lose others", Tone.CALM, rest)
            held -= rest
        tone = Tone.ALARM if finding.is_leak else Tone.CALM
        tone = Tone.WARNING if finding.verdict in _WARNING else tone
        add(str(finding.verdict), "", tone, held)
    rows = [
        AccountRow(name, size, what, tone)
        for (name, what, tone), size in sorted(parts.items(), key=lambda each: -each[1])
        if size
    ]
    rest = total - sum(row.amount for row in rows)
    if rest:
        rows.append(AccountRow("no finding", rest, "mostly given back, small, or one of very many"))
    when = "now" if findings.process.ended == "running" else "at the end"
    return AccountTable("Live memory by verdict", "bytes", tuple(rows), total, f"live {when}")


def _by_use(profile: Profile | None) -> AccountTable | None:
    """Resident memory: what is live, and the rest, as far as both are known of one moment."""
    if profile is None or profile.resident_bytes is None:
        return None
    known = np.flatnonzero(profile.resident_bytes)
    if not len(known):
        return None
    resident, live = (int(each[known[-1]]) for each in (profile.resident_bytes, profile.live_bytes))
    if live > resident:
        return None
    at = duration_text(int(profile.times_ns[known[-1]]))
    title = f"In memory at {at}, without files"
    rows = (
        AccountRow("live blocks", live, "allocated and not freed"),
        AccountRow("all else", resident - live, "free in the allocator, data, stacks"),
    )
    return AccountTable(title, "bytes", rows, resident, "resident")


# -- findings -----------------------------------------------------------------


def _result(
    finding: Finding,
    ink: Ink,
    source_context: SourceContext | None,
    command: str | None,
    row: int | None,
    lives: Lives | None,
    holders: tuple[Holding, ...],
) -> Result:
    frame = chief_frame(finding)
    known = finding.known
    tone = Tone.ALARM if finding.is_leak else Tone.CALM
    if known is None and finding.verdict in _WARNING:
        tone = Tone.WARNING
    remarks = [confidence_words(finding.confidence)] if finding.verdict.is_leak else []
    remarks += [finding.pattern.value] if finding.pattern is not None else []
    stacks = [stack_of("Allocated at", finding.stack, finding.source)] if finding.stack else []
    lines = [
        f"through {place_of(helper).function} at {location_text(helper, ink)}"
        for helper in reversed(finding.through)
    ]
    same = (f"in any build {finding.stable_fingerprint}",) if finding.stable_fingerprint else ()
    return Result(
        key=printable(finding.fingerprint),
        verdict=str(finding.verdict),
        tone=tone,
        title=(function_text(frame) or location_text(frame, ink)) if frame else "(no call stack)",
        where=location_text(frame, ink) if frame else "",
        sentence=printable(finding.sentence),
        amount=finding.leak_bytes,
        amount_text=printable(weight_text([finding], Ink(unicode=True))),
        count=finding.leak_count,
        rate=finding.rate,
        remark=printable(", ".join(remarks)),
        quiet=printable(known) if known is not None else None,
        step=_step(finding, command),
        evidence=tuple(Signal(printable(e.text), e.supports) for e in finding.evidence),
        stacks=tuple(stacks),
        source=_source(finding.source, source_context),
        source_line=finding.source.line if finding.source is not None else None,
        site=row,
        lives=lives,
        holders=tuple(map(_named_holding, holders)),
        lines=tuple(printable(line) for line in lines),
        identities=tuple(printable(each) for each in (f"id {finding.fingerprint}", *same)),
    )


def _step(finding: Finding, command: str | None) -> Step | None:
    if finding.next_step is None and command is None:
        return None
    return Step(printable(finding.next_step or ""), None if command is None else printable(command))


def _named_holding(holding: Holding) -> Holding:
    """Return it with names that move nothing: they are of symbols and files of the program."""
    path = (
        step if step.holder is None else replace(step, holder=printable(step.holder))
        for step in holding.path
    )
    return replace(holding, root=printable(holding.root), path=tuple(path))


def _command(finding: Finding, findings: Findings, label: str | None) -> str | None:
    """Return what tells more of one finding: who holds its blocks, else its whole stack."""
    process = findings.process
    if process.ended == "running" and process.pid is not None and finding.site is not None:
        return f"leakscope scan {process.pid} --held-by {finding.fingerprint}"
    if label is None:
        return None
    return f"leakscope report --verbose {shlex.quote(file_part(label))}"


def _source(
    frame: Frame | None, source_context: SourceContext | None
) -> tuple[tuple[int, str], ...]:
    if source_context is None or frame is None or frame.line is None:
        return ()
    return tuple((n, printable(text.rstrip())) for n, text in source_context(frame, _RADIUS))


def _free_error(
    error: FreeError, number: int, ink: Ink, source_context: SourceContext | None
) -> Result:
    frame = error.source or next(iter(error.stack), None)
    stacks = (
        stack_of("Freed at", error.stack, error.source),
        stack_of("Freed before at", error.first_free),
        stack_of("Allocated at", error.allocation),
    )
    return Result(
        key=f"wrong-free-{number + 1}",
        verdict=error.kind,
        tone=Tone.ALARM,
        title=(function_text(frame) or location_text(frame, ink)) if frame else "(no call stack)",
        where=location_text(frame, ink) if frame else "",
        sentence=printable(error.sentence),
        amount=error.size,
        amount_text=f"{plural(error.count, 'time')}"
        + (", and the program ended in it" if error.fatal else ""),
        count=error.count,
        remark=printable(error.function),
        stacks=tuple(stack for stack in stacks if stack.places),
        source=_source(error.source, source_context),
        source_line=error.source.line if error.source is not None else None,
    )


def _told_by_tool(error: FoundError) -> Result:
    frame = next((each for each in error.stack if each.file is not None), None)
    stacks = (stack_of("At", error.stack),) if error.stack else ()
    return Result(
        key="tool-error",
        verdict=printable(error.kind),
        tone=Tone.WARNING,
        title=printable(error.text),
        where=location_text(frame, Ink(10_000)) if frame is not None else "",
        sentence=printable(error.text),
        amount_text=plural(error.count, "time"),
        count=error.count,
        stacks=stacks,
    )


def _unique(results: Sequence[Result]) -> list[Result]:
    """Give results of equal keys, as of two kinds at one stack, a number each."""
    seen: dict[str, int] = {}
    found = []
    for result in results:
        count = seen[result.key] = seen.get(result.key, 0) + 1
        found.append(result if count == 1 else replace(result, key=f"{result.key}-{count}"))
    return found
