# SPDX-License-Identifier: Apache-2.0
"""The answers on heap dumps of Java: suspects of one, growth between several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.answers import (
    AccountRow,
    AccountTable,
    Answer,
    FrameText,
    GaugeCourse,
    Result,
    Signal,
    Stack,
    Tone,
)
from leakscope.model.findings import Verdict
from leakscope.report.answers._parts import step_of
from leakscope.report.java import dump_headline, growth_headline, second_step
from leakscope.report.text import printable
from leakscope.words import bytes_text, confidence_words, count_text, plural, seconds_text

if TYPE_CHECKING:
    from leakscope.model.frames import FrameName
    from leakscope.model.heapdump import (
        DumpGrowth,
        GrownPart,
        HeapAnswer,
        HeapOddity,
        HeapPlace,
        Suspect,
        ThreadFacts,
    )

__all__ = ["of_dump", "of_growth"]

_CLASSES, _STEPS, _HELD, _FRAMES = 40, 40, 12, 64
_GROWN = 1000
_TONES = {Verdict.LEAKING: Tone.ALARM, Verdict.GROWING: Tone.WARNING, Verdict.FILLING: Tone.WARNING}


def of_dump(answer: HeapAnswer) -> Answer:
    """Return the answer on one dump: suspicions, never a verdict."""
    results = [_suspect(one, number) for number, one in enumerate(answer.suspects, 1)]
    results += [_oddity(one, number) for number, one in enumerate(answer.oddities, 1)]
    return Answer(
        command="report",
        subject=printable(answer.name),
        tone=Tone.WARNING if results else Tone.CALM,
        headline=printable(dump_headline(answer)),
        about=(_about(answer),),
        steps=(step_of(second_step(answer)),),
        accounts=tuple(_accounts(answer)),
        results=tuple(results),
        coverage=tuple(_coverage(answer)),
    )


def _about(answer: HeapAnswer) -> str:
    kind = "Android" if answer.android else "Java"
    return printable(
        f"{bytes_text(answer.strong_bytes)} strongly held; {plural(answer.objects, 'object')} of"
        f" {plural(answer.class_count, 'class', 'classes')}, {plural(answer.roots, 'root')}"
        f" ({kind}, format {answer.version}, addresses of {8 * answer.id_size} bits)"
    )


def _accounts(answer: HeapAnswer) -> list[AccountTable]:
    rows = [AccountRow("strongly held", answer.strong_bytes)]
    rows += [
        AccountRow(printable(words), size, plural(count, "object"))
        for words, count, size in answer.levels
        if count
    ]
    total = sum(row.amount for row in rows)
    found = [AccountTable("The heap, by what holds it", "bytes", tuple(rows), total, "in all")]
    classes = [
        AccountRow(printable(row.class_name), row.size, plural(row.count, "object"))
        for row in answer.classes[:_CLASSES]
    ]
    rest = answer.strong_bytes - sum(row.amount for row in classes)
    if classes and rest >= 0:
        left = max(answer.class_total - len(classes), 0)
        classes.append(AccountRow("all others", rest, plural(left, "class", "classes")))
        found.append(
            AccountTable(
                "Strongly held, by class", "bytes", tuple(classes), answer.strong_bytes, "in all"
            )
        )
    return found


def _coverage(answer: HeapAnswer) -> list[tuple[str, str]]:
    found = [
        ("Heap", printable(f"{name}: {bytes_text(size)} in {plural(count, 'object')}"))
        for name, count, size in answer.heaps
    ]
    cost = f"{seconds_text(answer.seconds)}, {bytes_text(answer.memory)} of memory"
    found.append(("Cost", f"{cost} ({answer.memory // max(answer.objects, 1)} bytes an object)"))
    return found + [("Missing", printable(note)) for note in answer.notes]


def _suspect(one: Suspect, number: int) -> Result:
    return Result(
        key=f"suspect-{number}",
        verdict="suspicion",
        tone=Tone.WARNING,
        title=printable(one.class_name),
        where=printable(_root(one.place)),
        sentence=printable(one.sentence),
        amount=one.retained,
        amount_text=bytes_text(one.retained),
        count=one.count,
        remark=printable(one.pattern or ""),
        step=step_of(one.next_step),
        stacks=() if one.thread is None or not one.thread.stack else (_stack(one.thread),),
        lines=tuple(_way(one.place)),
    )


def _root(place: HeapPlace) -> str:
    return f"{place.path[0].reference} {place.path[0].class_name}".strip() if place.path else ""


def _way(place: HeapPlace) -> list[str]:
    """The way from what holds it to where memory accumulates, and what is there, as text."""
    steps = place.path
    lines = []
    for at, step in enumerate(steps):
        if _STEPS // 2 <= at < len(steps) - _STEPS // 2 and len(steps) > _STEPS:
            if at == _STEPS // 2:
                lines.append(f"… {plural(len(steps) - _STEPS, 'step')}")
            continue
        name = f"class {step.class_name}" if step.is_class else step.class_name
        mark = "→ " if step.address == place.address else "  "
        held = f"  {bytes_text(step.retained)}" if step.retained else ""
        lines.append(printable(f"{mark}{step.reference}  {name}{held}"))
    lines += [
        printable(f"holds {count_text(held.count)} {held.class_name} ({bytes_text(held.size)})")
        for held in place.held[:_HELD]
    ]
    return lines


def _stack(thread: ThreadFacts) -> Stack:
    shown = thread.stack[:_FRAMES]
    source = next((n for n, frame in enumerate(shown) if frame == thread.frame), None)
    return Stack(printable(f"Stack of {thread.name}"), tuple(map(_frame, shown)), source)


def _frame(frame: FrameName) -> FrameText:
    file = None if frame.file is None else printable(frame.file)
    return FrameText(printable(frame.function or "?"), file, frame.line)


def _oddity(one: HeapOddity, number: int) -> Result:
    return Result(
        key=f"odd-{number}",
        verdict="suspicion",
        tone=Tone.WARNING,
        title=printable(one.subject),
        where="outside the Java heap" if one.off_heap else "",
        sentence=printable(one.sentence),
        amount=one.size,
        amount_text=bytes_text(one.size),
        count=one.count,
        remark=printable(one.pattern),
        step=step_of(one.next_step),
    )


# ---- several


def of_growth(growth: DumpGrowth) -> Answer:
    """Return the answer on several dumps of one process, with the course of what grew."""
    last = growth.answers[-1]
    told = growth.grown[:_GROWN]
    tone = Tone.CALM if growth.verdict is None else _TONES.get(growth.verdict, Tone.CALM)
    times = np.array([round(at * 1e9) for at in growth.times_s], np.int64)
    steady = plural(growth.steady, "class", "classes")
    return Answer(
        command="report",
        subject=printable(last.name),
        tone=tone,
        headline=printable(growth_headline(growth)),
        about=(f"{plural(len(growth.answers), 'dump')}; {steady} did not grow", _about(last)),
        accounts=tuple(_accounts(last)),
        results=tuple(_grown(one, number) for number, one in enumerate(told, 1)),
        left_out=len(growth.grown) - len(told),
        courses=(_strong(growth, times), *(_course(one, times) for one in told)),
        coverage=(
            *(("Dump", printable(one.name)) for one in growth.answers),
            *(("Note", printable(note)) for note in growth.notes),
        ),
    )


def _grown(one: GrownPart, number: int) -> Result:
    return Result(
        key=printable(f"{one.subject}-{number}-{one.name}"),
        verdict=str(one.verdict),
        tone=_TONES.get(one.verdict, Tone.CALM),
        title=printable(one.name),
        where="" if one.place is None else printable(_root(one.place)),
        sentence=printable(one.sentence),
        amount=one.sizes[-1],
        amount_text=bytes_text(one.sizes[-1]),
        change=one.sizes[-1] - one.sizes[0],
        count=one.counts[-1],
        rate=one.rate,
        remark=printable(
            ", ".join(
                each
                for each in (one.subject, one.pattern, confidence_words(one.confidence))
                if each
            )
        ),
        evidence=tuple(Signal(printable(e.text), supports=e.supports) for e in one.evidence),
        lines=() if one.place is None else tuple(_way(one.place)),
    )


def _course(one: GrownPart, times: np.ndarray) -> GaugeCourse:
    return GaugeCourse(
        name="held there" if one.subject == "place" else "bytes of objects",
        subject=printable(one.name),
        verdict=str(one.verdict),
        tone=_TONES.get(one.verdict, Tone.CALM),
        unit="bytes",
        times_ns=times,
        values=np.array(one.sizes, np.float64),
        sentence=printable(one.sentence),
    )


def _strong(growth: DumpGrowth, times: np.ndarray) -> GaugeCourse:
    return GaugeCourse(
        name="strongly held",
        subject="the heap",
        verdict="",
        tone=Tone.CALM,
        unit="bytes",
        times_ns=times,
        values=np.array([one.strong_bytes for one in growth.answers], np.float64),
    )
