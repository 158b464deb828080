# SPDX-License-Identifier: Apache-2.0
"""What memleax and libleak print: call stacks whose memory is older than a limit.

Both number the stacks, print each of them once or now and then, and end with statistics. There
`may-leak` is what was too old and is not freed yet; the lines before count what has come.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._text import (
    LogLines,
    frame,
    plain_number,
)
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Coverage, Process, Recording
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.builder import BuiltFrame

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"[Cc]all[Ss]tack\[\d{1,10}\](?:: memory expires with \d|: may-leak=\d| expires\. count=\d)"
    rb"|# start detect\. expire=\d|== Begin monitoring process \d"
)
_STACK = re.compile(r"([Cc])all[Ss]tack\[(\d{1,10})\](.{0,400})")
_EXPIRES = re.compile(
    r": memory expires with (\d{1,20}) bytes, (?:(\d{1,20}) times again|backtrace:)"
)
_COUNTED = re.compile(r" expires\. count=(\d{1,20}) size=\d{1,20}/(\d{1,20}) ")
_FREED = re.compile(
    r" frees after expired\. live=\d{1,20} expired=\d{1,20} free_expired=(\d{1,20})"
)
_MAY_LEAK = re.compile(r": may-leak=(\d{1,20}) \((\d{1,20}) bytes\)")
_FRAME = re.compile(r"\s{1,80}0x([0-9a-fA-F]{1,16})\s{2,40}(\S.{0,4096})$")
_NAME = re.compile(r"(.{1,2000})\(\)(?:\+\d{1,12})?$")
_PID = re.compile(r"== Begin monitoring process (\d{1,10})")
_ALLOCATORS = {"malloc", "calloc", "realloc", "reallocarray", "memalign", "posix_memalign"}


@dataclass(slots=True)
class _Stack:
    size: int = 0
    count: int = 0
    freed: int = 0
    frames: list[BuiltFrame] = field(default_factory=list)
    known: bool = False  # by the statistics
    open: bool = True  # its frames are still being read
    read: int = 0


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is output of memleax or of libleak."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of the output. Raises `RecordingError`."""
    lines = LogLines(file)
    stacks: dict[int, _Stack] = {}
    current: _Stack | None = None
    pid: int | None = None
    tool, begun, left_out = "memleax", False, 0
    for line in lines:
        if (found := _STACK.search(line)) is not None:
            begun = True
            tool = "memleax" if found[1] == "C" else "libleak"
            number = int(found[2])
            if number not in stacks and len(stacks) >= MOST_RECORDS:
                left_out += 1
                continue
            current = stacks.setdefault(number, _Stack())
            current.open = not current.frames
            _count(current, found[3])
        elif current is not None and (found := _FRAME.match(line)) is not None:
            if current.open and not lines.cut:
                _add(current, int(found[1], 16), found[2])
        elif (found := _PID.search(line)) is not None:
            pid, begun = plain_number(found[1]), True
        elif "start detect. expire=" in line:
            tool, begun = "libleak", True
    if not begun:
        raise RecordingError(f"{file.path} has a line of memleax in it, and no call stack")
    counted = any(stack.known for stack in stacks.values())
    kept = [stack for stack in stacks.values() if stack.known or not counted]
    build = RecordingBuilder(
        Process(pid=pid), _coverage(tool, kept, counted=counted, cut=lines.cut, left_out=left_out)
    )
    for stack in kept:
        if stack.count > stack.freed:
            each = stack.size // stack.count
            size, count = stack.size - stack.freed * each, stack.count - stack.freed
            build.site(build.stack(stack.frames), "malloc", live_bytes=size, live_count=count)
    return (build.build(),)


def _count(stack: _Stack, text: str) -> None:
    """Read what is told behind the number of a stack."""
    if (found := _MAY_LEAK.match(text)) is not None:
        count, size = plain_number(found[1]), plain_number(found[2])
        if count is not None and size is not None:
            stack.count, stack.size, stack.freed, stack.known = count, size, 0, True
    elif stack.known:
        return
    elif (found := _EXPIRES.match(text)) is not None:
        size, times = plain_number(found[1]), plain_number(found[2] or "1")
        if size is not None and times is not None and size * times < 1 << 40:
            stack.count, stack.size = max(stack.count, times), max(stack.size, size * times)
    elif (found := _COUNTED.match(text)) is not None:
        count, size = plain_number(found[1]), plain_number(found[2])
        if count is not None and size is not None:
            stack.count, stack.size = count, size
    elif (found := _FREED.match(text)) is not None:
        stack.freed = plain_number(found[1]) or 0


def _add(stack: _Stack, address: int, text: str) -> None:
    """Add a frame: module, then function and place in either order."""
    module, *rest = re.split(r"\s{2,}", text.strip())
    function = file = None
    line: int | None = None
    for part in rest:
        name = _NAME.match(part)
        if name is not None:
            function = name[1]
        elif ":" in part:
            file, _, number = part.rpartition(":")
            line = plain_number(number)
    stack.read += 1
    own = module.startswith("libleak") or function in _ALLOCATORS
    if not stack.frames and own and stack.read <= 2:
        return
    built = frame(address, function, file, line, module)
    if built is not None and len(stack.frames) < MOST_FRAMES:
        stack.frames.append(built)


def _coverage(
    tool: str, stacks: list[_Stack], *, counted: bool, cut: bool, left_out: int
) -> Coverage:
    held = [stack for stack in stacks if stack.count > stack.freed]
    notes = [f"{tool} lists memory that was not freed within a time; some of it can be freed later"]
    if not counted:
        notes.append("the statistics at its end are missing: what it counted until then is told")
    unknown = sum(not stack.frames for stack in held)
    if unknown:
        notes.append(f"the file has no call stack for {plural(unknown, 'place')}")
    if cut:
        notes.append("the file is cut within its last line")
    if left_out:
        notes.append(f"not read: {plural(left_out, 'line')}")
    return Coverage(mode=tool, troubles=() if held else (NO_CHECK,), notes=tuple(notes))
