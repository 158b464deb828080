# SPDX-License-Identifier: Apache-2.0
"""The answer on one process on one screen: verdict, what grows, who holds it, what to do next."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from leakscope.model.found import FoundVerdict
from leakscope.report.earlier import TITLE, earlier_fields, earlier_texts
from leakscope.report.gauges import gauge_name
from leakscope.report.ink import ALARM, CALM, WARNING
from leakscope.report.steps import step_lines
from leakscope.report.text import clip_right, printable
from leakscope.words import (
    amount_text,
    bytes_text,
    count_text,
    duration_text,
    percent_text,
    plural,
    rate_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leakscope.model.census import Grown, HeapGrowth, HeldBy
    from leakscope.model.found import Found
    from leakscope.model.growth import Growth
    from leakscope.report.ink import Ink

__all__ = ["facts", "headline", "heap_growth_lines", "render_found", "to_json"]

SCHEMA = "leakscope-find/1"
_COLOURS = {FoundVerdict.LEAK: ALARM, FoundVerdict.CLEAN: CALM}
_ROWS, _MORE_ROWS = 2, 6
_KEY = 9
_PARTS = 4
_SUBJECT = 48  # columns of a name in the first line


def render_found(found: Found, ink: Ink) -> str:
    """Return the report, ending in a newline: what to know and to do in the first 24 lines."""
    colour = _COLOURS.get(found.verdict, WARNING)
    lines = ink.paint_all(colour, ink.wrap(f"leakscope: {headline(found, ink)}"))
    for key, text in facts(found):
        hanging = " " * (_KEY + 2)
        rows = ink.wrap(text, indent=f"  {key:<{_KEY}}"[: _KEY + 2], hanging=hanging)
        # A sentence that would take the screen has more of itself in the JSON.
        if len(rows) > 2:
            rows = [rows[0], clip_right(rows[1] + " " + rows[2].strip(), ink.width, ink.ellipsis)]
        lines += rows
    lines += step_lines(found.next_step, ink)
    lines += _details(found, ink)
    return "\n".join(lines) + "\n"


def headline(found: Found, ink: Ink) -> str:
    """Return the verdict in one line."""
    who = f"{clip_right(printable(found.name), _SUBJECT, ink.ellipsis)} (pid {found.pid})"
    heap, rate = found.heap, _rate(found)
    if found.verdict is FoundVerdict.LEAK and heap is not None:
        return (
            f"LEAK: {who} loses {rate}: {bytes_text(heap.now.lost_bytes)} in"
            f" {plural(heap.now.lost_blocks, 'block')} that nothing points to"
        )
    if found.verdict is FoundVerdict.GROWING:
        tail = "lost or needed is not known"
        if heap is not None and found.kind.startswith("heap"):
            tail = "all of it can still be reached, so this may be needed"
        elif not found.kind.startswith("private memory"):
            tail = "whether it needs them is not known"
        return f"GROWING: {who}, {found.kind} by {rate}; {tail}"
    if found.verdict is FoundVerdict.KEPT and heap is not None:
        kept, used = bytes_text(heap.spaces.free), bytes_text(heap.now.bytes)
        grows = f", growing by {rate}" if found.kind else ""
        return f"KEPT: {who}: {kept} are free inside the allocator, {used} in use{grows}; no leak"
    if heap is not None and heap.now.lost_blocks:
        lost = bytes_text(heap.now.lost_bytes)
        return f"no growth: {who} does not grow; {lost} are lost, and no more come"
    return f"no growth: {who} did not grow in {duration_text(round(found.seconds * 1e9))}"


def _rate(found: Found) -> str:
    for growth in found.others:
        if found.kind == _gauge(growth):
            return _rate_of(growth)
    return rate_text(found.rate)


def _gauge(growth: Growth) -> str:
    return gauge_name(growth.metric)


def _rate_of(growth: Growth) -> str:
    if growth.unit == "bytes":
        return rate_text(growth.rate)
    rate = growth.rate
    for size, name in ((1.0, "s"), (60.0, "min"), (3600.0, "h")):
        if rate * size >= 1:
            return f"{rate * size:,.1f}/{name}"
    return f"{rate * 86400:,.1f}/day"


def facts(found: Found) -> list[tuple[str, str]]:
    """Return the rows of the first screen: a key and what it says."""
    rows = [("process", f"{printable(found.name)}, pid {found.pid}")]
    if found.rivals:
        most = found.rivals[0]
        text = f"the fastest of {len(found.rivals) + 1}: next is pid {most.pid} with"
        rows.append(("chosen", f"{text} {rate_text(most.rate)}"))
    if found.kind:
        rows.append(("kind", found.kind))
    heap = found.heap
    if heap is not None and found.kind.startswith("heap"):
        for row in heap.grown[:_ROWS]:
            rows += _row(row, heap)
    for mapping in found.mappings[:_ROWS]:
        size = f" of {bytes_text(mapping.size)}" if mapping.size else ""
        came = mapping.count_now - mapping.count_then
        many = f", {plural(came, 'mapping')}{size} more" if came > 0 else ""
        text = f"{bytes_text(mapping.resident_now - mapping.resident_then)} more{many}"
        rows.append(("memory", f"{printable(mapping.name)}: {text}"))
    for name, count in found.descriptors[:_ROWS]:
        rows.append(("opened", f"{count_text(count)} more to {printable(name)}"))
    if found.verdict is FoundVerdict.KEPT and heap is not None:
        rows += _kept(heap)
    chief = next((g for g in found.others if found.kind == _gauge(g)), found.growth)
    if chief is not None:
        whose = "" if found.kind == _gauge(chief) else f"{_gauge(chief)}: "  # and not of the heap
        rows.append(("rate", f"{whose}{_growth(chief)}"))
    more = [g for g in (found.growth, *found.others) if g is not None and g is not chief]
    rows += [("also", f"{_gauge(g)}: {_growth(g)}") for g in more[:_ROWS] if g.rate > 0]
    rows += [("runtime", text) for text in found.runtimes[:1]]
    return rows


def _row(row: Grown, heap: HeapGrowth) -> list[tuple[str, str]]:
    sizes = f"{row.low:,}" if row.low == row.high else f"{row.low:,} to {row.high:,}"
    came = plural(max(row.blocks, 0), "block")
    rate = rate_text(max(row.bytes, row.lost_bytes) / max(heap.seconds, 1e-9))
    state = "lost" if row.lost_bytes * 2 > row.bytes else "reachable"
    rows = [
        ("size", f"{sizes} bytes: {came} and {bytes_text(row.bytes)} more, {rate}, {state}"),
        ("content", printable(row.what)),
    ]
    if row.place:
        rows[1] = ("place", printable(row.place))
    elif state == "lost":
        rows.append(("holder", "nobody: nothing points to them"))
    elif row.holders:
        rows.append(("holder", _holder(row.holders[0], row)))
    return rows


def _holder(held: HeldBy, row: Grown) -> str:
    share = percent_text(round(held.share * 1000), 1000)
    text = f"{printable(held.root)} ({share})"
    if not held.direct:
        return text
    if held.direct == f"blocks of {row.low:,} bytes ({row.what})":
        return f"{text}, as a list or tree of them"
    return f"{text}, through {printable(held.direct)}"


def _kept(heap: HeapGrowth) -> list[tuple[str, str]]:
    rows = []
    for part in heap.spaces.parts[:_ROWS]:
        whole = f", {bytes_text(part.whole_pages)} of it whole pages" if part.whole_pages else ""
        rows.append(("arena", f"{part.name}: {bytes_text(part.free)} free{whole}"))
    for size, count, free in heap.spaces.beside[:1]:
        rows.append(
            ("beside", f"{bytes_text(free)} lie behind {plural(count, 'block')} of {size:,} bytes")
        )
    return rows


def _growth(growth: Growth) -> str:
    if growth.rate <= 0:
        return f"{amount_text(growth.last, growth.unit)} {gauge_name(growth.metric)}, does not grow"
    steady = "steadily" if growth.steadiness >= 0.75 else "unsteadily"
    text = (
        f"{_rate_of(growth)}, {steady} for {duration_text(round(growth.since_s * 1e9))};"
        f" {amount_text(growth.last, growth.unit)} now"
    )
    left = growth.until_limit_s
    if left is not None and growth.limit is not None:
        whose = f" ({growth.limit_of})" if growth.limit_of else ""
        text += (
            f"; {amount_text(growth.limit, growth.unit)}{whose} are reached in"
            f" {duration_text(round(left * 1e9))}"
        )
    return text


def _details(found: Found, ink: Ink) -> list[str]:
    lines: list[str] = []
    heap = found.heap
    if heap is not None and len(heap.grown) > _ROWS:
        lines += ["", "Also grown in the heap:"]
        for row in heap.grown[_ROWS : _ROWS + _MORE_ROWS]:
            sizes = f"{row.low:,}" if row.low == row.high else f"{row.low:,}-{row.high:,}"
            text = f"{bytes_text(row.bytes):>9}  {sizes} bytes, {printable(row.place or row.what)}"
            if row.holders and not row.place:
                text += f", held by {printable(row.holders[0].root)}"
            lines.append(clip_right("  " + text, ink.width, ink.ellipsis))
    if heap is not None:
        lines += ["", *_heap(heap, ink)]
    if found.earlier is not None:
        told, fate = earlier_texts(found.earlier)
        lines += [*ink.wrap(told, f"{TITLE}: ", "  "), *ink.wrap(fate, "  ", "    ")]
    for setting in found.settings[1:]:
        lines += ink.wrap(f"Setting: {setting}.", hanging="  ")
    notes = [*found.unseen, *found.runtimes[1:], *(heap.notes if heap is not None else ())]
    for note in notes:
        lines += ink.wrap(f"Note: {note}.", hanging="  ")
    if found.verdict is FoundVerdict.CLEAN:
        lines += ink.wrap("Note: a leak that is slower than this time shows needs a watch.")
    return lines


def _heap(heap: HeapGrowth, ink: Ink) -> list[str]:
    then, now = heap.then, heap.now
    lines = ink.wrap(
        f"Heap: {bytes_text(now.bytes)} in {plural(now.blocks, 'block')} in use, was"
        f" {bytes_text(then.bytes)} in {count_text(then.blocks)};"
        f" {bytes_text(now.lost_bytes)} lost, was {bytes_text(then.lost_bytes)}.",
        hanging="  ",
    )
    if heap.account is not None:
        lines += ink.wrap(
            f"Free inside the allocator: {bytes_text(heap.spaces.free)} in memory,"
            f" {bytes_text(heap.spaces.whole_pages)} of it whole pages.",
            hanging="  ",
        )
    lines += ink.wrap(
        f"It stood still for {heap.facts_then.pause_ms:.0f} ms and {heap.facts.pause_ms:.0f} ms"
        f" ({heap.facts.method}), {heap.seconds:.0f} s apart.",
        hanging="  ",
    )
    return lines


def to_json(found: Found) -> str:
    """Return the same as one JSON document; its form is leakscope-find-1.json. Sizes are bytes."""
    document = {**asdict(found), "earlier": earlier_fields(found.earlier)}
    heap = found.heap
    if heap is not None:
        document["heap"]["proves_leak"] = heap.proves_leak
        document["heap"]["rate"] = heap.rate
        document["heap"]["lost_rate"] = heap.lost_rate
    body = {"schema": SCHEMA, "status": found.status, **document}
    return json.dumps(_plain(body), indent=1, allow_nan=False) + "\n"


def heap_growth_lines(
    grown: Mapping[int, HeapGrowth], failures: Mapping[int, str]
) -> dict[int, list[str]]:
    """Return what a watch says on the heaps that it walked twice, by pid."""
    found: dict[int, list[str]] = {}
    for pid, heap in grown.items():
        came = bytes_text(heap.now.lost_bytes - heap.then.lost_bytes)
        head = f"LEAK: {came} more are lost" if heap.proves_leak else "no lost bytes came"
        lines = [f"Heap of pid {pid} in {duration_text(round(heap.seconds * 1e9))}: {head}"]
        for row in heap.grown[:_ROWS]:
            lines += [f"  {key:<{_KEY}}{text}" for key, text in _row(row, heap)]
        found[pid] = lines
    for pid, why in failures.items():
        found[pid] = [f"Heap of pid {pid}: not walked: {printable(why)}"]
    return found


def _plain(value: object) -> object:
    """Return what JSON can say: names without control characters, no infinity."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
