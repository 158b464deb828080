# SPDX-License-Identifier: Apache-2.0
"""Verdicts from a few exact looks at what lives: heap dumps, or class histograms after a collection.

Such a look has no noise of its own: garbage is not in it. Two looks show growth and no more. From
three on a steady rise is one signal, and that the same place holds it another one; both make a
leak. A rise that bends is filling, one that stopped a warm-up, one that falls as well is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 (typing.get_type_hints works)
from dataclasses import dataclass
from itertools import pairwise

from leakscope.model.findings import Evidence, Verdict
from leakscope.words import (
    amount_text,
    confidence_words,
    plural,
    rate_text,
    seconds_text,
    signed_amount,
)

__all__ = ["LiveVerdict", "judge_live_set"]

_LEAST = 64 << 10
_FEWEST = 30  # things
_EFFECT = 0.01  # of the whole heap
_FLAT = 0.15  # of the mean rate before: what grows less has stopped
_BENDS = 0.5  # of the earlier half's rate
_FALL = 0.2  # of the whole rise
_SUSPICION, _LIKELY, _PER_LOOK, _MOST = 0.6, 0.85, 0.03, 0.95


@dataclass(frozen=True, slots=True)
class LiveVerdict:
    """What a few looks at one class or place say. The rate is bytes a second."""

    verdict: Verdict
    confidence: float
    rate: float | None
    sentence: str
    evidence: tuple[Evidence, ...]


def judge_live_set(
    times_s: Sequence[float],
    sizes: Sequence[int],
    counts: Sequence[int],
    heap: Sequence[int],
    *,
    held_in_one_place: bool,
    unit: str = "bytes",
    least_s: float = 0.0,
    second: tuple[str, str] = ("one place holds the growth", "no single place holds the growth"),
) -> LiveVerdict | None:
    """Judge one course; None where it did not grow by what is worth a word.

    `heap` are the bytes of all that lived at these moments. `held_in_one_place` is the second
    signal: whether one and the same holder has most of the growth, or what `second` says of it
    where it is there, and where it is not. What was looked at for less than `least_s` is not
    called a leak.
    """
    grown = sizes[-1] - sizes[0]
    floor = _LEAST if unit == "bytes" else _FEWEST
    least = max(floor, int(_EFFECT * max(heap[-1], 1)))
    peak_rise = max(sizes) - sizes[0]
    if max(grown, peak_rise) < least:
        return None
    steps = [later - earlier for earlier, later in pairwise(sizes)]
    spans = [later - earlier for earlier, later in pairwise(times_s)]
    span = times_s[-1] - times_s[0]
    rate = grown / span if span > 0 else None
    rose = sum(step > 0 for step in steps)
    facts = (
        Evidence("looks", len(sizes), plural(len(sizes), "look") + " at what lives"),
        Evidence("grown_bytes", grown, f"{signed_amount(grown, unit) or 'no change'} in all"),
        Evidence("grown_count", counts[-1] - counts[0], f"{counts[-1] - counts[0]:+,} objects"),
        Evidence("rose", rose, f"it rose in {rose} of {len(steps)} stretches", rose == len(steps)),
        Evidence(
            "one_place",
            held_in_one_place,
            second[0] if held_in_one_place else second[1],
            held_in_one_place,
        ),
    )
    speed = "" if rate is None else f", {rate_text(rate, unit)}"
    course = f"grew from {amount_text(sizes[0], unit)} to {amount_text(sizes[-1], unit)}{speed}"
    if len(sizes) < 3:
        if grown < least:
            return None
        return _said(Verdict.GROWING, _SUSPICION, rate, f"{course}; two looks are no proof", facts)
    if min(steps) < -_FALL * peak_rise or grown < least:
        return _said(Verdict.BOUNDED, 0.7, rate, "rose and fell again", facts)
    rates = [s / t if t > 0 else float(s) for s, t in zip(steps, spans, strict=True)]
    before = sum(rates[:-1]) / len(rates[:-1])
    if rates[-1] <= _FLAT * before:
        return _said(Verdict.WARM_UP, 0.8, rate, f"{course}, then stopped", facts)
    early, late = _halves(rates)
    if late <= _BENDS * early:
        return _said(Verdict.FILLING, 0.75, rate, f"{course}, ever more slowly", facts)
    if rose < len(steps):
        return _said(Verdict.GROWING, _SUSPICION, rate, f"{course}, not in every stretch", facts)
    if span < least_s:
        wait = f"{course}, steadily; a verdict takes {seconds_text(least_s)} of watching"
        return _said(Verdict.GROWING, _SUSPICION, rate, wait, facts)
    if not held_in_one_place:
        return _said(Verdict.GROWING, _SUSPICION, rate, f"{course}, steadily", facts)
    sure = min(_LIKELY + _PER_LOOK * (len(sizes) - 3), _MOST)
    return _said(Verdict.LEAKING, sure, rate, f"{course}, in every stretch, and {second[0]}", facts)


def _halves(rates: Sequence[float]) -> tuple[float, float]:
    middle = (len(rates) + 1) // 2
    early, late = rates[:middle], rates[-middle:]
    return sum(early) / len(early), sum(late) / len(late)


def _said(
    verdict: Verdict, confidence: float, rate: float | None, why: str, facts: tuple[Evidence, ...]
) -> LiveVerdict:
    words = confidence_words(confidence)
    return LiveVerdict(verdict, confidence, rate, f"{why} ({words}, {confidence:.2f})", facts)
