# SPDX-License-Identifier: Apache-2.0
"""What memleak of bcc (Python) and of libbpf-tools (C) prints.

Every interval lists the stacks with the most memory that is not freed yet, from the beginning:
the last interval counts, and intervals are never added. Frames are innermost first.
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
    without_prefix,
)
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Coverage, Process, Recording
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.builder import BuiltFrame

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"\[\d{1,2}:\d{1,2}:\d{1,2}\] ?Top \d{1,10} stacks with outstanding allocations"
    rb"|[ \t]\d{1,20} bytes in \d{1,20} allocations from stack|(?:^|\n)\d{1,20} bytes in \d{1,20} allocations from stack"
)
# libbpf-tools does not pad the numbers of a time.
_INTERVAL = re.compile(r"\[(\d{1,2}:\d{1,2}:\d{1,2})\] ?Top (\d{1,10}) stacks with outstanding")
_STACK = re.compile(r"(?:^|\s)(\d{1,20}) bytes in (\d{1,20}) allocations from stack")
_ADDRESS = re.compile(r"\s{0,80}addr = (?:0x)?[0-9a-f]{1,16} size = \d{1,20}$")
_PID = re.compile(r"Attaching to pid (\d{1,10})")
_FRAME = re.compile(
    r"\s{0,80}(?:\d{1,4} (?=\[<))?"
    r"(?:\[<([0-9a-f]{1,16})>\]\s{0,40}|0x([0-9a-f]{1,16})(?:\s{1,40}|$))?(.{0,4096})$"
)
_MODULE = re.compile(r"(?:^|\s)\[([^\[\]]{1,4096})\]$")
_BROKEN = re.compile(r"\s{0,80}(?:\d{1,4} )?\[<[0-9a-f]{0,16}$")  # a frame that somebody cut
_OFFSET = re.compile(r"\+0x[0-9a-f]{1,16}$")
_MOST_INTERVALS = 1 << 20


@dataclass(slots=True)
class _Stack:
    size: int
    count: int
    frames: list[BuiltFrame] = field(default_factory=list)
    kernel: bool = False
    cut: bool = False


@dataclass(slots=True)
class _Interval:
    time: str | None
    asked: int | None = None
    stacks: list[_Stack] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The bytes of all its stacks."""
        return sum(stack.size for stack in self.stacks)


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has output of memleak."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of the last interval in the file. Raises `RecordingError`."""
    reader = _Reader()
    lines = LogLines(file)
    for line in lines:
        reader.take(line, cut=lines.cut)
    if reader.last is None:
        raise RecordingError(f"{file.path} has a line of memleak in it, and no list of stacks")
    return (_recording(reader, cut=lines.cut),)


class _Reader:
    """Takes the lines of a file; keeps the first totals and the last two intervals."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.kernel = False
        self.intervals = 0
        self.first: int | None = None  # bytes of the first interval
        self.before: _Interval | None = None
        self.last: _Interval | None = None
        self.left_out = 0
        self._stack: _Stack | None = None

    def take(self, line: str, *, cut: bool) -> None:
        """Read one line."""
        if "stack" in line and self._take_head(line):
            return
        if "Attaching to" in line:
            found = _PID.search(line)
            self.pid = self.pid if found is None else plain_number(found[1])
            self.kernel = self.kernel or "kernel allocators" in line
        elif self._stack is not None:
            if cut:
                self._stack.cut = True
            elif not _ADDRESS.match(text := without_prefix(line)):
                self._take_frame(self._stack, text)

    def _take_head(self, line: str) -> bool:
        if (found := _INTERVAL.search(line)) is not None:
            self._next(_Interval(found[1], plain_number(found[2])))
        elif (found := _STACK.search(line)) is not None:
            size, count = plain_number(found[1]), plain_number(found[2])
            self._stack = None
            if self.last is None:
                self._next(_Interval(None))
            assert self.last is not None
            if size is None or count is None or len(self.last.stacks) >= MOST_RECORDS:
                self.left_out += 1
                return True
            self._stack = _Stack(size, count)
            self.last.stacks.append(self._stack)
        else:
            return False
        return True

    def _next(self, interval: _Interval) -> None:
        self._stack = None
        if self.last is not None and self.first is None:
            self.first = self.last.size
        self.before, self.last = self.last, interval
        self.intervals += 1

    def _take_frame(self, stack: _Stack, text: str) -> None:
        if not text.strip():
            self._stack = None
            return
        inner = text.strip()
        if inner.startswith(("b'", 'b"')):  # a whole stack as Python writes bytes
            for part in inner[2:].rstrip("'\"").replace("\\t", "").split("\\n"):
                _add(stack, part)
        elif not _add(stack, text):
            stack.cut = _BROKEN.match(text) is not None
            self._stack = None


def _add(stack: _Stack, text: str) -> bool:
    """Add a frame; False for what is none."""
    found = _FRAME.match(text.rstrip())
    if found is None:
        return False
    address, name = found[1] or found[2], found[3].strip()
    name = name.removeprefix("[unknown]").strip() or "[unknown]"
    if address is None and " " in _MODULE.sub("", name).strip() and "(" not in name:
        return False  # a sentence
    if name.startswith("[<") or (address is None and name.startswith("[") and "]" not in name):
        return False
    module = _MODULE.search(name)
    function = name if module is None else name[: module.start()]
    function = _OFFSET.sub("", function.strip())
    if function in {"<null sym>", "[unknown]"}:
        function = ""
    path = None if module is None else module[1]
    stack.kernel = stack.kernel or path == "kernel"
    where = None if address is None else plain_number(address, 16)
    built = frame(where, function, module=path)
    if built is None or len(stack.frames) >= MOST_FRAMES:
        stack.cut = stack.cut or built is not None
        return True
    stack.frames.append(built)
    return True


def _recording(reader: _Reader, *, cut: bool) -> Recording:
    interval = reader.last
    assert interval is not None
    whole = True
    if cut and not interval.stacks and reader.before is not None:
        interval, whole = reader.before, False
    build = RecordingBuilder(
        Process(pid=reader.pid),
        _coverage(reader, interval, cut=cut, whole=whole),
    )
    for stack in interval.stacks:
        node = build.stack(stack.frames, truncated=stack.cut)
        build.site(node, "malloc", live_bytes=stack.size, live_count=stack.count)
    return build.build()


def _coverage(reader: _Reader, interval: _Interval, *, cut: bool, whole: bool) -> Coverage:
    troubles, notes = [], []
    when = f" at {interval.time}" if interval.time is not None else ""
    if not interval.stacks:
        troubles.append(NO_CHECK)
        notes.append(
            f"memleak saw no block{when} that was not freed, of those allocated after it came"
        )
    if reader.intervals > 1:
        text = f"{reader.intervals:,} intervals are in the file; the last counts{when}"
        if not whole:
            text = f"the last of {reader.intervals:,} intervals is cut: the one before counts{when}"
        if reader.first is not None:
            text += f" with {interval.size:,} bytes, and the first had {reader.first:,}"
        notes.append(text)
    notes.append(
        "memleak lists the heaviest stacks alone, of blocks that were allocated after it came; what"
        " it samples (-s) it does not scale"
    )
    if any(not stack.frames for stack in interval.stacks):
        notes.append("stacks were lost: their table was full, or could not be read")
    if reader.kernel or any(stack.kernel for stack in interval.stacks):
        notes.append(
            "memory of the kernel is seen through more than one allocator: pages of a slab are"
            " counted again with its objects"
        )
    if cut or any(stack.cut for stack in interval.stacks):
        notes.append("the file is cut: a stack has more frames than are in it")
    if reader.left_out:
        notes.append(f"not read: {plural(reader.left_out, 'stack')}")
    return Coverage(mode="bcc memleak", troubles=tuple(troubles), notes=tuple(notes))
