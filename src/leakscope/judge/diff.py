# SPDX-License-Identifier: Apache-2.0
"""What is new, grown, shrunk and gone between two sides, and what chance alone may have done.

Exact numbers: a block more that is lost is a change. What is held is a level at one moment: it
changed when it is more than a tenth more, or less. Estimates of sampled recordings changed where
the counts of samples differ by more than chance makes of all the stacks that were compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from leakscope.judge.pairs import paired
from leakscope.judge.stands import OWN_MODES, Knows, Stand, knows_of, most_of, stands_of, sum_of
from leakscope.model.amounts import sum_known
from leakscope.model.changes import Change, Comparison, Side, StackChange
from leakscope.model.recordings import MOMENT_NS
from leakscope.words import bytes_text, duration_text, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from leakscope.judge.pairs import Pair
    from leakscope.model.findings import Findings

__all__ = ["Looked", "Tolerance", "changes_of", "compare", "highest", "looked_at"]

_NAME_BYTES = 64  # the length of a path or of a name is no change
_FALSE_CHANGES = 0.01  # share among the changes of estimates (Benjamini-Hochberg)
_NOISY = frozenset({"bounded", "churn"})  # verdicts of what comes and goes
_ERRORS = 3.0  # standard errors of a number of blocks that come and go
_LONGER = 1.5  # a run that was so much longer may hold more for that alone


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Which share of the older amount is no change: of what is lost, and of what is held."""

    lost: float = 0.0
    held: float = 0.1


@dataclass(frozen=True, slots=True)
class Looked:
    """One side: what it holds by stable identity, and what it can tell."""

    stands: Mapping[str, Stand]
    knows: Knows
    side: Side
    tools: frozenset[str] = frozenset()  # what the recordings are of, empty where not known


def looked_at(judged: Sequence[tuple[str, Findings]]) -> Looked:
    """Return one side, whose recordings are added up."""
    return _looked(judged, sum_of)


def highest(judged: Sequence[tuple[str, Findings]]) -> Looked:
    """Return one side: of each stack the most that one of the recordings holds there."""
    return _looked(judged, most_of)


def _looked(
    judged: Sequence[tuple[str, Findings]], together: Callable[[Sequence[Stand]], Stand]
) -> Looked:
    found: dict[str, list[Stand]] = {}
    for _, findings in judged:
        here = stands_of(findings.findings, findings.coverage.sample_bytes)
        for stable, stand in here.items():
            found.setdefault(stable, []).append(stand)
    every = [findings for _, findings in judged]
    stands = {stable: together(several) for stable, several in found.items()}
    durations = [each.duration_ns for each in every if each.duration_ns]
    knows = knows_of(every)
    limits = list(dict.fromkeys(text for each in every for text in _limits(each)))
    unnamed = sum(any("\0" in name for name, _ in each.names) for each in stands.values())
    if unnamed:
        limits.append(
            f"{plural(unnamed, 'stack has', 'stacks have')} frames without a name: those are"
            " known by their place in the file, which another build does not keep"
        )
    if not knows.held and not knows.lost:
        limits.append("it tells neither what is held nor what is lost")
    elif not knows.held:
        limits.append("it tells what is lost, and not what else is held")
    elif not knows.lost:
        limits.append("it tells what is held, and not what of it is lost")
    blind = next((each.blind for each in every if each.blind is not None), None)
    side = Side(
        labels=tuple(label for label, _ in judged),
        live_bytes=sum_known(each.live_bytes for each in every),
        live_count=sum_known(each.live_count for each in every),
        duration_ns=max(durations, default=None),
        sampled=knows.sample_bytes is not None,
        limits=tuple(limits),
        blind=None if stands else blind,
    )
    tools = frozenset(_tool(each) for each in every)
    return Looked(stands, knows, side, tools)


def _tool(findings: Findings) -> str:
    mode = findings.coverage.mode
    return "leakscope" if mode in OWN_MODES else mode


def _limits(findings: Findings) -> list[str]:
    coverage = findings.coverage
    found = []
    if coverage.sample_bytes:
        found.append(
            f"it is sampled, one byte in {bytes_text(coverage.sample_bytes)}: its numbers are"
            " estimates"
        )
    lost = sum(coverage.dropped.values())
    if lost:
        found.append(f"{plural(lost, 'event was', 'events were')} not recorded")
    if coverage.min_size:
        found.append(f"blocks below {bytes_text(coverage.min_size)} were left out")
    if coverage.max_size:
        found.append(f"blocks above {bytes_text(coverage.max_size)} were left out")
    if findings.process.ended == "running":
        found.append("it was still running")
    found += [note for note in findings.notes if "not described" in note]
    return [*found, *coverage.notes]


def compare(before: Looked, after: Looked, tolerance: Tolerance | None = None) -> Comparison:
    """Return what changed from one side to the other."""
    before, after = _placed(before), _placed(after)
    lost = before.knows.lost and after.knows.lost
    held = before.knows.held and after.knows.held
    told = before.side.blind is None and after.side.blind is None
    rows = changes_of(before, after, tolerance) if told else []
    rows.sort(key=lambda row: (-abs(row.bytes), row.stable_fingerprint))
    kept = [row for row in rows if row.change is not Change.SAME]
    same = [row for row in rows if row.change is Change.SAME]
    both = " and ".join(name for name, known in (("lost", lost), ("held", held)) if known)
    quiet = sum(stand.quiet for stand in after.stands.values())
    return Comparison(
        before=before.side,
        after=after.side,
        measure=both or "nothing",
        changes=tuple(kept),
        same_count=len(same),
        same_bytes=sum(row.bytes_after for row in same),
        noise_count=sum(row.p_value is not None for row in same),
        quiet_count=quiet,
        notes=tuple(_notes(before, after, kept)),
        same=tuple(same),
    )


def _placed(looked: Looked) -> Looked:
    """Leave out what has no call stack: of a side that is mostly so, nothing can be said."""
    stands = {key: each for key, each in looked.stands.items() if each.names}
    if len(stands) == len(looked.stands):
        return looked
    held = sum(each.held_bytes for each in looked.stands.values())
    bare = held - sum(each.held_bytes for each in stands.values())
    limit = f"{bytes_text(bare)} have no call stack, and are not compared"
    blind = looked.side.blind
    if bare * 2 > held:
        blind, stands = "most of what it holds has no call stack", {}
    side = replace(looked.side, limits=(*looked.side.limits, limit), blind=blind)
    return replace(looked, stands=stands, side=side)


def _notes(before: Looked, after: Looked, rows: Sequence[StackChange]) -> list[str]:
    found = []
    first, second = before.side.duration_ns, after.side.duration_ns
    long = max(first or 0, second or 0) > MOMENT_NS
    if first and second and long and max(first, second) > _LONGER * min(first, second):
        found.append(
            f"the runs lasted {duration_text(first)} and {duration_text(second)}: what grows all"
            " the time differs for that alone"
        )
    if len(before.side.labels) != len(after.side.labels):
        found.append(
            f"{plural(len(before.side.labels), 'recording')} before and"
            f" {plural(len(after.side.labels), 'recording')} after: each side is added up"
        )
    if before.tools and after.tools and before.tools != after.tools:
        found.append(
            "the sides are of different tools, which see pointers differently: less than the"
            " tolerance is no change of lost memory either"
        )
    renamed = sum(row.renamed for row in rows)
    if renamed:
        found.append(
            f"{plural(renamed, 'changed stack is', 'changed stacks are')} the same by most of"
            " the frames: a compiler or a tool leaves some out"
        )
    return found


def changes_of(
    before: Looked, after: Looked, tolerance: Tolerance | None = None
) -> list[StackChange]:
    """Return a row for each stack that holds something and is not quiet, also what is the same."""
    tolerance = tolerance or Tolerance()
    if before.tools and after.tools and before.tools != after.tools:
        tolerance = Tolerance(max(tolerance.lost, tolerance.held), tolerance.held)
    lost = before.knows.lost and after.knows.lost
    held = before.knows.held and after.knows.held
    rows: list[StackChange] = []
    for pair in paired(before.stands, after.stands):
        old = sum_of(pair.before) if pair.before else None
        new = sum_of(pair.after) if pair.after else None
        if new.quiet if new is not None else old is not None and old.quiet:
            continue
        row = None
        if lost:
            row = _lost(pair, old, new, before.knows, after.knows, tolerance)
        if held and (row is None or row.change is Change.SAME):
            other = _held(pair, old, new, before.knows, after.knows, tolerance)
            row = other if row is None or other.change is not Change.SAME else row
        if row is not None:
            rows.append(row)
    return _without_chance(rows)


def _lost(
    pair: Pair,
    old: Stand | None,
    new: Stand | None,
    knew: Knows,
    knows: Knows,
    tolerance: Tolerance,
) -> StackChange | None:
    then = (old.lost_bytes or 0, old.lost_count) if old is not None else (0, 0)
    now = (new.lost_bytes or 0, new.lost_count) if new is not None else (0, 0)
    if not then[0] and not now[0] and not then[1] and not now[1]:
        return None
    p_value = _chance(old, new, knew, knows, then[0], now[0])
    if p_value is not None:
        change = _direction(then[0], now[0], max(tolerance.lost, tolerance.held))
    elif _stale(old, new) and not _more(then[0], now[0], tolerance.held):
        change = Change.SAME
    elif then[1] is not None and now[1] is not None and _more(then[1], now[1], tolerance.lost):
        change = _direction(then[0], now[0], 0.0)
        if change is Change.SAME:
            change = _direction(then[1], now[1], 0.0)
    else:
        change = _level(then[0], now[0], max(tolerance.lost, tolerance.held))
    return _row(pair, old, new, change, "lost", p_value)


def _stale(old: Stand | None, new: Stand | None) -> bool:
    """Whether as many blocks are there: a stale pointer more or less decides which are lost."""
    return (
        old is not None
        and new is not None
        and old.held_count is not None
        and old.held_count == new.held_count
        and bool(old.lost_bytes and new.lost_bytes)
    )


def _held(
    pair: Pair,
    old: Stand | None,
    new: Stand | None,
    knew: Knows,
    knows: Knows,
    tolerance: Tolerance,
) -> StackChange:
    then = old.held_bytes if old is not None else 0
    now = new.held_bytes if new is not None else 0
    p_value = _chance(old, new, knew, knows, then, now)
    change = _level(then, now, tolerance.held)
    if p_value is None and change is not Change.SAME and _comes_and_goes(old, new):
        change = Change.SAME
    return _row(pair, old, new, change, "held", p_value)


def _row(
    pair: Pair,
    old: Stand | None,
    new: Stand | None,
    change: Change,
    measure: str,
    p_value: float | None,
) -> StackChange:
    shown = new if new is not None else old
    assert shown is not None
    return StackChange(
        change=change,
        measure=measure,
        before=old.amount if old is not None else None,
        after=new.amount if new is not None else None,
        kind=shown.kind,
        verdict_before=old.verdict if old is not None else None,
        verdict_after=new.verdict if new is not None else None,
        stable_fingerprint=shown.stable,
        stack=shown.stack,
        source=shown.source,
        renamed=pair.renamed,
        p_value=p_value,
    )


def _more(then: int, now: int, share: float) -> bool:
    return abs(now - then) > share * then


def _direction(then: int, now: int, share: float) -> Change:
    if not then and not now:
        return Change.SAME
    if not then:
        return Change.NEW
    if not now:
        return Change.GONE
    if not _more(then, now, share):
        return Change.SAME
    return Change.GROWN if now > then else Change.SHRUNK


def _level(then: int, now: int, share: float) -> Change:
    """The direction of a level, or of blocks whose number is the same."""
    if then and now and abs(now - then) <= _NAME_BYTES:
        return Change.SAME
    return _direction(then, now, share)


def _comes_and_goes(old: Stand | None, new: Stand | None) -> bool:
    """Whether what is there at one moment is a matter of the moment."""
    stands = [stand for stand in (old, new) if stand is not None]
    if any(stand.verdict == "churn" for stand in stands):
        return True
    if not any(stand.verdict in _NOISY for stand in stands):
        return False
    counts = [stand.held_count for stand in stands]
    if len(stands) < 2 or None in counts:
        return False
    first, second = (count or 0 for count in counts)
    return abs(second - first) <= _ERRORS * math.sqrt(first + second)


# -- chance -------------------------------------------------------------------


def _chance(
    old: Stand | None, new: Stand | None, knew: Knows, knows: Knows, then: int, now: int
) -> float | None:
    """How likely chance alone makes so large a difference of estimates; None where both are exact.

    The test of two Poisson rates by square roots (Huffman 1984): an estimate of B bytes stands
    for B / w samples, w bytes each; where nothing was sampled there were none.
    """
    weights = _weight(old, new, knew), _weight(new, old, knows)
    if not any(weights):
        return None
    first, second = weights
    if not second:  # the newer side is exact: the same from its point of view
        first, second, then, now = second, first, now, then
    counted = now / second
    expected = (then + 3 / 8 * first) / second
    ratio = first / second
    z = 2 * (math.sqrt(counted + 3 / 8) - math.sqrt(expected)) / math.sqrt(1 + ratio)
    return math.erfc(abs(z) / math.sqrt(2))


def _weight(stand: Stand | None, other: Stand | None, knows: Knows) -> float:
    """Bytes for which one sample of this side stands, 0 where it is exact."""
    if stand is not None:
        return stand.variance / stand.held_bytes if stand.held_bytes else 0.0
    if knows.sample_bytes is None or other is None:
        return 0.0
    size = other.held_bytes / other.held_count if other.held_count else 1.0
    return size / -math.expm1(-max(size, 1e-9) / knows.sample_bytes)


def _without_chance(rows: list[StackChange]) -> list[StackChange]:
    """Take for the same what chance alone may have made (Benjamini and Hochberg, 1995)."""
    values = sorted(row.p_value for row in rows if row.p_value is not None)
    limit = 0.0
    for rank, value in enumerate(values, 1):
        if value <= _FALSE_CHANGES * rank / len(values):
            limit = value
    return [
        replace(row, change=Change.SAME) if row.p_value is not None and row.p_value > limit else row
        for row in rows
    ]
