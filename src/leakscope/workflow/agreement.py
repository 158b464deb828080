# SPDX-License-Identifier: Apache-2.0
"""Put what two tools found in one program side by side: by stable stack, and why they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.drive.traits import Traits, traits
from leakscope.model.agreements import Agreement, Opinion, SideBySide
from leakscope.model.findings import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from leakscope.model.findings import Finding, Findings

__all__ = ["compare_findings"]

_NEAR = 0.02  # share by which exact numbers of two runs may differ
_SAMPLED = 0.5
_ROUNDED = 0.35  # the size classes of allocators are at most a quarter apart; and a header
_MAPPINGS = frozenset({"mmap", "brk"})
_NEW = frozenset({"new", "new[]"})


@dataclass(slots=True)
class _Place:
    """All findings of one side at one place."""

    findings: list[Finding]

    @property
    def first(self) -> Finding:
        return max(self.findings, key=lambda each: each.live_bytes)

    @property
    def lost(self) -> bool:
        return any(each.verdict is Verdict.LOST for each in self.findings)

    def opinion(self, *, known: bool) -> Opinion:
        """`known`: whether the tool tells what is lost from what is held."""
        lost = [each for each in self.findings if each.verdict is Verdict.LOST]
        chosen = lost or self.findings
        size = sum(each.leak_bytes if lost else each.live_bytes for each in chosen)
        counts = [each.leak_count if lost else each.live_count for each in chosen]
        count = None if None in counts else sum(each or 0 for each in counts)
        verdict = str(self.first.verdict) if known or lost else "held"
        return Opinion("lost" if lost else verdict, size, count)


def compare_findings(ours: Findings, theirs: Findings, tool: str) -> Agreement:
    """Return what leakscope and `tool` say of one program, each in a run of its own."""
    nature = traits(tool)
    mine = [each for each in ours.findings if each.known is None]
    other = [each for each in theirs.findings if each.known is None]
    pairs = _pairs(mine, other, nature)
    sampled = ours.coverage.sample_bytes is not None or theirs.coverage.sample_bytes is not None
    placeless = any(not _has_place(each) for each in other)
    rows = [_row(pair, tool, nature, sampled=sampled, placeless=placeless) for pair in pairs]
    rows.sort(key=lambda row: (row.agree, -max(_size(row.ours), _size(row.theirs))))
    notes = [
        "each tool had a run of its own: what depends on time, input or addresses may differ for that"
    ]
    quiet = len(ours.findings) - len(mine), len(theirs.findings) - len(other)
    if any(quiet):
        notes.append(
            "left out, because libraries keep them or a suppression names them:"
            f" {quiet[0]:,} of leakscope's places and {quiet[1]:,} of {tool}'s"
        )
    if nature.callers == 1:
        notes.append(
            f"{tool} has one caller of each block: it is matched by function, not by stack"
        )
    if not nature.looks:
        notes.append(f"{tool} does not look for pointers: it cannot tell what is lost")
    return Agreement(
        tool, ours.headline, theirs.headline, tuple(rows), (*notes, *theirs.coverage.notes)
    )


def _size(opinion: Opinion | None) -> int:
    return 0 if opinion is None else opinion.bytes


@dataclass(frozen=True, slots=True)
class _Pair:
    ours: _Place | None
    theirs: _Place | None
    by_function: bool = False


def _pairs(ours: Sequence[Finding], theirs: Sequence[Finding], nature: Traits) -> list[_Pair]:
    """Match by stable stack first; what is left, by the function that asked for the memory."""
    found: list[_Pair] = []
    left = list(ours), list(theirs)
    keys: tuple[tuple[Callable[[Finding], str | None], bool], ...] = (
        (lambda each: each.stable_fingerprint, False),
        (_function, True),
    )
    for key, by_function in keys[1:] if nature.callers == 1 else keys:
        mine, other = _by(left[0], key), _by(left[1], key)
        both = mine.keys() & other.keys()
        found += [_Pair(_Place(mine[k]), _Place(other[k]), by_function) for k in sorted(both)]
        left = (
            [each for each in left[0] if key(each) not in both],
            [each for each in left[1] if key(each) not in both],
        )
    found += [_Pair(_Place(each), None) for each in _apart(left[0])]
    found += [_Pair(None, _Place(each)) for each in _apart(left[1])]
    return found


def _by(
    findings: Iterable[Finding], key: Callable[[Finding], str | None]
) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for each in findings:
        name = key(each)
        if name is not None:
            found.setdefault(name, []).append(each)
    return found


def _apart(findings: Sequence[Finding]) -> list[list[Finding]]:
    rows = _by(findings, lambda each: each.stable_fingerprint or each.fingerprint)
    return list(rows.values())


def _function(finding: Finding) -> str | None:
    frame = finding.source or next(iter(finding.stack), None)
    name = None if frame is None else frame.function or frame.symbol
    return None if name is None else name.split("(")[0]


def _has_place(finding: Finding) -> bool:
    return any(frame.function or frame.symbol for frame in finding.stack)


def _row(pair: _Pair, tool: str, nature: Traits, *, sampled: bool, placeless: bool) -> SideBySide:
    mine = None if pair.ours is None else pair.ours.opinion(known=True)
    other = None if pair.theirs is None else pair.theirs.opinion(known=nature.looks)
    place = pair.ours or pair.theirs
    assert place is not None
    if pair.ours is None or mine is None:
        agree, why = _theirs_alone(place, tool, nature, sampled=sampled)
    elif pair.theirs is None or other is None:
        agree, why = _ours_alone(place, tool, nature, sampled=sampled)
        if placeless and not agree:
            why = f"{tool} has blocks without a place: these may be among them"
    else:
        agree, why = _both(mine, other, tool, nature, sampled=sampled)
    return SideBySide(place.first, mine, other, agree, why, pair.by_function)


def _both(
    mine: Opinion, other: Opinion, tool: str, nature: Traits, *, sampled: bool
) -> tuple[bool, str | None]:
    slack = _SAMPLED if sampled else _ROUNDED if nature.rounds_up else _NEAR
    same = abs(mine.bytes - other.bytes) <= slack * max(mine.bytes, other.bytes)
    if not same and mine.count == other.count is not None and nature.rounds_up:
        same = True
    lost, theirs = mine.verdict == "lost", other.verdict == "lost"
    if lost == theirs or not nature.looks:
        if same:
            if mine.bytes != other.bytes and nature.rounds_up:
                return True, f"{tool} counts whole size classes, leakscope what was asked for"
            return True, None
        if sampled:
            return False, "one of them is sampled, and its numbers are estimates"
        if not nature.looks and lost and other.bytes > mine.bytes:
            return (
                True,
                f"{tool} counts what is held here, of which leakscope found this to be lost",
            )
        return False, _amounts(mine, other, tool)
    if lost:
        return False, (
            f"{tool} still met something that looked like a pointer to it: in a register, on a stack"
            " or in memory that was not cleared. leakscope looked at another moment, when the"
            " process was about to end"
        )
    return False, (
        f"leakscope still met a pointer to it, in a register, on a stack or in memory of a library;"
        f" {tool} looked at another moment, or does not take that place for a root:"
        " `leakscope find` names who holds it"
    )


def _amounts(mine: Opinion, other: Opinion, tool: str) -> str:
    if mine.count is not None and mine.count == other.count:
        return f"the blocks are the same and their sizes are not: {tool} may count them rounded"
    return "the amounts differ: the two runs did not do the same, or one looked earlier"


def _ours_alone(
    place: _Place, tool: str, nature: Traits, *, sampled: bool
) -> tuple[bool, str | None]:
    kind = place.first.kind
    if kind in _MAPPINGS:
        return True, f"{tool} does not look at mappings that a program makes itself"
    if nature.only_new and kind not in _NEW:
        return True, f"{tool} sees only what C++ allocates with new"
    if not nature.lists_held and not place.lost:
        return True, f"{tool} lists only what is lost"
    if nature.late:
        return False, f"{tool} came after the start, or the blocks are younger than its limit"
    if nature.least is not None:
        return False, nature.least
    if sampled:
        return False, "one of them is sampled, and meets few of few blocks"
    return False, (
        f"{tool} has nothing here: it was freed before {tool} looked, is called by another stack"
        " there (inlined, or a frame that one of them cannot name), or this run did something else"
    )


def _theirs_alone(
    place: _Place, tool: str, nature: Traits, *, sampled: bool
) -> tuple[bool, str | None]:
    if not _has_place(place.first):
        return False, f"{tool} has no place for these blocks, so they cannot be matched"
    if sampled:
        return False, "one of them is sampled, and meets few of few blocks"
    if not nature.looks:
        return False, (
            f"{tool} looked before it was freed at the very end, allocates here itself, or the"
            " stack is another one there"
        )
    return False, (
        "leakscope has nothing here: it was freed between the moments at which the two looked, or"
        " is called by another stack there (inlined, or a frame that one of them cannot name)"
    )
