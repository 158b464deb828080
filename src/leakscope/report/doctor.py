# SPDX-License-Identifier: Apache-2.0
"""What will work here, as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from leakscope.report.text import printable

if TYPE_CHECKING:
    from leakscope.trace.doctor import Checkup

__all__ = ["render_checkup", "to_json"]

SCHEMA = "leakscope-doctor/1"
_MARKS = {"works": "+", "limited": "~", "missing": "-", "broken": "!", "note": " "}


def to_json(checkup: Checkup) -> str:
    """Return the checks as one JSON document."""
    return json.dumps({"schema": SCHEMA, **dataclasses.asdict(checkup)}, indent=2)


def render_checkup(checkup: Checkup) -> str:
    """Return the verdict and a line for each check."""
    width = max(len(check.name) for check in checkup.checks)
    lines = [printable(checkup.verdict)]
    for check in checkup.checks:
        lines.append(f"{_MARKS[check.state]} {check.name:<{width}}  {printable(check.text)}")
        if check.fix:
            lines.append(f"  {'':<{width}}  → {printable(check.fix)}")
    return "\n".join(lines)
