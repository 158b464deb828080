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

__all__ = ["headline", "next_text", "render_watch", "watch_json"]

SCHEMA = "leakscope-android-watch/1"
_WORST = (TrendVerdict.LEAK, TrendVerdict.GROWING)


def _worst(trends: Sequence[Trend]) -> Trend | None:
    kinds = [t for t in trends if t.series.metric != "TOTAL" and t.verdict in _WORST]
    return min(kinds, key=lambda t: (_WORST.index(t.verdict), -_grown(t)), default=None)


def _grown(trend: Trend) -> float:
    values = trend.series.values
    return float(values[-1] - values[0]) if len(values) else 0.0


def headline(package: str, looks: int, trends: Sequence[Trend]) -> str:
    """Return in one line which kind of memory grows."""
    worst = _worst(trends)
    most = max(trends, key=_grown, default=None)
    if worst is not None:
        return f"{package}: {worst.series.metric}: {worst.verdict}: {worst.sentence}"
    if most is not None and _grown(most) > 1 << 20:
        grew = signed_amount(_grown(most), "bytes")
        grown = f"{most.series.metric} grew most, {grew} in {plural(looks, 'look')}"
        return f"{package}: no verdict yet; {grown}"
    return f"{package}: nothing is seen to grow, in {plural(looks, 'look')}"


def next_text(package: str, trends: Sequence[Trend]) -> str | None:
    """Return what to do next; None where nothing is known to help."""
    named = _worst(trends) or max(trends, key=_grown, default=None)
    step = None if named is None else KINDS.get(named.series.metric)
    return f"{step} {package}" if step is not None and step.endswith("--app") else step


def render_watch(
    package: str, looks: int, trends: Sequence[Trend], gone: str | None, ink: Ink
) -> str:
    """Return the answer, ending in a newline."""
    worst = _worst(trends)
    colour = CALM if worst is None else ALARM if worst.verdict is TrendVerdict.LEAK else WARNING
    lines = ink.paint_all(colour, ink.wrap(f"leakscope: {headline(package, looks, trends)}"))
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
    step = next_text(package, trends)
    if step is not None:
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
