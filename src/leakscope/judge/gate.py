# SPDX-License-Identifier: Apache-2.0
"""What a gate in CI lets pass: what a baseline had already, and what a budget allows.

A finding that passes is quiet, as one that is suppressed; what is new, has grown or is over its
budget stays loud.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from leakscope.errors import UsageError
from leakscope.judge.diff import Looked, Tolerance, changes_of
from leakscope.judge.stands import Knows, knows_of_recording, stand_of, stands_of
from leakscope.judge.suppressions import Glob
from leakscope.model.changes import Change, Side, StackChange
from leakscope.model.findings import BudgetUse, Evidence
from leakscope.model.frames import plain_name
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.findings import Finding
    from leakscope.model.frames import Frame
    from leakscope.model.recordings import Recording

__all__ = ["Budget", "Gate", "Passed"]

_NOBODY = Side((), None, None, None, sampled=False)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a function, with all that it calls, or a place may hold.

    `pattern` is the name of a function, a file, `file:line` or a module, in which `*` is any
    text and `?` any character; any frame of a stack may match.
    """

    pattern: str
    limit_bytes: int
    glob: Glob = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, limit_bytes: int) -> Budget:
        """Return a budget for a pattern. Raises `UsageError` for an empty one."""
        pattern = text.strip()
        if not pattern:
            raise UsageError(
                "a budget needs the name of a function or a place",
                hint="--budget 'parse_row=64KiB', --budget 'table.c:31=1MiB'",
            )
        return cls(pattern, limit_bytes, Glob(pattern))

    def matches(self, stack: Sequence[Frame]) -> bool:
        """Whether the budget is about this stack."""
        return any(
            self.glob.matches(text)
            for frame in stack
            if not frame.artificial
            for text in _texts(frame)
        )


def _texts(frame: Frame) -> list[str]:
    found = [text for text in (frame.function, frame.symbol) if text]
    if frame.function:
        found.append(plain_name(frame.function))
    for path in (frame.file, frame.module_path):
        if path:
            names = (path, path.rsplit("/", 1)[-1])
            found += names
            if path is frame.file and frame.line is not None:
                found += [f"{name}:{frame.line}" for name in names]
    return found


@dataclass(frozen=True, slots=True)
class Passed:
    """Findings as the gate leaves them, what budgets were used, and what there is to say."""

    findings: list[Finding]
    budgets: tuple[BudgetUse, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """A baseline, which is called `name`, and budgets; either may be missing."""

    baseline: Looked | None = None
    name: str = "the baseline"
    budgets: tuple[Budget, ...] = ()
    tolerance: Tolerance | None = None

    def __call__(self, findings: Sequence[Finding], recording: Recording) -> Passed:
        """Say of the findings on one recording which are let pass."""
        found = list(findings)
        notes: list[str] = []
        if self.baseline is not None:
            found = self._since(self.baseline, found, recording, notes)
        found, uses = self._within_budgets(found)
        return Passed(found, tuple(uses), tuple(notes))

    def _since(
        self,
        baseline: Looked,
        findings: list[Finding],
        recording: Recording,
        notes: list[str],
    ) -> list[Finding]:
        knows = knows_of_recording(recording, findings)
        period = recording.coverage.sample_bytes
        after = Looked(stands_of(findings, period), knows, _NOBODY)
        rows = changes_of(baseline, after, self.tolerance)
        of = {row.stable_fingerprint: row for row in rows if row.after is not None}
        found = []
        for finding in findings:
            stand = stand_of(finding, period)
            row = None if stand is None else of.get(stand.stable)
            found.append(finding if row is None else self._marked(finding, row))
        count = {change: sum(row.change is change for row in rows) for change in Change}
        comparable = (baseline.knows.lost and knows.lost) or (baseline.knows.held and knows.held)
        if not comparable:
            notes.append(f"nothing could be compared with {self.name}: {_unlike(baseline.knows)}")
        notes.append(
            f"since {self.name}: {plural(count[Change.NEW], 'stack')} new, {count[Change.GROWN]:,}"
            f" grown, {count[Change.SAME]:,} as before, {count[Change.SHRUNK]:,} less,"
            f" {count[Change.GONE]:,} gone"
        )
        return found

    def _marked(self, finding: Finding, row: StackChange) -> Finding:
        if finding.known is not None:
            return finding
        if row.change in {Change.SAME, Change.SHRUNK}:
            why = "in the baseline" if row.change is Change.SAME else "in the baseline with more"
            return replace(finding, known=why, next_step=None)
        if row.change is Change.NEW:
            text = f"not in {self.name}"
        else:
            blocks = "" if row.count_before is None else f" in {plural(row.count_before, 'block')}"
            text = f"{bytes_text(row.bytes_before)}{blocks} {row.measure} in {self.name}"
        mark = Evidence("baseline", row.bytes_before, text)
        return replace(finding, change=row.change.value, evidence=(mark, *finding.evidence))

    def _within_budgets(self, findings: list[Finding]) -> tuple[list[Finding], list[BudgetUse]]:
        uses = []
        over: set[int] = set()
        within: dict[int, Budget] = {}
        for budget in self.budgets:
            matched = [
                at
                for at, each in enumerate(findings)
                if not (each.known or "").startswith("suppressed") and budget.matches(each.stack)
            ]
            held = sum(findings[at].live_bytes for at in matched)
            use = BudgetUse(budget.pattern, budget.limit_bytes, held, len(matched))
            uses.append(use)
            if use.exceeded:
                over.update(matched)
            else:
                within.update((at, budget) for at in matched)
        found = list(findings)
        for at, budget in within.items():
            if at not in over and found[at].known is None:
                limit = bytes_text(budget.limit_bytes)
                why = f"within the budget of {limit} for {budget.pattern}"
                found[at] = replace(found[at], known=why, next_step=None)
        return found, uses


def _unlike(knew: Knows) -> str:
    told = "what is held" if knew.held else "what is lost" if knew.lost else "neither"
    return f"it tells {told}, and this recording does not"
