# SPDX-License-Identifier: Apache-2.0
"""The answers on two sides that were compared: what was there before, and what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.answers import Answer, FrameText, Profile, Result, Signal, Tone
from leakscope.model.changes import Change
from leakscope.report._places import function_text, location_text
from leakscope.report.answers.places import place_of, stack_of
from leakscope.report.diff import change_text, headline_text, kept_texts, side_text
from leakscope.report.ink import Ink
from leakscope.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from leakscope.model.changes import Amount, Comparison, Side, StackChange
    from leakscope.report.terminal import SourceContext

__all__ = ["of_comparison"]

_RESULTS = 1000  # changes that are told in full
_SOURCES = 200  # of those with lines of source
_RADIUS = 4  # lines on each side
_WORSE = (Change.NEW, Change.GROWN)
_KINDS = 256  # that a profile can tell apart


def of_comparison(
    comparison: Comparison,
    *,
    source_context: SourceContext | None = None,
    base: str | None = None,
) -> tuple[Answer, Answer]:
    """Return the answer on the older side and the one on what changed since.

    The graphs of both have each stack that was compared once, so that what a compiler renamed
    is not shown as gone and new. `base` is a directory that paths are shown relative to.
    """
    ink = Ink(10_000, base=base)
    rows = (*comparison.changes, *comparison.same)
    before, after = _profiles(comparison, rows)
    told = comparison.changes[:_RESULTS]
    results = [
        _result(row, number, ink, source_context if number < _SOURCES else None, after is not None)
        for number, row in enumerate(told)
    ]
    sides = (("Before", comparison.before), ("After", comparison.after))
    blind = tuple(f"{name.lower()}: {side.blind}" for name, side in sides if side.blind is not None)
    kept = kept_texts(comparison)
    told_of = [
        *((name or "Sampling", text) for name, text in kept),
        *(("Note", text) for text in comparison.notes),
        *((name, text) for name, side in sides for text in side.limits),
    ]
    tone = Tone.ALARM if any(row.change in _WORSE for row in comparison.changes) else Tone.CALM
    return (
        _older(comparison.before, before),
        Answer(
            command="diff",
            subject="what changed",
            tone=Tone.WARNING if comparison.undecided else tone,
            headline=printable(headline_text(comparison)),
            about=tuple(f"{name.lower()}: {side_text(side)}" for name, side in sides),
            warnings=tuple(printable(text) for text in blind),
            results=tuple(results),
            left_out=len(comparison.changes) - len(told),
            coverage=tuple((name, printable(text)) for name, text in told_of),
            profile=after,
        ),
    )


def _older(side: Side, profile: Profile | None) -> Answer:
    return Answer(
        command="diff",
        subject="before",
        tone=Tone.CALM,
        headline=f"before: {side_text(side)}",
        coverage=tuple(("Limit", printable(text)) for text in side.limits),
        profile=profile,
    )


def _result(
    row: StackChange,
    number: int,
    ink: Ink,
    source_context: SourceContext | None,
    in_profile: bool,
) -> Result:
    frame = row.source or next(iter(row.stack), None)
    worse = row.change in _WORSE
    verdicts = dict.fromkeys(each for each in (row.verdict_before, row.verdict_after) if each)
    stacks = (stack_of("Allocated at", row.stack, row.source),) if row.stack else ()
    source: tuple[tuple[int, str], ...] = ()
    if source_context is not None and row.source is not None and row.source.line is not None:
        lines = source_context(row.source, _RADIUS)
        source = tuple((line, printable(text.rstrip())) for line, text in lines)
    where = "older" if row.change is Change.GONE else "newer"
    facts = [f"judged {printable(' -> '.join(verdicts))}"] if verdicts else []
    facts += ["known by most of the frames: the stacks of both sides differ"] if row.renamed else []
    evidence: tuple[Signal, ...] = ()
    if row.p_value is not None:
        text = f"chance alone makes such a difference of samples with probability {row.p_value:.2g}"
        evidence = (Signal(text, supports=True),)
    return Result(
        key=f"{row.change.value}-{number + 1}",
        verdict=row.change.value,
        tone=Tone.ALARM if worse else Tone.WARNING,
        title=(function_text(frame) or location_text(frame, ink)) if frame else "(no call stack)",
        where=location_text(frame, ink) if frame else "",
        sentence=f"{change_text(row)}.",
        amount=row.bytes_after,
        amount_text=change_text(row),
        change=row.bytes,
        count=row.count_after,
        remark=printable(row.kind),
        evidence=evidence,
        stacks=stacks,
        source=source,
        source_line=row.source.line if row.source is not None else None,
        site=number if in_profile else None,
        lines=(f"the call stack is that of the {where} side", *facts),
        identities=(printable(f"in any build {row.stable_fingerprint}"),),
    )


# -- graphs -------------------------------------------------------------------


def _profiles(
    comparison: Comparison, rows: Sequence[StackChange]
) -> tuple[Profile, Profile] | tuple[None, None]:
    """Return the stacks with what both sides hold there: two profiles of the same rows."""
    if not any(row.stack for row in rows):
        return None, None
    places: dict[FrameText, int] = {FrameText("(all)"): 0}
    nodes: dict[tuple[int, int], int] = {}
    parents, place_at = [0], [0]
    ends = []
    for row in rows:
        node = 0
        for frame in reversed(row.stack):
            place = places.setdefault(place_of(frame), len(places))
            child = nodes.setdefault((node, place), len(parents))
            if child == len(parents):
                parents.append(node)
                place_at.append(place)
            node = child
        ends.append(node)
    kinds = {name: n for n, name in enumerate(dict.fromkeys(row.kind for row in rows))}
    words = tuple(each.value for each in Change)

    def profile(amounts: Sequence[Amount | None]) -> Profile:
        return Profile(
            places=tuple(places),
            parents=np.array(parents, np.int32),
            place_of=np.array(place_at, np.int32),
            numbers=np.arange(1, len(rows) + 1, dtype=np.int32),
            node_of=np.array(ends, np.int32),
            kind_of=np.array([min(kinds[row.kind], _KINDS - 1) for row in rows], np.uint8),
            kinds=tuple(printable(kind) for kind in kinds)[:_KINDS],
            verdicts=np.array([words.index(row.change.value) for row in rows], np.uint8),
            verdict_names=words,
            measures=_measures(comparison, amounts),
            times_ns=np.zeros(0, np.int64),
            live_bytes=np.zeros(0),
            courses=np.zeros((0, 0), np.float32),
            course_of=np.zeros(0, np.int32),
        )

    return profile([row.before for row in rows]), profile([row.after for row in rows])


def _measures(
    comparison: Comparison, amounts: Sequence[Amount | None]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return what both sides know, by site."""
    columns: dict[str, str] = {}
    if "held" in comparison.measure:
        columns |= {"live_bytes": "held_bytes", "live_count": "held_count"}
    if "lost" in comparison.measure:
        columns |= {"lost_bytes": "lost_bytes", "lost_count": "lost_count"}
    return {
        name: np.array(
            [0 if each is None else getattr(each, field) or 0 for each in amounts], np.float64
        )
        for name, field in columns.items()
    }
