# SPDX-License-Identifier: Apache-2.0
"""Places in a program as lines of text: one frame, a call stack, the source around a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from leakscope.model.frames import Frame
from leakscope.report.text import (
    cells,
    clip_left,
    clip_right,
    name_within,
    plural,
    printable,
)

if TYPE_CHECKING:
    from leakscope.model.findings import Finding
    from leakscope.report.ink import Ink

__all__ = [
    "SourceContext",
    "chief_frame",
    "function_text",
    "location_text",
    "place_lines",
    "source_lines",
    "stack_lines",
]

SourceContext = Callable[[Frame, int], Sequence[tuple[int, str]]]
"""Returns numbered source lines within a radius around a frame's line, empty when unknown."""

_INDENT = "   "
_RADIUS = 2  # source lines shown on each side of the marked one
_INNER, _OUTER = 7, 3  # frames kept at each end when a stack is cut in the middle

# What calls main is the C library's start-up code and says nothing about the program.
_STARTUP = frozenset(
    {"_start", "_start_c", "__libc_start_main", "__libc_start_call_main", "__libc_start_main_impl"}
)


def chief_frame(finding: Finding) -> Frame | None:
    """Return the frame that names the place: the user's line, else the innermost known one."""
    if finding.source is not None:
        return finding.source
    named = (f for f in finding.stack if f.function is not None)
    return next(named, finding.stack[0] if finding.stack else None)


def function_text(frame: Frame) -> str | None:
    """Return the function's printable name, None when nobody knows it."""
    name = frame.function or frame.symbol
    return printable(name) if name else None


def location_text(frame: Frame, ink: Ink) -> str:
    """Return `file:line`, or `module+0xoffset` when the line is not known."""
    if frame.file is not None:
        path = frame.file
        base = (ink.base or "").rstrip("/") + "/"
        if base != "/" and path.startswith(base):
            path = path[len(base) :]
        path = printable(path)
        return f"{path}:{frame.line}" if frame.line is not None else path
    if frame.artificial:
        return ""
    if frame.module_path is None:
        return f"0x{frame.address.offset:x}"
    return f"{printable(frame.module_path.rsplit('/', 1)[-1])}+0x{frame.address.offset:x}"


def place_lines(finding: Finding, ink: Ink) -> list[str]:
    """Return the function and the full path of its line, the one thing that is never cut."""
    frame = chief_frame(finding)
    if frame is None:
        return [f"{_INDENT}(no call stack was recorded)"]
    location = location_text(frame, ink)
    function = function_text(frame)
    if function is None:
        return [_INDENT + ink.bold(location)]
    name = name_within(function, ink.width - len(_INDENT) - 3, ink.ellipsis)
    if cells(f"{_INDENT}in {name} at {location}") <= ink.width:
        return [f"{_INDENT}in {ink.bold(name)} at {ink.bold(location)}"]
    return [f"{_INDENT}in {ink.bold(name)}", f"{_INDENT}at {ink.bold(location)}"]


def source_lines(finding: Finding, ink: Ink, source_context: SourceContext | None) -> list[str]:
    """Return the source around the finding's line, blank lines about it; empty when unknown."""
    frame = finding.source
    if frame is None or frame.line is None or source_context is None:
        return []
    context = source_context(frame, _RADIUS)
    if not context:
        return []
    digits = len(str(context[-1][0]))
    room = ink.width - digits - len(_INDENT) - 5
    lines = [""]
    for number, raw in context:
        text = clip_right(printable(raw.rstrip().expandtabs(4)), room, ink.ellipsis)
        marked = number == frame.line
        mark = ink.marker if marked else " "
        line = f"{_INDENT}{mark} {number:>{digits}} {ink.bar} {text}".rstrip()
        lines.append(ink.bold(line) if marked else ink.dim(line))
    return [*lines, ""]


class Placed(Protocol):
    """What has a call stack, and perhaps a line to look at."""

    @property
    def stack(self) -> tuple[Frame, ...]:
        """Innermost frame first."""

    @property
    def source(self) -> Frame | None:
        """One of the stack."""


def stack_lines(finding: Placed, ink: Ink, *, whole: bool) -> list[str]:
    """Return one line a frame, innermost first; unless `whole`, without what tells little."""
    rows: list[tuple[int, Frame] | None] = list(enumerate(finding.stack))
    if not whole:
        rows = rows[: _user_part(finding.stack)]
    cut = len(rows) - _INNER - _OUTER
    if whole or cut < 2:
        cut = 0
    else:
        rows[_INNER : _INNER + cut] = [None]
    labels = [_label(row[1], ink.width, ink.ellipsis) for row in rows if row is not None]
    # As wide as the names need, at most 45 % of the line.
    column = min(max(map(cells, labels), default=0), max(ink.width * 45 // 100, 16))
    lines = []
    for row in rows:
        if row is None:
            text = f"{ink.ellipsis} {plural(cut, 'more frame')}, shown with --verbose"
            lines.append(ink.dim(f"{_INDENT}  {text}"))
        else:
            lines.append(_row(*row, row[1] == finding.source, column, ink))
    return lines


def _user_part(stack: Sequence[Frame]) -> int:
    if not any(frame.function == "main" for frame in stack):
        return len(stack)
    end = len(stack)
    while end > 1 and (stack[end - 1].artificial or stack[end - 1].function in _STARTUP):
        end -= 1
    return end


def _label(frame: Frame, room: int, ellipsis: str) -> str:
    suffix = " (inlined)" if frame.inlined else ""
    name = function_text(frame) or ("(stack ends here)" if frame.artificial else "??")
    return name_within(name, max(room - len(suffix), 4), ellipsis) + suffix


def _row(index: int, frame: Frame, is_source: bool, column: int, ink: Ink) -> str:
    head = f"{_INDENT}{ink.marker if is_source else ' '} #{index:<2} "
    name = _label(frame, column, ink.ellipsis)
    name += " " * (column - cells(name))
    room = max(ink.width - cells(head) - column - 2, 8)
    location = clip_left(location_text(frame, ink), room, ink.ellipsis)
    if is_source:
        return ink.bold(f"{head}{name}  {location}")
    return f"{head}{name}  {ink.dim(location)}" if location else f"{head}{name}".rstrip()
