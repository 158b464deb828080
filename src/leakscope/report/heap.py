# SPDX-License-Identifier: Apache-2.0
"""What a scan of an untraced process found, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from leakscope.model.reachability import Reachability
from leakscope.report.ink import Ink
from leakscope.report.steps import step_lines
from leakscope.report.text import printable
from leakscope.words import bytes_text, duration_text, percent_text, plural

if TYPE_CHECKING:
    from leakscope.model.heap import HeapScan

__all__ = ["KINDS", "headline", "next_text", "render_heap", "to_json"]

SCHEMA = "leakscope-heap/1"
_SIZES = 8
_LOST = (Reachability.DEFINITELY_LOST, Reachability.INDIRECTLY_LOST)
KINDS = (
    (Reachability.DEFINITELY_LOST, "definitely lost: nothing points to them"),
    (Reachability.INDIRECTLY_LOST, "indirectly lost: only lost blocks point to them"),
    (Reachability.POSSIBLY_LOST, "possibly lost: only pointers to their inside"),
    (Reachability.REACHABLE, "still reachable"),
)
"""The kinds of blocks that a report tells of, worst first, and what they mean."""
_HOW = {
    "core": "of a core file",
    "copied": " to copy its memory",
    "forked": " to fork a copy of it",
    "frozen": " until its memory was read",
}


def render_heap(scan: HeapScan, name: str) -> str:
    """Return the report on one process, ending in a newline."""
    lines = [f"leakscope: {headline(scan, name)}"]
    for kind, text in KINDS:
        if scan.counts[kind]:
            blocks = plural(scan.counts[kind], "block")
            lines.append(f"  {bytes_text(scan.bytes[kind]):>9} in {blocks:<16} {text}")
    if scan.sizes:
        lines += ["", "Lost, by size of block:"]
        for each in scan.sizes[:_SIZES]:
            blocks = plural(each.definite + each.indirect, "block")
            lines.append(
                f"  {bytes_text(each.bytes):>9} in {blocks:<16} of {each.size:,} usable bytes"
            )
        if scan.content:
            lines += ["", "Lost, by what it looks like:"]
            for some in scan.content:
                share = percent_text(int(some.share * 1000), 1000)
                lines.append(f"  {share:>9} {printable(some.what)}")
    lines += ["", *step_lines(next_text(scan), Ink())]
    account = scan.account
    resident, mapped = bytes_text(account.resident), bytes_text(account.heap_mapped)
    live, free = bytes_text(account.live), bytes_text(account.free_in_allocator)
    top, overhead = bytes_text(account.top), bytes_text(account.overhead)
    walked = percent_text(int(scan.share * 1000), 1000)
    facts = scan.facts
    lines.append("")
    held = "in the core file" if scan.facts.method == "core" else "resident"
    lines.append(
        f"Memory: {resident} {held}; the heap of {printable(scan.allocator)} has {mapped}:"
    )
    lines.append(f"  {live} in use, {free} free inside the allocator,")
    lines.append(f"  {top} never used yet, {overhead} the allocator's own")
    how = _HOW.get(facts.method, "")
    if facts.method != "core":
        how = f"stopped for {facts.pause_ms:.0f} ms{how}"
    lines.append(
        f"Scan: {duration_text(round(facts.seconds * 1e9))}, {how}, {plural(facts.threads, 'thread')},"
        f" {bytes_text(facts.scanned_bytes)} looked at, {walked} of the heap walked"
    )
    lines += [f"Note: {printable(note)}" for note in scan.facts.notes]
    return "\n".join(lines) + "\n"


def headline(scan: HeapScan, name: str) -> str:
    """Return the verdict in one line."""
    count, size = sum(scan.counts[k] for k in _LOST), sum(scan.bytes[k] for k in _LOST)
    who = f"{printable(name)} (pid {scan.pid})"
    if scan.counts[Reachability.UNKNOWN]:
        head = f"{who}: could not tell what is lost"
    elif count:
        verb = "is" if count == 1 else "are"
        head = f"{who}: {plural(count, 'block')} of {bytes_text(size)} {verb} lost"
    else:
        head = f"{who}: no block is lost"
    return head


def next_text(scan: HeapScan) -> str:
    """Return what to do after a scan of what nobody traced."""
    lost = any(scan.counts[kind] for kind in _LOST)
    if scan.facts.method == "core":
        return "who allocates it: leakscope run -- PROGRAM" if lost else "nothing to mend"
    if lost:
        return f"whether more are lost, and how fast: leakscope find {scan.pid}"
    return f"whether it grows: leakscope watch {scan.pid} --for 2m"


def to_json(scan: HeapScan, name: str) -> str:
    """Return the same as one JSON document; sizes are bytes."""
    document = asdict(scan)
    document["counts"] = {kind.name.lower(): n for kind, n in scan.counts.items()}
    document["bytes"] = {kind.name.lower(): n for kind, n in scan.bytes.items()}
    named = name.encode("utf-8", "backslashreplace").decode()
    return json.dumps({"schema": SCHEMA, "executable": named, **document}, indent=1) + "\n"
