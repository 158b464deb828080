# SPDX-License-Identifier: Apache-2.0
"""The answer of a watch of an app on a device: each kind of its memory as a course."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.model.answers import Answer, Result, Tone
from leakscope.model.series import TrendVerdict
from leakscope.report import android
from leakscope.report.answers._parts import step_of
from leakscope.report.answers.watches import began_of, course_of, tone_of
from leakscope.report.gauges import grown
from leakscope.report.text import printable
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.series import Trend

__all__ = ["of_app"]


def of_app(package: str, looks: int, trends: Sequence[Trend], gone: str | None) -> Answer:
    """Return the answer on an app; `gone` says why the watch ended early."""
    shown = sorted((t for t in trends if len(t.series.values)), key=lambda t: -grown(t.series))
    verdicts = {trend.verdict for trend in shown}
    tone = Tone.WARNING
    if TrendVerdict.LEAK in verdicts:
        tone = Tone.ALARM
    elif not verdicts & {TrendVerdict.GROWING, TrendVerdict.NOT_ENOUGH_DATA}:
        tone = Tone.CALM
    step = android.next_text(package, trends)
    began = began_of(shown)
    return Answer(
        command="android",
        subject=printable(package),
        tone=tone,
        headline=printable(android.headline(package, looks, trends)),
        about=(plural(looks, "look"),),
        warnings=() if gone is None else (printable(f"It ended early: {gone}"),),
        steps=() if step is None else (step_of(step),),
        results=tuple(_kind(trend) for trend in shown),
        courses=tuple(course_of(trend, began, name=trend.series.metric) for trend in shown),
    )


def _kind(trend: Trend) -> Result:
    last = int(trend.series.values[-1])
    return Result(
        key=printable(trend.series.metric),
        verdict=str(trend.verdict),
        tone=tone_of(trend.verdict),
        title=printable(trend.series.metric),
        where="",
        sentence=printable(trend.sentence),
        amount=last,
        amount_text=bytes_text(last),
        change=int(grown(trend.series)),
        rate=None if trend.growth is None else trend.growth.rate,
    )
