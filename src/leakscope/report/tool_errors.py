# SPDX-License-Identifier: Apache-2.0
"""Errors that another tool found beside leaks, as text: an account of their own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.report._places import stack_lines
from leakscope.report.ink import WARNING
from leakscope.report.text import printable
from leakscope.words import count_text, plural

if TYPE_CHECKING:
    from leakscope.model.findings import Findings
    from leakscope.model.frames import Frame
    from leakscope.model.tool_errors import FoundError
    from leakscope.report.ink import Ink

__all__ = ["tool_error_lines"]

_INDENT = "   "


@dataclass(frozen=True, slots=True)
class _Place:
    stack: tuple[Frame, ...]
    source: Frame | None = None


def tool_error_lines(findings: Findings, ink: Ink, *, limit: int, verbose: bool) -> list[str]:
    """Return the count by kind, then a paragraph for each error with a stack."""
    errors = findings.errors
    if not errors:
        return []
    counts = Counter[str]()
    for error in errors:
        counts[error.kind] += error.count
    total = sum(counts.values())
    text = ", ".join(f"{count_text(n)} {printable(kind)}" for kind, n in counts.most_common(8))
    more = f", and {plural(len(counts) - 8, 'more kind')}" if len(counts) > 8 else ""
    title = f"Errors that are no leaks: {count_text(total)} ({text}{more})"
    lines = ["", *ink.paint_all(WARNING, ink.wrap(title, "", "  "))]
    for number, error in enumerate(errors[:limit], 1):
        lines += _paragraph(number, error, ink, verbose=verbose)
    if errors[limit:]:
        lines += ink.wrap(
            f"{plural(len(errors) - limit, 'more error')}; --limit {len(errors)} shows all"
        )
    return lines


def _paragraph(number: int, error: FoundError, ink: Ink, *, verbose: bool) -> list[str]:
    times = f" ({count_text(error.count)} times)" if error.count > 1 else ""
    lines = ink.wrap(f"{printable(error.text)}{times}", f"E{number}. ", _INDENT)
    if error.stack:
        lines += stack_lines(_Place(error.stack), ink, whole=verbose)
    return lines
