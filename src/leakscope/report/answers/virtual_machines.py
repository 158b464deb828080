# SPDX-License-Identifier: Apache-2.0
"""The answers on Java virtual machines that run: all of them, and one closely."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.answers import Answer, GaugeCourse, Result, Signal, Tone
from leakscope.model.findings import Verdict
from leakscope.report import java_machines as machines
from leakscope.report.answers._parts import step_of
from leakscope.report.answers.watches import began_of, course_of
from leakscope.report.text import printable
from leakscope.words import (
    amount_text,
    bytes_text,
    confidence_words,
    plural,
    seconds_text,
    signed_amount,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.java_machines import ClassCourse, MachineSeen, MachineWatched
    from leakscope.model.series import Trend

__all__ = ["of_machine", "of_machines"]

_TONES = {Verdict.LEAKING: Tone.ALARM, Verdict.GROWING: Tone.WARNING, Verdict.FILLING: Tone.WARNING}
_STANDING = {"leak": Tone.ALARM, "growing": Tone.WARNING}
_CLASSES = 200


def of_machines(seen: Sequence[MachineSeen]) -> Answer:
    """Return the answer on all that run here, with the courses of their gauges."""
    ordered = machines.by_standing(seen)
    trends = [trend for one in ordered for trend in one.trends]
    if not ordered:
        none = "no Java virtual machine runs here that can be seen"
        return Answer("java", "this machine", Tone.CALM, none)
    return Answer(
        command="java",
        subject="this machine",
        tone=_STANDING.get(machines.standing(ordered[0]), Tone.CALM),
        headline=printable(machines.list_headline(ordered)),
        steps=(step_of(machines.list_step(ordered)),),
        results=tuple(_machine(one) for one in ordered),
        courses=tuple(_course(trend, began_of(trends)) for trend in trends),
    )


def _course(trend: Trend, began: int) -> GaugeCourse:
    metric = trend.series.metric
    return course_of(trend, began, name=machines.GAUGES.get(metric, metric))


def _machine(one: MachineSeen) -> Result:
    facts = one.facts
    standing = machines.standing(one)
    told = [
        ("heap after the last collection", facts.heap_used),
        ("the heap may have", facts.heap_most),
        ("class data", facts.metaspace),
    ]
    lines = [f"{name}: {bytes_text(size)}" for name, size in told if size is not None]
    lines += [] if facts.threads is None else [plural(facts.threads, "thread")]
    lines += [] if facts.collections is None else [plural(facts.collections, "collection")]
    lines += [said for said in (facts.unseen, facts.remark) if said is not None]
    return Result(
        key=f"machine-{facts.pid}",
        verdict=standing or "seen",
        tone=_STANDING.get(standing, Tone.CALM),
        title=printable(facts.name) or "java",
        where=printable(f"pid {facts.pid}, Java {facts.version or '?'}, {facts.user}"),
        sentence=printable(
            "; ".join(
                f"{machines.GAUGES.get(t.series.metric, t.series.metric)}: {t.sentence}"
                for t in one.trends
                if str(t.verdict) == standing
            )
        ),
        amount=facts.memory,
        amount_text="" if facts.memory is None else bytes_text(facts.memory),
        step=step_of(f"whose growth is it: leakscope java watch {facts.pid}"),
        lines=tuple(map(printable, lines)),
    )


def of_machine(watched: MachineWatched) -> Answer:
    """Return the answer on one: whose growth it is, classes and gauges as courses."""
    verdict, facts = watched.verdict, watched.seen.facts
    tone = Tone.CALM
    if verdict is not None:
        tone = Tone.ALARM if verdict.is_leak else Tone.WARNING
    trends = watched.seen.trends
    coverage = [("Not seen", printable(note)) for note in watched.notes]
    if facts.remark is not None:
        coverage.append(("Note", printable(facts.remark)))
    if watched.histograms:
        stop = f"{plural(watched.histograms, 'histogram')}, each a stop of"
        coverage.append(("Cost", f"{stop} {seconds_text(watched.paused_ms / 1000)} at most"))
    coverage += [
        (
            printable(name),
            _change(first, last, unit),
        )
        for name, first, last, unit in watched.changes
    ]
    return Answer(
        command="java",
        subject=printable(f"{machines.machine_name(watched.seen)} (pid {facts.pid})"),
        tone=tone,
        headline=printable(machines.watch_headline(watched)),
        about=(f"watched for {seconds_text(watched.seconds)}",),
        steps=(step_of(watched.next_step),),
        results=tuple(_class(one) for one in watched.classes[:_CLASSES]),
        left_out=max(len(watched.classes) - _CLASSES, 0),
        courses=(
            *(_class_course(one, watched.seconds) for one in watched.classes[:_CLASSES]),
            *(_course(trend, began_of(trends)) for trend in trends),
        ),
        coverage=tuple(coverage),
    )


def _change(first: float, last: float, unit: str) -> str:
    change = signed_amount(last - first, unit) or "no change"
    return f"{amount_text(first, unit)}, then {amount_text(last, unit)} ({change})"


def _class(one: ClassCourse) -> Result:
    return Result(
        key=printable(f"class-{one.class_name}"),
        verdict=str(one.verdict),
        tone=_TONES.get(one.verdict, Tone.CALM),
        title=printable(one.class_name),
        where="",
        sentence=printable(one.sentence),
        amount=one.sizes[-1],
        amount_text=bytes_text(one.sizes[-1]),
        change=one.sizes[-1] - one.sizes[0],
        count=one.counts[-1],
        rate=one.rate,
        remark=confidence_words(one.confidence),
        evidence=tuple(Signal(printable(e.text), supports=e.supports) for e in one.evidence),
    )


def _class_course(one: ClassCourse, seconds: float) -> GaugeCourse:
    """The histograms of a watch are equally far apart."""
    return GaugeCourse(
        name="bytes of objects that live",
        subject=printable(one.class_name),
        verdict=str(one.verdict),
        tone=_TONES.get(one.verdict, Tone.CALM),
        unit="bytes",
        times_ns=np.linspace(0, seconds * 1e9, len(one.sizes)).astype(np.int64),
        values=np.array(one.sizes, np.float64),
        sentence=printable(one.sentence),
    )
