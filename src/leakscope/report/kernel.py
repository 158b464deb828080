# SPDX-License-Identifier: Apache-2.0
"""The screen on a kernel's memory: verdict, who holds it, what this kernel tells, what to enable."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from leakscope.report.ink import CALM, WARNING
from leakscope.report.steps import step_lines
from leakscope.report.text import clip_right, printable
from leakscope.words import bytes_text, count_text, signed_rate

if TYPE_CHECKING:
    from leakscope.model.kernel_state import KernelHolder, KernelState
    from leakscope.report.ink import Ink

__all__ = ["render_kernel", "to_json"]

SCHEMA = "leakscope-kernel/1"
_TITLES = {
    "line": "Source lines that hold most:",
    "cache": "Caches of objects that hold most:",
    "vmalloc": "Functions with the largest buffers (vmalloc):",
}
_SHOWN = 6
_WORTH = 65_536.0  # bytes a second that are worth a word
_MARKS = {"works": "+", "off": "-", "denied": "!", "absent": "-"}


def render_kernel(state: KernelState, ink: Ink) -> str:
    """Return the screen, verdict first and the next command last, ending in a newline."""
    colour = WARNING if state.oddities else CALM
    lines = ink.paint_all(colour, ink.wrap(f"leakscope: {printable(state.verdict)}"))
    lines.append(f"Linux {printable(state.release)}")
    lines += ink.wrap(
        f"Besides, {bytes_text(state.reclaimable)} are caches that it gives back on demand;"
        f" {bytes_text(state.unexplained)} of its memory are in no counter."
    )
    for odd in state.oddities:
        lines += ["", *ink.wrap(printable(odd.sentence), indent="! ", hanging="  ")]
        lines += step_lines(odd.next_step, ink, "  ")
    for kind, title in _TITLES.items():
        own = [one for one in state.holders if one.kind == kind][:_SHOWN]
        if own:
            lines += ["", title, *(_row(one, ink) for one in own)]
    lines += ["", "What this kernel tells:"]
    width = max(len(one.name) for one in state.sources)
    for one in state.sources:
        lead = f"{_MARKS.get(one.state, '-')} {one.name:<{width}}  "
        text = one.tells if one.state == "works" else f"{one.state}: {one.why}"
        if one.enable:
            text += f"; to have it: {one.enable}"
        lines += ink.wrap(printable(text), indent=lead, hanging=" " * len(lead))
    lines += [""] if state.notes else []
    for note in state.notes:
        lines += ink.wrap(f"Note: {printable(note)}.")
    return "\n".join([*lines, *step_lines(state.next_step, ink)]) + "\n"


def _row(one: KernelHolder, ink: Ink) -> str:
    count = f"{count_text(one.count):>12}" if one.count is not None else " " * 12
    text = f"  {bytes_text(one.bytes):>9} {count}  {printable(one.name)}"
    if abs(one.growth) >= _WORTH:
        text += f"  {signed_rate(one.growth)}"
    if one.note:
        text += f"  ({one.note})"
    return clip_right(text, ink.width, ink.ellipsis)


def to_json(state: KernelState) -> str:
    """Return the same as one JSON document; form: leakscope-kernel-1.json."""
    document = asdict(state)
    document["verdict"] = printable(state.verdict)
    for name in ("sources", "holders", "oddities"):
        document[name] = [
            {key: printable(v) if isinstance(v, str) else v for key, v in one.items()}
            for one in document[name]
        ]
    return json.dumps({"schema": SCHEMA, **document}, indent=1, allow_nan=False) + "\n"
