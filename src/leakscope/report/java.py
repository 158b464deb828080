# SPDX-License-Identifier: Apache-2.0
"""Heap dumps of Java on a terminal and as JSON: suspects of one, verdicts of several."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from leakscope.model.findings import Verdict
from leakscope.report.ink import ALARM, CALM, WARNING
from leakscope.report.steps import step_lines
from leakscope.report.text import clip_left, clip_right, printable
from leakscope.words import (
    bytes_text,
    confidence_words,
    count_text,
    plural,
    rate_text,
    seconds_text,
    share_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from leakscope.model.heapdump import DumpGrowth, GrownPart, HeapAnswer, HeapPlace, Suspect
    from leakscope.report.ink import Ink

__all__ = ["dump_headline", "dump_json", "growth_headline", "growth_json", "render_dump"]
__all__ += ["render_growth", "second_step"]

SCHEMA = "leakscope-java-heap/1"
GROWTH_SCHEMA = "leakscope-java-growth/1"
_ROWS, _MORE_ROWS = 8, 40
_STEPS = 12
_FRAMES, _MORE_FRAMES = 6, 64
_HELD = 4


def render_dump(answer: HeapAnswer, ink: Ink, *, limit: int = 10, verbose: bool = False) -> str:
    """Return the report on one dump, ending in a newline."""
    colour = WARNING if answer.suspects or answer.oddities else CALM
    lines = ink.paint_all(colour, ink.wrap(f"leakscope: {dump_headline(answer)}"))
    for number, suspect in enumerate(answer.suspects[:limit], 1):
        lines += ["", *_suspect_lines(number, suspect, ink, verbose)]
    for oddity in answer.oddities:
        lines += ["", *ink.wrap(f"{oddity.pattern}: {oddity.sentence}", "  ", "    ")]
        lines += step_lines(f"{oddity.next_step}.", ink, "    ")
    lines += ["", *_heap_lines(answer, ink)]
    lines += _class_lines(answer, ink, _MORE_ROWS if verbose else _ROWS)
    lines += _note_lines(answer.notes, ink)
    lines += ["", *step_lines(second_step(answer), ink)]
    return "\n".join(lines) + "\n"


def dump_headline(answer: HeapAnswer) -> str:
    """Return in one line what a dump tells."""
    name = answer.name
    if answer.suspects:
        first = answer.suspects[0]
        return f"{name}: {first.sentence}; one dump gives suspicions, and no verdict"
    if answer.oddities:
        return f"{name}: {answer.oddities[0].sentence}; one dump gives suspicions, and no verdict"
    held = bytes_text(answer.strong_bytes)
    return f"{name}: nothing holds a large share of its {held}; whether it grows, two dumps tell"


def second_step(answer: HeapAnswer) -> str:
    """Return what makes a verdict of one dump."""
    return f"take two more dumps, some time apart, and: leakscope report {answer.name} SECOND THIRD"


def _suspect_lines(number: int, suspect: Suspect, ink: Ink, verbose: bool) -> list[str]:
    lines = ink.wrap(suspect.sentence, f"  {number}. ", "     ")
    lines += _place_lines(suspect.place, ink, verbose)
    thread = suspect.thread
    if thread is not None and thread.stack:
        lines.append(f"     stack of {printable(thread.name)}:")
        shown = thread.stack[: _MORE_FRAMES if verbose else _FRAMES]
        for frame in shown:
            where = f" ({frame.file}:{frame.line})" if frame.file and frame.line else ""
            mark = ink.marker if frame == thread.frame else " "
            lines.append(f"      {mark} {printable(f'{frame.function}{where}')}")
        left = len(thread.stack) - len(shown)
        if left:
            lines.append(ink.dim(f"        {ink.ellipsis} {plural(left, 'more frame')}"))
    return [*lines, *step_lines(f"{suspect.next_step}.", ink, "     ")]


def _place_lines(place: HeapPlace, ink: Ink, verbose: bool) -> list[str]:
    """The way from what holds it to where memory accumulates, and what is there."""
    steps = place.path
    lines, shown = [], len(steps) if verbose else _STEPS
    for at, step in enumerate(steps):
        if shown // 2 <= at < len(steps) - shown // 2 and len(steps) > shown:
            if at == shown // 2:
                lines.append(f"       {ink.ellipsis} {plural(len(steps) - shown, 'step')}")
            continue
        name = f"class {step.class_name}" if step.is_class else step.class_name
        reference = f"{step.reference}  " if step.reference else ""
        mark = ink.marker if step.address == place.address else " "
        held = f"  {bytes_text(step.retained)}" if step.retained else ""
        text = clip_left(printable(f"{reference}{name}"), ink.width - 20, ink.ellipsis)
        lines.append(f"     {mark} {text}{ink.dim(held)}")
    if place.held:
        parts = ", ".join(
            f"{count_text(held.count)} {held.class_name} ({bytes_text(held.size)})"
            for held in place.held[:_HELD]
        )
        lines += ink.wrap(f"holds {parts}", "       ", "         ")
    return lines


def _heap_lines(answer: HeapAnswer, ink: Ink) -> list[str]:
    kind = "Android" if answer.android else "Java"
    lines = ink.wrap(
        f"Heap: {bytes_text(answer.strong_bytes)} strongly held; in all"
        f" {plural(answer.objects, 'object')} of {plural(answer.class_count, 'class', 'classes')},"
        f" {plural(answer.roots, 'root')} ({kind}, format {answer.version}, addresses of"
        f" {8 * answer.id_size} bits)"
    )
    for words, count, size in answer.levels:
        if count:
            lines += ink.wrap(
                f"{bytes_text(size)} in {plural(count, 'object')} {words}", "  ", "    "
            )
    for name, count, size in answer.heaps:
        lines.append(f"  heap {printable(name)}: {bytes_text(size)} in {plural(count, 'object')}")
    cost = f"Cost: {seconds_text(answer.seconds)}, {bytes_text(answer.memory)} of memory"
    return [*lines, ink.dim(f"{cost} ({answer.memory // max(answer.objects, 1)} bytes an object)")]


def _class_lines(answer: HeapAnswer, ink: Ink, rows: int) -> list[str]:
    shown = answer.classes[:rows]
    lines = ["", f"  {'size':>10}  {'objects':>12}  class"]
    for row in shown:
        name = clip_left(printable(row.class_name), ink.width - 28, ink.ellipsis)
        lines.append(f"  {bytes_text(row.size):>10}  {row.count:>12,}  {name}")
    left = answer.class_total - len(shown)
    if left > 0:
        lines.append(ink.dim(f"  {ink.ellipsis} and {plural(left, 'class', 'classes')} more"))
    return lines


def _note_lines(notes: Iterable[str], ink: Ink) -> list[str]:
    lines = [line for note in notes for line in ink.wrap(note, "Missing: ", "  ")]
    return ["", *lines] if lines else []


# ---- several


def render_growth(growth: DumpGrowth, ink: Ink, *, limit: int = 10, verbose: bool = False) -> str:
    """Return the report on several dumps, ending in a newline."""
    colour = ALARM if growth.verdict is Verdict.LEAKING else CALM
    if growth.verdict is Verdict.GROWING:
        colour = WARNING
    lines = ink.paint_all(colour, ink.wrap(f"leakscope: {growth_headline(growth)}"))
    shown = [one for one in growth.grown if one.subject != "class"]
    for number, one in enumerate(shown[:limit], 1):
        lines += ["", *_grown_lines(number, one, ink, verbose)]
    lines += _course_lines([g for g in growth.grown if g.subject == "class"], growth, ink, verbose)
    lines += ["", *_moment_lines(growth, ink)]
    lines += _note_lines(growth.notes, ink)
    return "\n".join(lines) + "\n"


def growth_headline(growth: DumpGrowth) -> str:
    """Return the verdict on several dumps in one line."""
    dumps = plural(len(growth.answers), "dump")
    span = growth.times_s[-1]
    over = f"{dumps} over {seconds_text(span)}" if span else dumps
    if growth.verdict is None:
        return f"no growth: nothing grew between {over}"
    first = growth.grown[0]
    known = f" ({first.pattern})" if first.pattern is not None else ""
    if growth.verdict in (Verdict.LEAKING, Verdict.GROWING):
        return f"{growth.verdict}: {first.name}{known} {first.sentence}"
    return f"no leak between {over}: {first.name} {first.sentence}"


def _grown_lines(number: int, one: GrownPart, ink: Ink, verbose: bool) -> list[str]:
    lines = ink.wrap(f"{one.verdict}: {one.name} {one.sentence}", f"  {number}. ", "     ")
    if one.pattern is not None:
        lines += ink.wrap(f"{one.pattern}", "     ")
    lines.append("     " + _course(one, ink))
    if verbose:
        for each in one.evidence:
            lines += ink.wrap(("for: " if each.supports else "against: ") + each.text, "     ")
    if one.place is not None:
        lines += _place_lines(one.place, ink, verbose)
    return lines


def _course(one: GrownPart, ink: Ink) -> str:
    arrow = " → " if ink.unicode else " -> "
    sizes = arrow.join(bytes_text(size) for size in one.sizes)
    counts = arrow.join(count_text(count) for count in one.counts)
    return f"{sizes}{ink.dot}{counts} {'entries' if one.subject == 'place' else 'objects'}"


def _course_lines(
    classes: Sequence[GrownPart], growth: DumpGrowth, ink: Ink, verbose: bool
) -> list[str]:
    if not classes:
        return []
    shown = classes[: _MORE_ROWS if verbose else _ROWS]
    lines = ["", f"  {'verdict':<9} {'first':>10} {'last':>10} {'rate':>12}  class"]
    for one in shown:
        rate = "" if one.rate is None else rate_text(one.rate)
        name = clip_left(printable(one.name), max(ink.width - 50, 20), ink.ellipsis)
        first, last = bytes_text(one.sizes[0]), bytes_text(one.sizes[-1])
        lines.append(f"  {one.verdict:<9} {first:>10} {last:>10} {rate:>12}  {name}")
    left = len(classes) - len(shown)
    rest = f"{plural(left, 'class', 'classes')} more; " if left else ""
    steady = plural(growth.steady, "class", "classes")
    return [*lines, ink.dim(f"  {rest}{steady} did not grow by what is worth a word")]


def _moment_lines(growth: DumpGrowth, ink: Ink) -> list[str]:
    lines = []
    for at, answer in zip(growth.times_s, growth.answers, strict=True):
        when = "at first" if at == growth.times_s[0] else f"after {seconds_text(at)}"
        soft = next((size for words, _, size in answer.levels if words.startswith("softly")), 0)
        more = f", {bytes_text(soft)} softly" if soft > answer.strong_bytes // 20 else ""
        text = f"{when}: {bytes_text(answer.strong_bytes)} strongly held{more}, {answer.name}"
        lines.append(clip_right(printable(text), ink.width, ink.ellipsis))
    return lines


# ---- JSON


def dump_json(answer: HeapAnswer) -> str:
    """Return one dump as a document."""
    document: dict[str, Any] = {"schema": SCHEMA, "verdict": None, **asdict(answer)}
    _name_rows(document)
    for suspect, one in zip(document["suspects"], answer.suspects, strict=True):
        suspect["share_text"] = share_text(one.share)
    return json.dumps(document, indent=1) + "\n"


def growth_json(growth: DumpGrowth) -> str:
    """Return several dumps as a document."""
    plain = asdict(growth)
    for answer in plain["answers"]:
        _name_rows(answer)
    for each, one in zip(plain["grown"], growth.grown, strict=True):
        each["confidence_words"] = confidence_words(one.confidence)
    return json.dumps({"schema": GROWTH_SCHEMA, **plain}, indent=1) + "\n"


def _name_rows(answer: dict[str, Any]) -> None:
    for name in ("levels", "heaps"):
        answer[name] = [
            {"what": what, "objects": objects, "bytes": size}
            for what, objects, size in answer[name]
        ]
