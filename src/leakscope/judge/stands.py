# SPDX-License-Identifier: Apache-2.0
"""What one side of a comparison holds: one entry for each stack that a rebuild leaves as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from leakscope.judge.identities import stable_identity, stable_names
from leakscope.judge.places import is_runtime
from leakscope.model.amounts import sum_known
from leakscope.model.changes import Amount
from leakscope.model.columns import Column
from leakscope.model.findings import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from leakscope.model.findings import Finding, Findings
    from leakscope.model.frames import Frame
    from leakscope.model.recordings import Recording

__all__ = ["OWN_MODES", "Knows", "Name", "Stand", "knows_of", "knows_of_recording", "stand_of"]
__all__ += ["most_of", "stands_of", "sum_of"]

Name = tuple[str, str]
"""A function and the base name of its file, "" where that is not told."""

OWN_MODES = frozenset({"exact", "sampled"})
"""`Coverage.mode` of leakscope's own recordings."""
_MAPPINGS = frozenset({"mmap", "brk"})
_NORMAL = 1.96  # standard errors of a 95 % interval


@dataclass(frozen=True, slots=True)
class Stand:
    """What is held at the stacks of one stable identity. Sizes in bytes.

    `variance` is that of the estimate of `held_bytes`, 0 where it is exact. `cut` tells that
    outer frames may be missing, `quiet` that it is known or suppressed. None: not known.
    """

    stable: str
    kind: str
    names: tuple[Name, ...]
    cut: bool
    held_bytes: int
    held_count: int | None
    lost_bytes: int | None
    lost_count: int | None
    variance: float
    quiet: bool
    verdict: str
    stack: tuple[Frame, ...] = field(repr=False)
    source: Frame | None = field(repr=False)

    @property
    def mapping(self) -> bool:
        """Whether the kernel gave it, rather than an allocator."""
        return self.kind in _MAPPINGS

    @property
    def amount(self) -> Amount:
        """The numbers alone."""
        low = high = None
        if self.variance > 0:
            spread = _NORMAL * math.sqrt(self.variance)
            low, high = max(int(self.held_bytes - spread), 0), int(self.held_bytes + spread)
        return Amount(self.held_bytes, self.held_count, self.lost_bytes, self.lost_count, low, high)


@dataclass(frozen=True, slots=True)
class Knows:
    """What a side can tell of every stack: what is held there, and what of it is lost."""

    held: bool
    lost: bool
    sample_bytes: int | None = None  # mean bytes between samples, None where it is exact


def knows_of(every: Sequence[Findings]) -> Knows:
    """Return what all of these recordings can tell."""
    periods = [each.coverage.sample_bytes for each in every if each.coverage.sample_bytes]
    return Knows(
        all(_knows_held(each) for each in every),
        all(_knows_lost(each) for each in every),
        max(periods, default=None),
    )


def _knows_held(findings: Findings) -> bool:
    if Column.LIVE_BYTES in findings.absent:
        return False
    if findings.coverage.mode in OWN_MODES or not findings.findings:
        return True
    return _tells_more_than_lost(findings.findings)


def _knows_lost(findings: Findings) -> bool:
    if findings.findings:
        return all(each.lost_bytes is not None for each in findings.findings)
    return findings.scan is not None or (
        findings.coverage.mode not in OWN_MODES and findings.blind is None
    )


def knows_of_recording(recording: Recording, findings: Sequence[Finding]) -> Knows:
    """Return what one recording can tell, whose findings are not put together yet."""
    held = recording.knows(Column.LIVE_BYTES) and (
        recording.coverage.mode in OWN_MODES or not findings or _tells_more_than_lost(findings)
    )
    lost = recording.reachability is not None or recording.site_reach is not None
    return Knows(held, lost, recording.coverage.sample_bytes)


def _tells_more_than_lost(findings: Iterable[Finding]) -> bool:
    """A leak checker lists what it calls lost, and nothing of what is in use."""
    return any(each.lost_bytes is None or each.lost_bytes < each.live_bytes for each in findings)


def stands_of(findings: Iterable[Finding], period: int | None) -> dict[str, Stand]:
    """Return what one process holds, by stable identity; `period` is the mean bytes of a sample."""
    found: dict[str, list[Stand]] = {}
    for finding in findings:
        stand = stand_of(finding, period)
        if stand is not None:
            found.setdefault(stand.stable, []).append(stand)
    return {stable: sum_of(stands) for stable, stands in found.items()}


def sum_of(stands: Sequence[Stand]) -> Stand:
    """Return what several hold together, under the stack of the heaviest. Not of none."""
    if len(stands) == 1:
        return stands[0]
    chief = max(stands, key=lambda each: each.held_bytes)
    return Stand(
        stable=chief.stable,
        kind=chief.kind,
        names=chief.names,
        cut=chief.cut,
        held_bytes=sum(each.held_bytes for each in stands),
        held_count=sum_known(each.held_count for each in stands),
        lost_bytes=sum_known(each.lost_bytes for each in stands),
        lost_count=sum_known(each.lost_count for each in stands),
        variance=sum(each.variance for each in stands),
        quiet=all(each.quiet for each in stands),
        verdict=_worst(each.verdict for each in stands),
        stack=chief.stack,
        source=chief.source,
    )


def most_of(stands: Sequence[Stand]) -> Stand:
    """Return the most that one of several holds, and has lost. Not of none."""
    chief = max(stands, key=lambda each: each.held_bytes)
    lost = max(stands, key=lambda each: each.lost_bytes or 0)
    counts = [each.held_count for each in stands]
    return replace(
        chief,
        held_count=None if None in counts else max(count or 0 for count in counts),
        lost_bytes=lost.lost_bytes,
        lost_count=lost.lost_count,
        quiet=all(each.quiet for each in stands),
        verdict=_worst(each.verdict for each in stands),
    )


def _worst(verdicts: Iterable[str]) -> str:
    order = [each.value for each in Verdict]
    return min(verdicts, key=lambda each: order.index(each) if each in order else len(order))


def stand_of(finding: Finding, period: int | None) -> Stand | None:
    """Return what one finding holds, None where that is nothing."""
    held = finding.live_bytes
    if finding.verdict is Verdict.LEAKING and not held:
        held = finding.leak_bytes  # what it gave back at the very end
    if not held and not finding.live_count:
        return None
    return Stand(
        stable=finding.stable_fingerprint or stable_identity(finding.stack, finding.kind),
        kind=finding.kind,
        names=_names(finding.stack),
        cut=_is_cut(finding.stack),
        held_bytes=held,
        held_count=finding.live_count,
        lost_bytes=finding.lost_bytes,
        lost_count=finding.lost_count,
        variance=_variance(finding, period),
        quiet=finding.known is not None,
        verdict=finding.verdict.value,
        stack=finding.stack,
        source=finding.source,
    )


def _names(stack: Sequence[Frame]) -> tuple[Name, ...]:
    files: dict[str, str] = {}
    for frame in stack:
        for name in stable_names((frame,)):
            files.setdefault(name, (frame.file or "").rsplit("/", 1)[-1])
    return tuple((name, files.get(name, "")) for name in stable_names(stack))


def _is_cut(stack: Sequence[Frame]) -> bool:
    """Whether outer frames may be missing: it ends neither in main nor where a thread begins."""
    if not stack or stack[-1].artificial:
        return True
    last = stack[-1]
    return not is_runtime(last) and (last.function or last.symbol) != "main"


def _variance(finding: Finding, period: int | None) -> float:
    """The variance of an estimate of live bytes, from its interval or how it was sampled."""
    held = float(finding.live_bytes)
    if held <= 0:
        return 0.0
    if finding.live_bytes_high is not None:
        return held * held / _samples(finding.live_bytes_high / held)
    if not period:
        return 0.0
    count = finding.live_count or max(round(held / period), 1)
    chance = -math.expm1(-held / count / period)
    return held * held / max(count * chance, 0.5)


def _samples(ratio: float) -> float:
    """Return how many samples an estimate stands for, from the upper end of its interval to it.

    The interval is that of a Poisson count in the form of Wilson and Hilferty.
    """
    low, high = 0.05, 1e12
    for _ in range(80):
        n = math.sqrt(low * high)
        m = n + 1
        upper = m / n * (1 - 1 / (9 * m) + _NORMAL / (3 * math.sqrt(m))) ** 3
        if upper > ratio:
            low = n
        else:
            high = n
    return math.sqrt(low * high)
