# SPDX-License-Identifier: Apache-2.0
"""The verdicts of a watch as one HTML page with plots, which needs nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from leakscope.model.series import TrendVerdict
from leakscope.report.gauges import gauge_name, subject_name
from leakscope.report.text import printable
from leakscope.report.watch import headline
from leakscope.words import amount_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.series import Series, Trend
    from leakscope.model.watched import Watched

__all__ = ["to_html"]

_PLOTS = 60
_WIDTH, _HEIGHT = 640, 120
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;
color:#222;background:#fff}h1{font-size:1.3rem}h2{font-size:1rem;margin:1.6rem 0 .2rem}
.leak h2::before{content:"leak: ";color:#a40000}svg{width:100%;height:auto;border:1px solid #ccc}
p{margin:.2rem 0}@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}}
"""


def to_html(watched: Watched) -> str:
    """Return the page. Every name on it is escaped; causes come first, then the biggest."""
    told = {id(cause.trend) for cause in watched.causes}

    def rank(trend: Trend) -> tuple[bool, bool, bool, float]:
        series = trend.series
        last = float(series.values[-1]) if len(series.values) else 0.0
        fast = trend.verdict is TrendVerdict.GROWING
        return trend.verdict is not TrendVerdict.LEAK, not fast, series.unit != "bytes", -last

    rest = sorted((t for t in watched.trends if id(t) not in told), key=rank)
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8"><title>leakscope watch</title>',
        f"<style>{_STYLE}</style><h1>{escape(headline(watched))}</h1>",
        f"<p>{escape(watched.cost)}</p>",
    ]
    for cause in watched.causes:
        held = watched.held.get(cause.trend.series.subject.key, ())
        moved = ", ".join(
            f"{subject_name(t.series.subject)} {gauge_name(t.series.metric)}"
            for t in (*cause.alike, *cause.follows)
        )
        parts.append(_section(cause.trend, moved, held))
    room = max(0, _PLOTS - len(watched.causes))
    parts += [_section(trend) for trend in rest[:room]]
    if len(rest) > room:
        parts.append(f"<p>And {len(rest) - room} more gauges, none of them bigger.</p>")
    return "\n".join([*parts, "</html>"]) + "\n"


def _section(trend: Trend, moved: str = "", held: Sequence[str] = ()) -> str:
    series = trend.series
    name = escape(f"{subject_name(series.subject)}, {gauge_name(series.metric)}")
    mark = ' class="leak"' if trend.verdict is TrendVerdict.LEAK else ""
    said = [trend.sentence] + ([f"This moves: {moved}"] if moved else [])
    said += [f"Next: {trend.next_step}"] if trend.next_step else []
    text = "".join(f"<p>{escape(printable(each))}</p>" for each in said)
    facts = "\n".join(printable(line) for line in held)
    text += f"<pre>{escape(facts)}</pre>" if held else ""
    return f"<section{mark}><h2>{name}</h2>{_plot(series, name)}{text}</section>"


def _plot(series: Series, name: str) -> str:
    times, values = series.times_ns, series.values
    if len(values) < 2:
        return ""
    low, high = float(values.min()), float(values.max())
    span, width = high - low or 1.0, int(times[-1] - times[0]) or 1
    points = " ".join(
        f"{(int(t) - int(times[0])) / width * _WIDTH:.1f},"
        f"{_HEIGHT - 6 - (float(v) - low) / span * (_HEIGHT - 12):.1f}"
        for t, v in zip(times, values, strict=True)
    )
    cuts = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}" stroke="#a40000">'
        f"<title>{escape(cut.reason)}</title></line>"
        for cut in series.cuts
        for x in [(cut.time_ns - int(times[0])) / width * _WIDTH]
    )
    label = 'font-size="11" fill="currentColor" x="4"'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">'
        f'<polyline fill="none" stroke="#2a6fb0" stroke-width="1.5" points="{points}"/>{cuts}'
        f'<text {label} y="12">{escape(amount_text(high, series.unit))}</text>'
        f'<text {label} y="{_HEIGHT - 3}">{escape(amount_text(low, series.unit))}</text></svg>'
    )
