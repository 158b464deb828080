# SPDX-License-Identifier: Apache-2.0
"""What the kernel's memory leak detector lists, from debugfs or from the kernel's log.

An object to a paragraph: address, size, task, sometimes its age and a dump of it, and the stack
that allocated it, innermost first. Nothing that kmemleak looked at pointed to it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS
from leakscope.formats._text import LogLines, frame, plain_number, without_prefix
from leakscope.model.builder import RecordingBuilder
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Coverage, Process, Recording
from leakscope.proc.kernel_frames import KernelFrame, parse_frame, without_allocators
from leakscope.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from leakscope.formats._file import ForeignFile
    from leakscope.model.builder import BuiltFrame

__all__ = ["KmemleakObject", "KmemleakText", "built_frames", "read", "recognises", "task_note"]

# "object (percpu) 0x…" and "object (phys) 0x…": Linux 6.14 and newer.
_HEAD = r"unreferenced (?:percpu )?object (?:\((?:percpu|phys)\) )?(\S{1,40}) \(size (\d{1,20})\):"
_KNOWN = re.compile(_HEAD.encode())
_OBJECT = re.compile(_HEAD)
_TASK = re.compile(
    r'\s{0,20}comm "(.{0,64})", pid (\d{1,10}), jiffies (\d{1,20})(?: \(age (\d{1,12}\.\d{1,6})s\))?'
)
_CHECKSUM = re.compile(r"backtrace \(crc ([0-9a-f]{1,16})\):")
_LOGGED = re.compile(r"(?:.{0,200}?[\]>:] {0,4})?kmemleak: ")  # a line in the kernel's log
_DEEP = "    "  # what frames begin with
_NO_FRAME = 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF  # the end of a stack, until Linux 5.1
_MOST_TASKS = 1000


@dataclass(slots=True)
class KmemleakObject:
    """One object. `jiffies` is when it was allocated, in ticks of the kernel's clock.

    `frames` are those that the kernel printed, innermost first. What it did not print is None.
    """

    size: int
    address: int | None = None
    comm: str | None = None
    pid: int | None = None
    jiffies: int | None = None
    age_s: float | None = None
    checksum: int | None = None
    frames: list[KernelFrame] = field(default_factory=list)
    cut: bool = False  # frames are missing further out
    _traced: bool = False  # its backtrace has begun


class KmemleakText:
    """Reads objects out of lines, one at a time: the text may be larger than memory.

    `damaged` are the numbers of lines that begin an object and cannot be read; `most` is how many
    objects are read.
    """

    def __init__(self, lines: Iterable[str], most: int = MOST_RECORDS) -> None:
        self._lines = lines
        self._most = most
        self.damaged: list[int] = []
        self.left_out = 0  # beyond `most`

    def __iter__(self) -> Iterator[KmemleakObject]:
        one: KmemleakObject | None = None
        count = 0
        for number, line in enumerate(self._lines, 1):
            if "unreferenced" in line and "object" in line:
                if one is not None:
                    yield one
                    one = None
                head = _OBJECT.search(line)
                size = None if head is None else plain_number(head[2])
                if head is None or size is None:
                    if len(self.damaged) < _MOST_TASKS:
                        self.damaged.append(number)
                elif count >= self._most:
                    self.left_out += 1
                else:
                    count += 1
                    one = KmemleakObject(size, _address(head[1]))
            elif one is not None:
                _take(one, line, cut=bool(getattr(self._lines, "cut", False)))
        if one is not None:
            yield one


def _address(text: str) -> int | None:
    return plain_number(text.removeprefix("0x"), 16) if text.startswith("0x") else None


def _take(one: KmemleakObject, line: str, *, cut: bool) -> None:
    """Read one line behind the head of an object."""
    logged = _LOGGED.match(line)
    text = without_prefix(line) if logged is None else line[logged.end() :]
    stripped = text.strip()
    if stripped.startswith("backtrace"):
        one._traced = True  # noqa: SLF001 - ours
        crc = _CHECKSUM.match(stripped)
        one.checksum = None if crc is None else int(crc[1], 16)
    elif (task := _TASK.match(text)) is not None:
        one.comm, one.pid, one.jiffies = task[1], int(task[2]), int(task[3])
        one.age_s = None if task[4] is None else float(task[4])
    elif one._traced:  # noqa: SLF001
        found = None if cut else parse_frame(text)
        if found is None:
            one._traced = not cut and text.startswith(_DEEP)  # noqa: SLF001
            one.cut |= cut or one._traced  # noqa: SLF001
        elif found.function is None and found.address in _NO_FRAME:
            one._traced = False  # noqa: SLF001
        elif len(one.frames) >= MOST_FRAMES:
            one.cut = True
        else:
            one.frames.append(found)


def built_frames(frames: Sequence[KernelFrame]) -> list[BuiltFrame]:
    """Return the frames for a recording; one that tells nothing is left out."""
    built = (
        frame(f.address, f.function, f.file, f.line, f.module, inlined=f.inlined) for f in frames
    )
    return [one for one in built if one is not None]


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has objects that kmemleak lists."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of the kernel. Raises `RecordingError`."""
    lines = LogLines(file)
    text = KmemleakText(lines)
    tasks: Counter[str] = Counter()
    build = RecordingBuilder()
    count = 0
    for one in text:
        count += 1
        if one.comm is not None and (len(tasks) < _MOST_TASKS or one.comm in tasks):
            tasks[one.comm] += 1
        kind, frames = without_allocators(one.frames)
        node = build.stack(built_frames(frames), truncated=one.cut)
        site = build.site(node, kind, live_bytes=one.size, live_count=1)
        build.reach(site, Reachability.DEFINITELY_LOST, 1, one.size)
    if not count:
        raise RecordingError(f"{file.path} has a line of kmemleak in it, and no object")
    build.process, build.coverage = Process(), _coverage(tasks, text, cut=lines.cut)
    build.reach_is_known()
    return (build.build(),)


def task_note(tasks: Counter[str]) -> str:
    """Say in which tasks objects were allocated."""
    names = ", ".join(f"{name} ({n})" for name, n in tasks.most_common(5))
    more = f" and {len(tasks) - 5:,} more" if len(tasks) > 5 else ""
    return f"they were allocated in the tasks {names}{more}"


def _coverage(tasks: Counter[str], text: KmemleakText, *, cut: bool) -> Coverage:
    doubt = (
        "kmemleak found nothing that points to these objects; it can be wrong about one that is"
        " young or whose address is kept in another form, so scan twice"
    )
    notes = [doubt]
    if tasks:
        notes.append(task_note(tasks))
    lost = len(text.damaged) + text.left_out
    if text.damaged:
        notes.append(f"not read: {plural(lost, 'object')}, the first at line {text.damaged[0]:,}")
    elif lost:
        notes.append(f"not read: {plural(lost, 'object')} beyond the first {MOST_RECORDS:,}")
    if cut:
        notes.append("the file is cut within its last line")
    return Coverage(mode="kmemleak", notes=tuple(notes))
