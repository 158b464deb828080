# SPDX-License-Identifier: Apache-2.0
"""Who holds the blocks of one site, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import PurePath
from typing import TYPE_CHECKING

from leakscope.report._places import chief_frame, function_text
from leakscope.report.text import printable
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from leakscope.model.findings import Finding
    from leakscope.model.holders import Holding, Reference

__all__ = ["place_text", "render_holders", "to_json"]

SCHEMA = "leakscope-holders/1"
_ROOTS = 5  # holders shown
_ENDS = 4  # steps shown at each end of a long path


def place_text(finding: Finding) -> str:
    """Return a short name of a finding's place: "insert() at table.c:31"."""
    frame = chief_frame(finding)
    if frame is None:
        return "an unknown place"
    name = function_text(frame)
    where = f"{printable(PurePath(frame.file).name)}:{frame.line}" if frame.file else None
    if name and where:
        return f"{name} at {where}"
    return name or where or "an unknown place"


def render_holders(
    finding: Finding,
    holdings: Sequence[Holding],
    examined: int,
    sites: Mapping[int, Finding],
) -> str:
    """Return the answer for one site, ending in a newline. `sites` names other blocks."""
    live = plural(finding.live_count, "live block")
    lines = [f"leakscope: {live} of {bytes_text(finding.live_bytes)} from {place_text(finding)}"]
    if not holdings:
        lines.append("  none of them can be reached from a root: nothing holds them")
    for holding in holdings[:_ROOTS]:
        lines += ["", f"  {holding.count:,} of {examined:,} looked at are held by"]
        root = holding.path[0]
        lines.append(f"    {printable(holding.root)}{_offset(root)}")
        steps = [_step(reference, sites) for reference in holding.path[1:]]
        if len(steps) > 2 * _ENDS + 1:
            left_out = len(steps) - 2 * _ENDS
            steps[_ENDS:-_ENDS] = [f"... {left_out:,} more blocks ..."]
        lines += [f"    -> {step}" for step in steps]
        lines.append(f"    -> the block at {holding.example:#x}")
    if holdings[_ROOTS:]:
        lines += ["", f"  and {plural(len(holdings) - _ROOTS, 'other holder')}"]
    return "\n".join(lines) + "\n"


def to_json(answers: Sequence[tuple[Finding, Sequence[Holding], int]]) -> str:
    """Return the same for several sites as one JSON document."""
    sites = [
        {
            "fingerprint": finding.fingerprint,
            "place": place_text(finding),
            "live_count": finding.live_count,
            "live_bytes": finding.live_bytes,
            "examined": examined,
            "holders": [asdict(holding) for holding in holdings],
        }
        for finding, holdings, examined in answers
    ]
    return json.dumps({"schema": SCHEMA, "sites": sites}, indent=1) + "\n"


def _step(reference: Reference, sites: Mapping[int, Finding]) -> str:
    size = bytes_text(reference.size or 0)
    maker = sites.get(reference.site) if reference.site is not None else None
    made = f" from {place_text(maker)}" if maker is not None else ""
    return f"block of {size}{made}{_offset(reference)}"


def _offset(reference: Reference) -> str:
    if not reference.offset:
        return ""
    sign = "+" if reference.offset > 0 else "-"
    return f" {sign} {abs(reference.offset):,}"
