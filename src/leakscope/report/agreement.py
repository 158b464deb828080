# SPDX-License-Identifier: Apache-2.0
"""Two tools on one program, as text and as JSON: where they differ first, and why."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING

from leakscope.report.text import cells, printable
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from leakscope.model.agreements import Agreement, Opinion, SideBySide
    from leakscope.model.frames import Frame
    from leakscope.report.ink import Ink

__all__ = ["agreement_json", "render_agreement"]

_FRAMES = 6
_MOST_ROWS = 10
_OURS = "leakscope"


def render_agreement(found: Agreement, ink: Ink, *, limit: int = _MOST_ROWS) -> str:
    """Return the comparison as text."""
    differing = found.differing
    agreed = [row for row in found.rows if row.agree]
    lines = [ink.bold(_headline(found)), ""]
    for who, text in ((_OURS, found.ours), (found.tool, found.theirs)):
        lines += ink.wrap(text, f"  {who:<10} ", " " * 13)
    for number, row in enumerate(differing[:limit], 1):
        lines += ["", f"{number}. {_place(row)}", *_opinions(row, found.tool)]
        lines += ink.wrap(row.why or "", "   why: ", " " * 8)
        lines += [f"   #{n}  {_frame(frame)}" for n, frame in enumerate(_stack(row))]
    if len(differing) > limit:
        lines += [
            "",
            f"{plural(len(differing) - limit, 'more place')} on which they differ: --limit",
        ]
    if agreed:
        lines += ["", "Agreed:"]
        lines += [_agreed(row) for row in agreed[:limit]]
        if len(agreed) > limit:
            lines.append(f"  and {plural(len(agreed) - limit, 'more place')}")
        for why in dict.fromkeys(row.why for row in agreed if row.why):
            lines += ink.wrap(why, "  ")
    lines.append("")
    for note in found.notes:
        lines += ink.wrap(note, "Note: ", "  ")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def agreement_json(found: Agreement) -> str:
    """Return the comparison as a JSON document."""
    rows = [
        {
            "place": _place(row),
            "stack": [_frame(frame) for frame in row.finding.stack],
            "stable_fingerprint": row.finding.stable_fingerprint,
            "kind": row.finding.kind,
            "leakscope": _as_json(row.ours),
            "tool": _as_json(row.theirs),
            "agree": row.agree,
            "matched_by": "function" if row.by_function else "stack",
            "why": row.why,
        }
        for row in found.rows
    ]
    document = {
        "schema": "leakscope-compare-1",
        "tool": found.tool,
        "leakscope_headline": found.ours,
        "tool_headline": found.theirs,
        "places": rows,
        "notes": list(found.notes),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _as_json(opinion: Opinion | None) -> dict[str, object] | None:
    if opinion is None:
        return None
    return {"verdict": opinion.verdict, "bytes": opinion.bytes, "count": opinion.count}


def _headline(found: Agreement) -> str:
    differ = len(found.differing)
    agree = len(found.rows) - differ
    if not found.rows:
        return f"leakscope: neither leakscope nor {found.tool} names a place that holds memory"
    if not differ:
        return f"leakscope: leakscope and {found.tool} agree on {plural(agree, 'place')}"
    also = f", and agree on {agree:,}" if agree else ""
    return f"leakscope: leakscope and {found.tool} differ on {plural(differ, 'place')}{also}"


def _opinions(row: SideBySide, tool: str) -> list[str]:
    wide = max(cells(_OURS), cells(tool))
    return [
        f"   {who:<{wide}}  {_told(opinion)}"
        for who, opinion in ((_OURS, row.ours), (tool, row.theirs))
    ]


def _told(opinion: Opinion | None) -> str:
    if opinion is None:
        return "nothing"
    blocks = "" if opinion.count is None else f" in {plural(opinion.count, 'block')}"
    return f"{opinion.verdict}, {bytes_text(opinion.bytes)}{blocks}"


def _agreed(row: SideBySide) -> str:
    shown = row.ours or row.theirs
    return f"  {_told(shown):<36}  {_place(row)}"


def _place(row: SideBySide) -> str:
    finding = row.finding
    frame = finding.source or next(iter(finding.stack), None)
    return "(no call stack)" if frame is None else _frame(frame)


def _stack(row: SideBySide) -> tuple[Frame, ...]:
    return row.finding.stack[:_FRAMES]


def _frame(frame: Frame) -> str:
    name = frame.function or frame.symbol or "?"
    path = frame.file or frame.module_path
    where = PurePath(path).name if path else ""
    number = f":{frame.line}" if frame.file and frame.line else ""
    return printable(f"{name}  {where}{number}".rstrip())
