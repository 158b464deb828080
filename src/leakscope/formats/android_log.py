# SPDX-License-Identifier: Apache-2.0
"""Leaks in Android's logs as recordings: malloc_debug's, and those of libmemunreachable.

malloc_debug (libc.debug.malloc=10, leak_track), what was not freed when the process ended:

    E/libc  ( 3500): +++ /data/a leaked block of size 40 at 0xb6c2c200 (leak 1 of 1)
    E/libc  ( 3500):    #00  pc 00006f68  /system/lib/libc.so (malloc+71)

`dumpsys meminfo --unreachable`, to which nothing points (part of it is listed):

     Unreachable memory
      1632 bytes in 10 unreachable allocations
      336 bytes unreachable at e31c1350
       and 24 similar unreachable bytes in 2 allocations
       referencing 48 unreachable bytes in 3 allocations
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, NO_CHECK
from leakscope.formats._lines import RawLines
from leakscope.model.builder import MOST_ERRORS, BuiltFrame, RecordingBuilder
from leakscope.model.frames import Address, FrameName
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Coverage, Process

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.recordings import Recording

__all__ = ["read", "recognises"]

_LEAK = re.compile(
    rb"\+\+\+ (.{1,512}?) leaked block of size (\d{1,18}) at (?:0x)?([0-9a-f]{1,16})"
    rb"(?: \(leak (\d{1,9}) of (\d{1,9})\))?"
)
_ERROR = re.compile(
    rb"\+\+\+ (?:ALLOCATION )?(?:0x)?([0-9a-f]{1,16})(?: SIZE \d{1,18})?"
    rb" (HAS A CORRUPTED (?:FRONT|REAR) GUARD|USED AFTER FREE|UNKNOWN POINTER|HAS INVALID TAG)(.{0,200})"
)
_FRAME = re.compile(
    rb"#\d{2,4}\s+pc (?:0x)?([0-9a-f]{1,16})\s+(.+?)"
    rb"(?: \(((?:[^()]|\([^()]*\))+?)(?:\+\d+)?\))?(?: \(BuildId: [0-9a-f]+\))?\s*$"
)
_BRIEF = re.compile(rb"[VDIWEFA]/.{0,60}?\(\s*(\d{1,7})\): ?")
_LONG = re.compile(
    rb"(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d\.\d+\s+(\d{1,7})\s+\d{1,7} [VDIWEFA] .{0,60}?: ?"
)
_TOTAL = re.compile(rb"\s*(\d{1,18}) bytes? in (\d{1,18}) unreachable allocations?\s*")
_LOST = re.compile(rb"\s*(\d{1,18}) bytes? unreachable at (?:0x)?([0-9a-f]{1,16})\s*")
_SIMILAR = re.compile(
    rb"\s*and (\d{1,18}) similar unreachable bytes? in (\d{1,18}) allocations?\s*"
)
_OWNED = re.compile(rb"\s*referencing (\d{1,18}) unreachable bytes? in (\d{1,18}) allocations?\s*")
_PROCESS = re.compile(rb"\*\* MEMINFO in pid (\d{1,7}) \[(.{0,200}?)\]")
_SECTION = re.compile(rb"^[ \t]*Unreachable memory[ \t\r]*$", re.MULTILINE)
_MOST_LEAKS = 1 << 20
_MOST_PROCESSES = 1 << 10


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has leaks in Android's form."""
    return any(known.search(head) is not None for known in (_LEAK, _SECTION, _ERROR))


@dataclass(slots=True)
class _Leak:
    address: int
    size: int
    count: int = 1
    total: int = 0  # bytes of all `count` blocks
    owned: tuple[int, int] = (0, 0)  # bytes, blocks
    frames: list[BuiltFrame] = field(default_factory=list)


class _Process:
    """What is told of one process."""

    def __init__(self, pid: int | None, name: str | None) -> None:
        self.pid, self.name = pid, name
        self.unreachable = False
        self.leaks: list[_Leak] = []
        self.errors: list[tuple[str, str, list[BuiltFrame]]] = []
        self.error: list[BuiltFrame] | None = None  # the stack of the newest one, while it is read
        self.promised = 0  # leaks, as malloc_debug counts them
        self.total: tuple[int, int] | None = None  # bytes, blocks
        self.left_out = 0

    def add(self, leak: _Leak) -> None:
        if len(self.leaks) < _MOST_LEAKS:
            self.leaks.append(leak)
        else:
            self.left_out += 1


class _Log:
    """What is read line by line."""

    def __init__(self) -> None:
        self.processes: dict[tuple[int | None, str | None, int], _Process] = {}
        self._current: dict[int | None, _Process] = {}  # by the pid that its lines begin with
        self._dumped: tuple[int | None, str | None] = (None, None)

    def line(self, line: bytes) -> None:
        pid, text = None, line
        if (prefix := _BRIEF.match(line) or _LONG.match(line)) is not None:
            pid, text = int(prefix[1]), line[prefix.end() :]
        if (named := _PROCESS.search(text)) is not None:
            self._dumped = int(named[1]), _decoded(named[2])
        elif _SECTION.match(text) is not None:
            process = self._process(pid, *self._dumped, run=len(self.processes))
            process.unreachable = True
        elif (leak := _LEAK.search(text)) is not None:
            self._leaked(pid, leak)
        elif (error := _ERROR.search(text)) is not None:
            self._wrong(pid, error)
        elif pid in self._current:
            self._detail(self._current[pid], text)

    def _leaked(self, pid: int | None, found: re.Match[bytes]) -> None:
        process = self._process(pid, pid, _decoded(found[1]), run=-1)
        process.error = None
        if found[4] is not None:
            process.promised = max(process.promised, int(found[5]))
        size = int(found[2])
        process.add(_Leak(int(found[3], 16), size, total=size))

    def _wrong(self, pid: int | None, found: re.Match[bytes]) -> None:
        process = self._current.get(pid) or self._process(pid, pid, None, run=-1)
        if len(process.errors) >= MOST_ERRORS:
            return
        process.error = []
        kind = _decoded(found[2]).lower().removeprefix("has a ").removeprefix("has ")
        text = f"0x{_decoded(found[1])} {_decoded(found[2])}{_decoded(found[3])}"
        process.errors.append((kind, text.strip(), process.error))

    def _process(self, key: int | None, pid: int | None, name: str | None, *, run: int) -> _Process:
        known = self.processes.get((pid, name, run))
        if known is None:
            known = _Process(pid, name)
            if len(self.processes) < _MOST_PROCESSES:
                self.processes[pid, name, run] = known
        self._current[key] = known
        return known

    def _detail(self, process: _Process, text: bytes) -> None:
        leak = process.leaks[-1] if process.leaks else None
        if (frame := _FRAME.search(text)) is not None:
            if process.error is not None:
                if len(process.error) < MOST_FRAMES and (not process.error or b"#00 " not in text):
                    process.error.append(_frame(frame))
            elif leak is not None and len(leak.frames) < MOST_FRAMES:
                leak.frames.append(_frame(frame))
        elif not process.unreachable:
            return
        elif (total := _TOTAL.fullmatch(text)) is not None:
            process.total = process.total or (int(total[1]), int(total[2]))
        elif (lost := _LOST.fullmatch(text)) is not None:
            process.add(_Leak(int(lost[2], 16), int(lost[1]), total=int(lost[1])))
        elif leak is not None and (more := _SIMILAR.fullmatch(text)) is not None:
            leak.total += int(more[1])
            leak.count += int(more[2])
        elif leak is not None and (owned := _OWNED.fullmatch(text)) is not None:
            leak.owned = int(owned[1]), int(owned[2])


def _frame(found: re.Match[bytes]) -> BuiltFrame:
    name = FrameName(
        function=_decoded(found[3]) if found[3] else None, module_path=_decoded(found[2]) or None
    )
    return BuiltFrame(Address(None, int(found[1], 16), exact=True), name)


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return a recording of each process in the file. Raises `RecordingError`."""
    lines, log = RawLines(file), _Log()
    for line in lines:
        log.line(line)
    cut = file.cut
    if lines.rest and (_LEAK.search(lines.rest) or _LOST.search(lines.rest)):
        cut = cut or "its last line is cut"
    if not log.processes:
        raise RecordingError(f"{file.path} has no whole line of a leak")
    return tuple(_recording(each, cut) for each in log.processes.values())


def _recording(process: _Process, cut: str | None) -> Recording:
    build = RecordingBuilder(Process(pid=process.pid, exe=process.name))
    size = count = 0
    for leak in process.leaks:
        site = build.site(build.stack(leak.frames), live_count=leak.count, live_bytes=leak.total)
        if process.unreachable:
            build.reach(site, Reachability.DEFINITELY_LOST, leak.count, leak.total)
        size, count = size + leak.total, count + leak.count
        if leak.owned[1]:
            # Where they were allocated is not told.
            site = build.site(0, live_count=leak.owned[1], live_bytes=leak.owned[0])
            build.reach(site, Reachability.INDIRECTLY_LOST, leak.owned[1], leak.owned[0])
            size, count = size + leak.owned[0], count + leak.owned[1]
    for kind, text, frames in process.errors:
        build.error(kind, text, frames)
    notes = [] if cut is None else [f"the file is not whole: {cut}"]
    known = process.unreachable and process.total is not None
    if process.total is not None:
        rest = max(process.total[0] - size, 0), max(process.total[1] - count, 0)
        if rest[1]:
            site = build.site(0, live_count=rest[1], live_bytes=rest[0])
            build.reach(site, Reachability.DEFINITELY_LOST, rest[1], rest[0])
            notes.append(f"{rest[0]:,} bytes in {rest[1]:,} blocks are lost and not listed")
    if process.unreachable:
        notes.append("what is held and can be reached is not in this report")
    else:
        build.site(0, live_count=0, live_bytes=0)
        notes.append("it is what was not freed at the end; nobody looked whether it was in use")
    missing = process.promised - len(process.leaks)
    if missing > 0:
        notes.append(f"{missing:,} of {process.promised:,} blocks are not in this log")
    if process.left_out:
        notes.append(f"{process.left_out:,} blocks beyond {_MOST_LEAKS:,} were not read")
    if known:
        build.reach_is_known()
    elif process.unreachable and not process.leaks:
        build.site(0, live_count=0, live_bytes=0)
    unsure = not known and not (process.unreachable and process.leaks)
    build.coverage = Coverage(
        mode="Android's libmemunreachable" if process.unreachable else "Android's malloc_debug",
        troubles=(NO_CHECK,) if unsure else (),
        notes=tuple(notes),
    )
    return build.build()
