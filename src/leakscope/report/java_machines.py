# SPDX-License-Identifier: Apache-2.0
"""Java virtual machines on a terminal and as JSON: a list of them, and one of them closely."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from leakscope.model.findings import Verdict
from leakscope.model.series import TrendVerdict
from leakscope.report.ink import ALARM, CALM, WARNING
from leakscope.report.steps import step_lines
from leakscope.report.text import clip_right, printable
from leakscope.words import (
    amount_text,
    bytes_text,
    count_text,
    plural,
    rate_text,
    seconds_text,
    signed_amount,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.java_machines import MachineSeen, MachineWatched
    from leakscope.model.series import Trend
    from leakscope.report.ink import Ink

__all__ = ["GAUGES", "by_standing", "list_headline", "list_json", "list_step", "machine_name"]
__all__ += ["render_list", "render_watch", "standing", "watch_headline", "watch_json"]

SCHEMA = "leakscope-java/1"
WATCH_SCHEMA = "leakscope-java-watch/1"
GAUGES = {
    "heap_after_gc": "heap after collection",
    "metaspace": "metaspace",
    "classes": "classes",
    "threads": "threads",
    "memory": "private memory",
    "outside_heap": "memory outside the heap",
}
_ROWS = 8
_GROWN = (Verdict.LEAKING, Verdict.GROWING, Verdict.FILLING)


def standing(seen: MachineSeen) -> str:
    """Return "leak", "growing" or "": the worst that is known of a virtual machine."""
    verdicts = {trend.verdict for trend in seen.trends}
    if TrendVerdict.LEAK in verdicts:
        return "leak"
    return "growing" if TrendVerdict.GROWING in verdicts else ""


def by_standing(machines: Sequence[MachineSeen]) -> list[MachineSeen]:
    """Return them with what leaks first, then what grows, then the largest."""
    rank = {"leak": 0, "growing": 1, "": 2}
    return sorted(machines, key=lambda one: (rank[standing(one)], -(one.facts.memory or 0)))


def render_list(machines: Sequence[MachineSeen], ink: Ink) -> str:
    """Return the list, ending in a newline; what leaks first."""
    if not machines:
        return "leakscope: no Java virtual machine runs here that can be seen\n"
    ordered = by_standing(machines)
    worst = standing(ordered[0])
    colour = {"leak": ALARM, "growing": WARNING, "": CALM}[worst]
    lines = ink.paint_all(colour, ink.wrap(f"leakscope: {list_headline(ordered)}"))
    head = f"  {'pid':>8}  {'after GC':>10} {'of':>10} {'GCs':>6} {'metaspace':>10} {'threads':>7}"
    lines += ["", f"{head} {'private':>10}  program"]
    for one in ordered:
        lines.append(_row(one, ink))
        for said in (one.facts.unseen, one.facts.remark):
            if said is not None:
                lines += ink.wrap(said, " " * 12)
        for trend in one.trends:
            if trend.verdict in (TrendVerdict.LEAK, TrendVerdict.GROWING):
                name = GAUGES[trend.series.metric]
                lines += ink.wrap(f"{name}: {trend.verdict}: {trend.sentence}", " " * 12)
    lines += ["", *step_lines(list_step(ordered), ink)]
    return "\n".join(lines) + "\n"


def list_headline(machines: Sequence[MachineSeen]) -> str:
    """Return in one line how those do that run here; what leaks is the first of them."""
    count = plural(len(machines), "Java virtual machine")
    first = machines[0]
    worst = standing(first)
    if not worst:
        return f"{count} here, none that is seen to grow fast"
    name = f"{machine_name(first)} ({first.facts.pid})"
    what = "leaks" if worst == "leak" else "grows fast"
    return f"{count} here; {name} {what}"


def list_step(machines: Sequence[MachineSeen]) -> str:
    """Return what to do next about the first of them."""
    return f"whose growth is it: leakscope java watch {machines[0].facts.pid}"


def machine_name(one: MachineSeen) -> str:
    """Return its main class or archive."""
    return printable(one.facts.name.split(" ")[0]) or "java"


def _row(one: MachineSeen, ink: Ink) -> str:
    facts = one.facts
    used = "-" if facts.heap_used is None else bytes_text(facts.heap_used)
    most = "-" if facts.heap_most is None else bytes_text(facts.heap_most)
    meta = "-" if facts.metaspace is None else bytes_text(facts.metaspace)
    threads = "-" if facts.threads is None else str(facts.threads)
    memory = "-" if facts.memory is None else bytes_text(facts.memory)
    collections = "-" if facts.collections is None else count_text(facts.collections)
    program = f"{facts.name} (Java {facts.version or '?'}, {facts.user})"
    line = (
        f"  {facts.pid:>8}  {used:>10} {most:>10} {collections:>6} {meta:>10} {threads:>7}"
        f" {memory:>10}  {printable(program)}"
    )
    return clip_right(line, max(ink.width, 100), ink.ellipsis)


def render_watch(watched: MachineWatched, ink: Ink) -> str:
    """Return the answer on one virtual machine, ending in a newline."""
    colour = CALM
    if watched.verdict is not None:
        colour = ALARM if watched.verdict.is_leak else WARNING
    facts = watched.seen.facts
    lines = ink.paint_all(colour, ink.wrap(f"leakscope: {watch_headline(watched)}"))
    lines += ["", f"  in {seconds_text(watched.seconds)}:"]
    for name, first, last, unit in watched.changes:
        change = signed_amount(last - first, unit) or "0"
        lines.append(
            f"  {printable(name):<28} {amount_text(first, unit):>12} {amount_text(last, unit):>12}"
            f" {change:>12}"
        )
    growers = [c for c in watched.classes if c.verdict in _GROWN]
    if growers:
        lines += ["", f"  {'verdict':<9} {'first':>10} {'last':>10} {'rate':>12}  class"]
    for one in growers[:_ROWS]:
        rate = "" if one.rate is None else rate_text(one.rate)
        first_size, last_size = bytes_text(one.sizes[0]), bytes_text(one.sizes[-1])
        name = clip_right(printable(one.class_name), max(ink.width - 50, 30), ink.ellipsis)
        lines.append(f"  {one.verdict:<9} {first_size:>10} {last_size:>10} {rate:>12}  {name}")
    told = [t for t in watched.seen.trends if _tells(t)]
    for trend in told:
        text = f"{GAUGES[trend.series.metric]}: {trend.verdict}: {trend.sentence}"
        lines += ink.wrap(text, "  ", "    ")
    if watched.histograms:
        cost = f"{plural(watched.histograms, 'histogram')}, each a stop of"
        lines.append(ink.dim(f"  Cost: {cost} {seconds_text(watched.paused_ms / 1000)} at most"))
    if facts.remark is not None:
        lines += ink.wrap(facts.remark, "  Note: ", "    ")
    for note in watched.notes:
        lines += ink.wrap(note, "  Not seen: ", "    ")
    return "\n".join([*lines, "", *step_lines(watched.next_step, ink)]) + "\n"


def watch_headline(watched: MachineWatched) -> str:
    """Return in one line whose growth it is."""
    name = f"{machine_name(watched.seen)} ({watched.seen.facts.pid})"
    return f"{name}: {watched.verdict or 'no growth'}: {watched.sentence}"


def _tells(trend: Trend) -> bool:
    return trend.verdict not in (TrendVerdict.NOT_ENOUGH_DATA, TrendVerdict.PLATEAU)


def list_json(machines: Sequence[MachineSeen]) -> str:
    """Return the list as a document."""
    return json.dumps({"schema": SCHEMA, "machines": [_seen(one) for one in machines]}) + "\n"


def watch_json(watched: MachineWatched) -> str:
    """Return the answer on one virtual machine as a document."""
    document: dict[str, Any] = {
        "schema": WATCH_SCHEMA,
        "machine": _seen(watched.seen),
        "seconds": watched.seconds,
        "verdict": watched.verdict,
        "growth_of": watched.growth_of,
        "sentence": watched.sentence,
        "next_step": watched.next_step,
        "changes": [
            {"what": what, "first": first, "last": last, "unit": unit}
            for what, first, last, unit in watched.changes
        ],
        "classes": [asdict(one) for one in watched.classes],
        "histograms": watched.histograms,
        "paused_ms": watched.paused_ms,
        "notes": watched.notes,
    }
    return json.dumps(document) + "\n"


def _seen(one: MachineSeen) -> dict[str, Any]:
    gauges = {
        trend.series.metric: {
            "verdict": trend.verdict,
            "confidence": trend.confidence,
            "sentence": trend.sentence,
            "unit": trend.series.unit,
            "values": trend.series.values.tolist(),
        }
        for trend in one.trends
    }
    return {**asdict(one.facts), "standing": standing(one), "gauges": gauges}
