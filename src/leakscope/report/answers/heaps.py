# SPDX-License-Identifier: Apache-2.0
"""The answers on heaps that nobody recorded: a walk of one, and two of them compared by `find`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.model.answers import AccountRow, AccountTable, Answer, Result, Tone
from leakscope.model.found import FoundVerdict
from leakscope.model.holders import Holding
from leakscope.model.reachability import Reachability
from leakscope.report import find as find_report
from leakscope.report import heap as heap_report
from leakscope.report.answers._parts import step_of
from leakscope.report.earlier import TITLE, earlier_tables, earlier_texts
from leakscope.report.gauges import gauge_name
from leakscope.report.ink import Ink
from leakscope.report.text import printable
from leakscope.words import amount_text, bytes_text, duration_text, percent_text, plural, rate_text

if TYPE_CHECKING:
    from leakscope.model.census import Grown, HeapGrowth
    from leakscope.model.found import Found
    from leakscope.model.growth import Growth
    from leakscope.model.heap import Account as HeapParts
    from leakscope.model.heap import HeapScan
    from leakscope.model.reachability import ScanFacts

__all__ = ["of_found", "of_heap"]

_LOST = (Reachability.DEFINITELY_LOST, Reachability.INDIRECTLY_LOST)
_WIDE = 10_000


def of_heap(scan: HeapScan, name: str) -> Answer:
    """Return the answer on one walk of the heap of the process `name`."""
    lost = any(scan.counts[kind] for kind in _LOST)
    unknown = scan.counts[Reachability.UNKNOWN]
    step = heap_report.next_text(scan)
    rows = [
        AccountRow(
            what.partition(":")[0],
            scan.bytes[kind],
            f"{plural(scan.counts[kind], 'block')}; {what.partition(': ')[2]}".removesuffix("; "),
            Tone.ALARM if kind in _LOST else Tone.CALM,
        )
        for kind, what in heap_report.KINDS
        if scan.counts[kind]
    ]
    if unknown:
        what = f"{plural(unknown, 'block')}; not examined"
        rows.append(AccountRow("unknown", scan.bytes[Reachability.UNKNOWN], what, Tone.WARNING))
    results = [
        Result(
            key=f"size-{each.size}",
            verdict="lost",
            tone=Tone.ALARM,
            title=f"blocks of {each.size:,} usable bytes",
            where="",
            sentence=f"{plural(each.definite, 'block')} that nothing points to,"
            f" {each.indirect:,} that only lost blocks point to.",
            amount=each.bytes,
            amount_text=bytes_text(each.bytes),
            count=each.definite + each.indirect,
        )
        for each in scan.sizes
    ]
    total = sum(row.amount for row in rows)
    reach = AccountTable(
        "Blocks in use, by what points to them", "bytes", tuple(rows), total, "in use"
    )
    content = [
        ("Looks like", f"{percent_text(int(c.share * 1000), 1000)} {c.what}") for c in scan.content
    ]
    return Answer(
        command="scan",
        subject=printable(f"{name} (pid {scan.pid})"),
        tone=Tone.WARNING if unknown else Tone.ALARM if lost else Tone.CALM,
        headline=heap_report.headline(scan, name),
        steps=(step_of(step),),
        accounts=(reach, _parts(scan.account, scan.allocator))
        if rows
        else (_parts(scan.account, scan.allocator),),
        results=tuple(results),
        coverage=_printable(
            [
                *content,
                ("Scan", _scan_text(scan.facts)),
                ("Walked", f"{percent_text(int(scan.share * 1000), 1000)} of the heap"),
                *(("Note", note) for note in scan.facts.notes),
            ]
        ),
    )


def _scan_text(facts: ScanFacts) -> str:
    how = "of a core file" if facts.method == "core" else f"stopped for {facts.pause_ms:.0f} ms"
    took = duration_text(round(facts.seconds * 1e9))
    return f"{took}, {how}, {bytes_text(facts.scanned_bytes)} looked at"


def _parts(parts: HeapParts, allocator: str) -> AccountTable:
    rows = (
        AccountRow("in use", parts.live, "by the program"),
        AccountRow("free inside the allocator", parts.free_in_allocator),
        AccountRow("never used yet", parts.top, "at the end of the heap"),
        AccountRow("the allocator's own", parts.overhead, "headers and tables"),
    )
    title = f"The heap of {printable(allocator)}"
    return AccountTable(title, "bytes", rows, parts.heap_mapped, "mapped")


def _printable(told: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, printable(text)) for name, text in told)


def of_found(found: Found) -> Answer:
    """Return the answer of `find` on one process."""
    ink = Ink(_WIDE)
    heap = found.heap
    results = [_grown(row, heap) for row in heap.grown] if heap is not None else []
    gauges = [g for g in (found.growth, *found.others) if g is not None and g.rate > 0]
    results += [_gauge(growth) for growth in gauges]
    results += [
        Result(
            key=printable(f"mapping-{each.name}-{each.size}"),
            verdict="growing",
            tone=Tone.WARNING,
            title=printable(each.name),
            where="",
            sentence=f"{bytes_text(each.resident_now)} in memory, was {bytes_text(each.resident_then)};"
            f" {plural(each.count_now, 'mapping')}, was {each.count_then:,}.",
            amount=each.resident_now - each.resident_then,
            amount_text=bytes_text(each.resident_now - each.resident_then),
            count=each.count_now - each.count_then,
        )
        for each in found.mappings
    ]
    accounts = []
    if heap is not None:
        accounts.append(_two_walks(heap))
        if heap.account is not None:
            accounts.append(_parts(heap.account, heap.allocator))
    accounts += earlier_tables(found.earlier)
    before = [(TITLE, text) for text in earlier_texts(found.earlier)] if found.earlier else []
    notes = [*found.unseen, *found.runtimes, *(heap.notes if heap is not None else ())]
    tones = {FoundVerdict.LEAK: Tone.ALARM, FoundVerdict.CLEAN: Tone.CALM}
    return Answer(
        command="find",
        subject=printable(f"{found.name} (pid {found.pid})"),
        tone=tones.get(found.verdict, Tone.WARNING),
        headline=find_report.headline(found, ink),
        about=(f"looked at for {duration_text(round(found.seconds * 1e9))}",),
        steps=(step_of(found.next_step),),
        accounts=tuple(accounts),
        results=tuple(results),
        coverage=_printable(
            [
                *find_report.facts(found),
                *(("setting", each) for each in found.settings),
                *before,
                *(("note", note) for note in notes),
            ]
        ),
    )


def _two_walks(heap: HeapGrowth) -> AccountTable:
    now = heap.now
    rows = (
        AccountRow(
            "lost",
            now.lost_bytes,
            f"{plural(now.lost_blocks, 'block')}; {bytes_text(heap.then.lost_bytes)} before",
            Tone.ALARM if heap.proves_leak else Tone.CALM,
        ),
        AccountRow(
            "reachable",
            now.bytes - now.lost_bytes,
            f"{plural(now.blocks - now.lost_blocks, 'block')};"
            f" {bytes_text(heap.then.bytes - heap.then.lost_bytes)} before",
        ),
    )
    return AccountTable("Blocks in use at the second walk", "bytes", rows, now.bytes, "in use")


def _grown(row: Grown, heap: HeapGrowth) -> Result:
    lost = row.lost_bytes * 2 > row.bytes
    sizes = f"{row.low:,}" if row.low == row.high else f"{row.low:,} to {row.high:,}"
    came = max(row.bytes, row.lost_bytes)
    return Result(
        key=printable(f"grown-{row.low}-{row.high}-{row.what}"),
        verdict="lost" if lost else "growing",
        tone=Tone.ALARM if lost and heap.proves_leak else Tone.WARNING,
        title=printable(row.place) or f"blocks of {sizes} bytes",
        where=printable(row.what) if not row.place else f"blocks of {sizes} bytes",
        sentence=f"{plural(max(row.blocks, 0), 'block')} and {bytes_text(came)} more"
        f" in {duration_text(round(heap.seconds * 1e9))}, "
        + ("lost: nothing points to them." if lost else "reachable."),
        amount=came,
        amount_text=bytes_text(came),
        count=row.blocks,
        rate=came / max(heap.seconds, 1e-9),
        holders=tuple(
            Holding(printable(held.root), round(held.share * 1000), 0, held.path)
            for held in row.holders
        ),
        lines=tuple(
            f"held by {printable(held.root)} ({percent_text(round(held.share * 1000), 1000)})"
            for held in row.holders
        ),
    )


def _gauge(growth: Growth) -> Result:
    unit = growth.unit
    return Result(
        key=printable(f"gauge-{growth.metric}"),
        verdict="growing",
        tone=Tone.WARNING,
        title=gauge_name(growth.metric),
        where="",
        sentence=f"{rate_text(growth.rate, unit)}, rose in {growth.rose} of {growth.steps} stretches"
        f" of {duration_text(round(growth.since_s * 1e9))}.",
        amount=round(growth.last) if unit == "bytes" else None,
        amount_text=amount_text(growth.last, unit),
        count=None if unit == "bytes" else round(growth.last),
        rate=growth.rate if unit == "bytes" else None,
    )
