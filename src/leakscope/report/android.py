# SPDX-License-Identifier: Apache-2.0
"""An app's memory on a device, kind by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leakscope.android.meminfo import KINDS
from leakscope.model.series import TrendVerdict
from leakscope.report.ink import ALARM, CALM, WARNING
from leakscope.report.steps import step_lines
from leakscope.report.text import printable
from leakscope.words import bytes_text, plural, signed_amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.series import Trend
    from leakscope.report.ink import Ink

__all__ = ["render_watch", "watch_json"]

SCHEMA = "leakscope-android-watch/1"
_WORST = (TrendVerdict.LEAK, TrendVerdict.GROWING)


def _worst(trends: Sequence[Trend]) -> Trend | None:
    kinds = [t for t in trends if t.series.metric != "TOTAL" and t.verdict in _WORST]
    return min(kinds, key=lambda t: (_WORST.index(t.verdict), -_grown(t)), default=None)


def _grown(trend: Trend) -> float:
    values = trend.series.values
    return float(values[-1] - values[0]) if len(values) else 0.0


def render_watch(
    package: str, looks: int, trends: Sequence[Trend], gone: str | None, ink: Ink
) -> str:
    """Return the answer, ending in a newline."""
    worst = _worst(trends)
    colour = CALM if worst is None else ALARM if worst.verdict is TrendVerdict.LEAK else WARNING
    most = max(trends, key=_grown, default=None)
    if worst is not None:
        head = f"{package}: {worst.series.metric}: {worst.verdict}: {worst.sentence}"
    elif most is not None and _grown(most) > 1 << 20:
        grew = signed_amount(_grown(most), "bytes")
        head = f"{package}: no verdict yet; {most.series.metric} grew most, {grew} in {plural(looks, 'look')}"
    else:
        head = f"{package}: nothing is seen to grow, in {plural(looks, 'look')}"
    lines = ink.paint_all(colour, ink.wrap(f"leakscope: {head}"))
    lines.append("")
    for trend in sorted(trends, key=lambda t: -_grown(t)):
        values = trend.series.values
        if not len(values):
            continue
        change = signed_amount(_grown(trend), "bytes") or "0"
        first, last = bytes_text(float(values[0])), bytes_text(float(values[-1]))
        lines.append(
            f"  {printable(trend.series.metric):<14} {first:>10} {last:>10} {change:>11}  {trend.verdict}"
        )
    if gone is not None:
        lines += ["", *ink.wrap(f"It ended early: {gone}")]
    named = worst or most
    step = None if named is None else KINDS.get(named.series.metric)
    if step is not None:
        step = f"{step} {package}" if step.endswith("--app") else step
        lines += ["", *step_lines(step, ink)]
    return "\n".join(lines) + "\n"


def watch_json(
    package: str, looks: int, trends: Sequence[Trend], gone: str | None
) -> dict[str, Any]:
    """Return the answer as a document."""
    return {
        "schema": SCHEMA,
        "package": package,
        "looks": looks,
        "ended_early": gone,
        "kinds": {
            t.series.metric: {
                "verdict": t.verdict,
                "confidence": t.confidence,
                "sentence": t.sentence,
                "bytes": t.series.values.tolist(),
            }
            for t in trends
        },
    }
