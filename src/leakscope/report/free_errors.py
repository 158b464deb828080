# SPDX-License-Identifier: Apache-2.0
"""Wrong frees as text for a person at a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.report._places import stack_lines
from leakscope.report.ink import ALARM, STEP, WARNING, Ink
from leakscope.words import count_text, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.frames import Frame
    from leakscope.model.free_errors import FreeError

__all__ = ["free_error_lines", "free_error_summary"]

_INDENT = "   "


@dataclass(frozen=True, slots=True)
class _Place:
    stack: tuple[Frame, ...]
    source: Frame | None = None


def free_error_summary(errors: Sequence[FreeError], ink: Ink) -> list[str]:
    """Return one line that counts them by kind, to stand under the verdict; none without errors."""
    if not errors:
        return []
    counts: dict[str, int] = {}
    for error in errors:
        counts[error.kind] = counts.get(error.kind, 0) + error.count
    text = ", ".join(plural(count, kind) for kind, count in counts.items())
    if any(error.fatal for error in errors):
        text += "; the program ended in one"
    return ink.paint_all(ALARM, ink.wrap(text, "Wrong frees: ", "  "))


def free_error_lines(
    errors: Sequence[FreeError], ink: Ink, *, limit: int, verbose: bool
) -> list[str]:
    """Return a paragraph for each wrong free, with the stacks that are known."""
    lines = []
    for number, error in enumerate(errors[:limit], 1):
        lines += ["", *_paragraph(number, error, ink, verbose=verbose)]
    if errors[limit:]:
        more = plural(len(errors) - limit, "more place")
        lines += ["", *ink.wrap(f"{more} with wrong frees; --limit {len(errors)} shows all", "")]
    if errors:
        text = "Wrong frees do not change the exit status; --fail-on leaks,errors makes them."
        lines += ["", *ink.paint_all(STEP, ink.wrap(text, "", "  "))]
    return lines


def _paragraph(number: int, error: FreeError, ink: Ink, *, verbose: bool) -> list[str]:
    title = error.kind.upper()
    said = [f"{count_text(error.count)} times"] if error.count > 1 else []
    said += ["the program ended here"] if error.fatal else []
    lines = ink.wrap(ink.dot.join([title, *said]), f"F{number}. ", _INDENT)
    lines[0] = lines[0].replace(title, ink.paint(WARNING, title), 1)
    lines += ink.wrap(error.sentence, _INDENT)
    where = "given to realloc" if error.function == "realloc" else f"{error.function} called"
    lines += _stack(where, _Place(error.stack, error.source), ink, verbose=verbose)
    if error.first_free:
        lines += _stack("freed before", _Place(error.first_free), ink, verbose=verbose)
    if error.allocation:
        by = f"allocated with {error.allocated_by}" if error.allocated_by else "allocated"
        if error.size is not None and error.offset is None:
            by += f", {plural(error.size, 'byte')}"
        lines += _stack(by, _Place(error.allocation), ink, verbose=verbose)
    return lines


def _stack(title: str, place: _Place, ink: Ink, *, verbose: bool) -> list[str]:
    return [f"{_INDENT}{title}:", *stack_lines(place, ink, whole=verbose)]
