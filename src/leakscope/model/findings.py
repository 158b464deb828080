# SPDX-License-Identifier: Apache-2.0
"""What the verdict engine says, and every report shows."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from leakscope.model.columns import Column
from leakscope.model.earlier import Earlier
from leakscope.model.frames import Frame
from leakscope.model.free_errors import FreeError
from leakscope.model.reachability import ScanFacts
from leakscope.model.recordings import MOMENT_NS, Coverage, Process
from leakscope.model.tool_errors import FoundError

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "BudgetUse",
    "Evidence",
    "Finding",
    "Findings",
    "Pattern",
    "SuppressionUse",
    "Verdict",
]


class Verdict(enum.StrEnum):
    """What the evidence says about one subject (see docs/verdicts.md)."""

    LOST = "lost"
    LEAKING = "leaking"
    GROWING = "growing"
    FILLING = "filling"
    BOUNDED = "bounded"
    WARM_UP = "warm-up"
    ONE_OFF = "one-off"
    CHURN = "churn"
    RETAINED = "retained"
    UNKNOWN = "unknown"

    @property
    def is_leak(self) -> bool:
        """Whether this verdict alone makes the run fail (exit code 1)."""
        return self in (Verdict.LOST, Verdict.LEAKING)


class Pattern(enum.StrEnum):
    """How a leak grows."""

    RECURRENT = "recurrent"
    OCCASIONAL = "occasional"
    ONE_OFF = "one-off"
    IMPLICIT = "implicit growth"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measured signal: a stable machine name, its value, and the sentence for people."""

    name: str
    value: float | int | str | bool | None
    text: str
    supports: bool = True  # False: counter-evidence considered


@dataclass(frozen=True, slots=True)
class Finding:
    """One judged subject. Sizes in bytes, rates in bytes per second."""

    subject: str  # "site", "mapping", later "gauge", "cache", "class"
    site: int | None
    kind: str  # "malloc", "new", …
    verdict: Verdict
    pattern: Pattern | None
    confidence: float  # 0..1
    live_bytes: int
    live_count: int | None  # None here and below: the source does not know
    allocs: int | None
    frees: int | None
    rate: float | None  # growth, bytes per second
    rate_low: float | None
    rate_high: float | None
    sentence: str
    next_step: str | None
    evidence: tuple[Evidence, ...]
    stack: tuple[Frame, ...]
    source: Frame | None  # the line to look at: innermost frame of the user's own code
    fingerprint: str  # 16 hex digits, equal across runs and hosts for the same build
    known: str | None = (
        None  # why a finding is quiet by default: "libc one-off", "suppressed: NAME"
    )
    live_bytes_low: int | None = None  # confidence interval of a sampled estimate
    live_bytes_high: int | None = None
    peak_bytes: int | None = None
    lost_count: int | None = None  # blocks nothing points to; None: reachability not examined
    lost_bytes: int | None = None  # of those blocks
    unexamined_count: int | None = None  # living blocks that the scan did not look at
    unexamined_bytes: int | None = None
    stable_fingerprint: str | None = None
    """16 hex digits that a rebuild leaves as they are; None without a call stack."""
    change: str | None = None
    """"new" or "grown" against a baseline, None where it is neither, or there is none."""
    through: tuple[Frame, ...] = ()
    """The allocation helpers between `source` and the allocator, or what it called; innermost first."""

    @property
    def place(self) -> tuple[str, ...]:
        """What findings at one place have in common: the line, else the function, else the stack.

        Every output groups by it, so that all count the same places.
        """
        frame = self.source
        if frame is None or frame.artificial:
            return (self.fingerprint,)
        if frame.file is not None and frame.line is not None:
            return (frame.file, str(frame.line))
        module = frame.build_id or frame.module_path or ""
        name = frame.function or frame.symbol
        if name is not None:
            return (module, name)
        return (module, hex(frame.entry)) if frame.entry is not None else (self.fingerprint,)

    @property
    def is_leak(self) -> bool:
        """Whether this finding makes the run fail: a leak that is not known or suppressed."""
        return self.verdict.is_leak and self.known is None

    @property
    def leak_bytes(self) -> int:
        """What this finding weighs: its lost blocks, else what lives, else what was given back."""
        if self.verdict is Verdict.LOST and self.lost_bytes is not None:
            return self.lost_bytes
        return self.live_bytes or self.peak_bytes or 0

    @property
    def leak_count(self) -> int | None:
        """The blocks that `leak_bytes` are in, None when the source does not count blocks."""
        if self.verdict is Verdict.LOST and self.lost_count is not None:
            return self.lost_count
        return self.live_count


# A recording without a single allocation, and one of these counted: something was there to see.
_NOTHING_SEEN = {
    "paused": "recording was not switched on in time to see anything",
    "table_full": "there was no room to record anything",
    "no_space": "there was no room to record anything",
    "filtered": "every allocation was outside the sizes that were asked for",
}


@dataclass(frozen=True, slots=True)
class SuppressionUse:
    """What one suppression hid."""

    name: str
    source: str  # file:line or "built in"
    sites: int
    blocks: int
    bytes: int
    until: str | None = None  # "2027-03-01": the last day on which it hides anything
    why: str | None = None
    expired: bool = False  # it is later: nothing of this was hidden


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """What is held by what a budget is for."""

    pattern: str
    limit_bytes: int
    bytes: int
    sites: int

    @property
    def exceeded(self) -> bool:
        """Whether more is held than the budget allows."""
        return self.bytes > self.limit_bytes


@dataclass(frozen=True, slots=True)
class Findings:
    """All findings about one recording, heaviest first, ready for any report."""

    process: Process
    coverage: Coverage
    verdict: Verdict | None  # the overall one; None: nothing to report
    headline: str
    findings: tuple[Finding, ...]
    live_bytes: int | None  # None here and below: the source does not know
    live_count: int | None
    peak_bytes: int | None
    total_allocs: int | None
    total_frees: int | None
    total_alloc_bytes: int | None
    duration_ns: int | None
    suppressions: tuple[SuppressionUse, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    runtimes: tuple[str, ...] = ()
    """A sentence for each run-time with a heap of its own that is not seen from here."""
    scan: ScanFacts | None = None  # None: memory was not searched for pointers
    free_errors: tuple[FreeError, ...] = ()
    """Wrong frees, in the order in which they were met first."""
    errors: tuple[FoundError, ...] = ()
    """What another tool found that is no leak."""
    absent: tuple[Column, ...] = ()
    """What the source cannot tell, and was therefore not asked."""
    budgets: tuple[BudgetUse, ...] = ()
    earlier: Earlier | None = None  # what was there before an attach; None: nobody looked
    too_few_samples: bool = False  # of a sampled recording: too few to prove anything

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings that make the run fail."""
        return tuple(f for f in self.findings if f.is_leak)

    def only_leaks(self) -> Self:
        """Return the same with what leaks alone, as if nothing else were held."""
        held = sum(each.live_bytes for each in self.leaks)
        return replace(self, findings=self.leaks, live_bytes=held)

    @property
    def leak_places(self) -> int:
        """How many places leak: findings that differ in their stacks alone are at one place."""
        return len({finding.place for finding in self.leaks})

    @property
    def blind(self) -> str | None:
        """Why this recording says nothing on leaks, although no leak was found; None: it does."""
        coverage = self.coverage
        if "no_leak_check" in coverage.troubles:
            return "the file has no result of a leak check"
        if "left" in coverage.troubles:
            return "recording ended before the program did"
        if "incomplete" in coverage.troubles:
            return "not everything was recorded"
        if "brief" in coverage.troubles:
            return "the trace was too short"
        if self.total_allocs:
            return None
        if "own_malloc" in coverage.troubles:
            return "the program has an allocator of its own, which was not seen"
        why = (text for reason, text in _NOTHING_SEEN.items() if coverage.dropped.get(reason))
        return next(why, None)

    @property
    def undecided(self) -> bool:
        """Whether the evidence says neither that something leaks nor that nothing does.

        Where every block was found to be reachable at the end, growth that is not proven leaves
        nothing open: proven growth of a job is no leak either (`growing`). What lived for a moment
        until it became another program, or as a forked child, is not asked for that.
        """
        process = self.process
        passing = process.forked_from is not None or process.ended == "replaced by exec"
        if passing and (self.duration_ns or 0) < MOMENT_NS:
            return False
        if self.blind is not None:
            return True
        if self.verdict is not Verdict.UNKNOWN:
            return False
        if self.too_few_samples:
            return True
        open_ = [
            finding
            for finding in self.findings
            if finding.known is None
            and finding.verdict is Verdict.UNKNOWN
            and (finding.lost_count is None or finding.unexamined_count)
        ]
        return bool(open_) and sum(f.live_bytes for f in open_) * 10 >= (self.live_bytes or 0)

    def fail(self, verdicts: Collection[str]) -> bool:
        """Whether one of `verdicts` was given to what is neither known nor suppressed, or overall.

        "error" stands for wrong frees, "new" and "grown" for a change against a baseline. An
        exceeded budget fails whatever is asked for.
        """
        if "error" in verdicts and self.free_errors:
            return True
        if any(budget.exceeded for budget in self.budgets):
            return True
        return self.verdict in verdicts or any(
            f.known is None and (f.verdict in verdicts or f.change in verdicts)
            for f in self.findings
        )
