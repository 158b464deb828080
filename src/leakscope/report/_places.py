# SPDX-License-Identifier: Apache-2.0
"""Places in a program as lines of text: one frame, a call stack, the source around a line."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from leakscope.model.amounts import sum_known
from leakscope.model.frames import Frame
from leakscope.report.text import cells, clip_left, clip_right, name_within, printable
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from leakscope.model.findings import Finding
    from leakscope.report.ink import Ink

__all__ = [
    "SourceContext",
    "both_within",
    "callers_lines",
    "chief_frame",
    "function_text",
    "location_text",
    "place_lines",
    "relative",
    "source_lines",
    "stack_lines",
]

SourceContext = Callable[[Frame, int], Sequence[tuple[int, str]]]
"""Returns numbered source lines within a radius around a frame's line, empty when unknown."""

_INDENT = "   "
_RADIUS = 2  # source lines shown on each side of the marked one
_CALLERS = 4  # shown of a place that several call
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
    """Return the function's printable name, with its class; None when nobody knows it."""
    name = frame.function or frame.symbol
    if name and frame.class_name:
        name = f"{frame.class_name}.{name}"
    return printable(name) if name else None


def location_text(frame: Frame, ink: Ink) -> str:
    """Return `file:line`, or `module+0xoffset` when the line is not known."""
    if frame.file is not None:
        path = printable(relative(frame.file, ink, here=""))
        return f"{path}:{frame.line}" if frame.line is not None else path
    if frame.artificial:
        return ""
    return _module_offset(frame)


def _module_offset(frame: Frame) -> str:
    module = printable((frame.module_path or "").rsplit("/", 1)[-1])
    if frame.address is None:
        return module
    return f"{module}+0x{frame.address.offset:x}" if module else f"0x{frame.address.offset:x}"


def relative(path: str, ink: Ink, here: str = "./") -> str:
    """Return `path` as seen from the directory that paths are shown relative to."""
    base = (ink.base or "").rstrip("/") + "/"
    return here + path[len(base) :] if base != "/" and path.startswith(base) else path


def place_lines(finding: Finding, ink: Ink) -> list[str]:
    """Return the function and the full path of its line, the one thing that is never cut.

    Then the helpers through which it allocated.
    """
    frame = chief_frame(finding)
    if frame is None:
        return [f"{_INDENT}(no call stack was recorded)"]
    lines = _place(frame, "in", ink, ink.bold)
    for helper in reversed(finding.through):
        lines += _place(helper, "through", ink, str)
    return lines


def _place(frame: Frame, how: str, ink: Ink, mark: Callable[[str], str]) -> list[str]:
    location, function = location_text(frame, ink), function_text(frame)
    if function is None:
        inside = f" (function at 0x{frame.entry:x})" if frame.entry is not None else ""
        lead = "" if how == "in" else f"{how} "
        return [f"{_INDENT}{lead}{mark(location)}{inside}"]
    name = name_within(function, ink.width - len(_INDENT) - len(how) - 1, ink.ellipsis)
    if not location:  # a source that tells a name and nothing else
        return [f"{_INDENT}{how} {mark(name)}"]
    if cells(f"{_INDENT}{how} {name} at {location}") <= ink.width:
        return [f"{_INDENT}{how} {mark(name)} at {mark(location)}"]
    return [f"{_INDENT}{how} {mark(name)}", f"{_INDENT}at {mark(location)}"]


def callers_lines(group: Sequence[Finding], ink: Ink, *, whole: bool) -> list[str]:
    """Return who calls the place at which all of `group` are, with the bytes of each caller."""
    above = [_above(finding) for finding in group]
    level = 0
    while len({tuple(_key(f, ink) for f in frames[level : level + 1]) for frames in above}) == 1:
        if len(above[0]) <= level:
            break
        level += 1  # where all come the same way, the next frame out tells them apart
    callers: dict[tuple[str, str], list[Finding]] = {}
    for finding, frames in zip(group, above, strict=True):
        key = _key(frames[level], ink) if len(frames) > level else ("", "")
        callers.setdefault(key, []).append(finding)
    if len(callers) == 1:
        others = group[1:]
        text = f"and {plural(len(others), 'more stack')} through the same place: {_amount(others)}"
        return ink.wrap(text, _INDENT)
    ordered = sorted(callers.items(), key=lambda item: -sum(f.leak_bytes for f in item[1]))
    shown = len(ordered) if whole or len(ordered) == _CALLERS + 1 else _CALLERS
    lines = [f"{_INDENT}called from"]
    for (function, location), members in ordered[:shown]:
        amount = f"{_INDENT}  {_amount(members)}  "
        where = both_within(function, location, max(ink.width - cells(amount), 16), ink)
        lines.append(amount + (where or "(outermost function)"))
    if ordered[shown:]:
        rest = [finding for _, members in ordered[shown:] for finding in members]
        lines += ink.wrap(
            f"{_amount(rest)} from {len(ordered) - shown} more callers", f"{_INDENT}  "
        )
    return lines


def _above(finding: Finding) -> list[Frame]:
    """The frames that called the place, up to the C library's start-up code."""
    frames = list(finding.stack)
    if finding.source in frames:
        frames = frames[frames.index(finding.source) + 1 :]
    own = (f for f in frames if not f.artificial)
    return list(itertools.takewhile(lambda f: f.function not in _STARTUP, own))


def _key(frame: Frame, ink: Ink) -> tuple[str, str]:
    return function_text(frame) or "", location_text(frame, ink)


def both_within(function: str, location: str, room: int, ink: Ink) -> str:
    """Return function and location in `room` columns; the location has precedence."""
    if cells(function) + 2 + cells(location) > room:
        location = clip_left(location, max(room * 3 // 5, 12), ink.ellipsis)
        left = room - cells(location) - 2
        function = name_within(function, left, ink.ellipsis) if left >= 6 else ""
    return f"{function}  {location}".strip()


def _amount(members: Sequence[Finding]) -> str:
    count = sum_known(f.leak_count for f in members)
    return f"{bytes_text(sum(f.leak_bytes for f in members))} in {plural(count, 'block')}"


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
    """How many frames there are before the C library's start-up code, at least one."""
    begins = (at for at, f in enumerate(stack) if at and f.function in _STARTUP)
    return next(begins, len(stack))


def _label(frame: Frame, room: int, ellipsis: str) -> str:
    suffix = " (inlined)" if frame.inlined else ""
    name = function_text(frame)
    if name is None and not frame.artificial:
        # Where the frame is, is all there is to call it by.
        return clip_left(_module_offset(frame), room, ellipsis)
    name = name or "(stack ends here)"
    return name_within(name, max(room - len(suffix), 4), ellipsis) + suffix


def _row(index: int, frame: Frame, is_source: bool, column: int, ink: Ink) -> str:
    head = f"{_INDENT}{ink.marker if is_source else ' '} #{index:<2} "
    name = _label(frame, column, ink.ellipsis)
    name += " " * (column - cells(name))
    room = max(ink.width - cells(head) - column - 2, 8)
    nameless = frame.function is None and frame.symbol is None and frame.file is None
    location = "" if nameless else clip_left(location_text(frame, ink), room, ink.ellipsis)
    if is_source:
        return ink.bold(f"{head}{name}  {location}".rstrip())
    return f"{head}{name}  {ink.dim(location)}" if location else f"{head}{name}".rstrip()
