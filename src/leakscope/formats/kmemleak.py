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
from leakscope.formats._text import (
    LogLines,
    frame,
    plain_number,
    without_prefix,
)
from leakscope.model.builder import RecordingBuilder
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Coverage, Process, Recording
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.builder import BuiltFrame

__all__ = ["read", "recognises"]

_KNOWN = re.compile(rb"unreferenced (?:percpu )?object \S{1,40} \(size \d{1,20}\):")
_OBJECT = re.compile(r"unreferenced (?:percpu )?object \S{1,40} \(size (\d{1,20})\):")
_TASK = re.compile(r'\s{0,20}comm "(.{0,64})", pid (\d{1,10}), jiffies')
_FRAME = re.compile(
    r"\s{0,20}(?:\[<([0-9a-f]{1,16})>\] ?)?"
    r"(?:0x([0-9a-f]{1,16})|([A-Za-z_$][\w.$]{0,250})(?:\+0x[0-9a-f]{1,16}/0x[0-9a-f]{1,16})?)"
    r"(?: \[([\w-]{1,64})\])?(?: (\S{1,4096}):(\d{1,9}))?( \[inline\])?\s*$"
)
_ALLOCATOR = re.compile(
    r"kmemleak_\w+|(?:__|do_)*(?:k[mvz]{1,2}alloc|kcalloc|krealloc|kmem_cache_|slab_|vmalloc"
    r"|___?slab|pcpu_alloc|alloc_percpu|kmemdup|kstrn?dup|kvmalloc|get_free_pages|alloc_pages)\w*"
)
_KINDS = {"vmalloc": "vmalloc", "percpu": "percpu", "pcpu": "percpu", "pages": "alloc_pages"}
_KINDS["kmem_cache"] = "kmem_cache_alloc"


@dataclass(slots=True)
class _Object:
    size: int
    frames: list[BuiltFrame] = field(default_factory=list)
    kind: str = "kmalloc"
    traced: bool = False  # its backtrace has begun
    inner: bool = True  # only allocators so far
    cut: bool = False


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has objects that kmemleak lists."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of the kernel. Raises `RecordingError`."""
    lines = LogLines(file)
    found: list[_Object] = []
    tasks: Counter[str] = Counter()
    damaged: list[int] = []
    for number, line in enumerate(lines, 1):
        if "unreferenced" in line:
            head = _OBJECT.search(line)
            size = None if head is None else plain_number(head[1])
            if size is None or len(found) >= MOST_RECORDS:
                damaged.append(number)
                if found:
                    found[-1].traced = False
            else:
                found.append(_Object(size))
        elif found:
            _take(found[-1], without_prefix(line), tasks, cut=lines.cut)
    if not found:
        raise RecordingError(f"{file.path} has a line of kmemleak in it, and no object")
    build = RecordingBuilder(Process(), _coverage(tasks, damaged, cut=lines.cut))
    for one in found:
        node = build.stack(one.frames, truncated=one.cut)
        site = build.site(node, one.kind, live_bytes=one.size, live_count=1)
        build.reach(site, Reachability.DEFINITELY_LOST, 1, one.size)
    build.reach_is_known()
    return (build.build(),)


def _take(one: _Object, text: str, tasks: Counter[str], *, cut: bool) -> None:
    """Read one line behind the head of an object."""
    stripped = text.strip()
    if stripped.startswith("backtrace"):
        one.traced = True
    elif (task := _TASK.match(text)) is not None:
        if len(tasks) < 1000 or task[1] in tasks:
            tasks[task[1]] += 1
    elif one.traced:
        found = None if cut else _FRAME.match(text)
        if found is None:
            one.traced = False
            one.cut = one.cut or cut
        elif len(one.frames) >= MOST_FRAMES:
            one.cut = True
        else:
            _add(one, found)


def _add(one: _Object, found: re.Match[str]) -> None:
    function = found[3]
    if one.inner and function is not None and _ALLOCATOR.fullmatch(function):
        kind = next((kind for part, kind in _KINDS.items() if part in function), None)
        one.kind = one.kind if kind is None or one.kind != "kmalloc" else kind
        return
    one.inner = False
    address = plain_number(found[1] or found[2], 16)
    built = frame(
        address,
        function,
        found[5],
        plain_number(found[6]),
        found[4],
        inlined=found[7] is not None,
    )
    if built is not None:
        one.frames.append(built)


def _coverage(tasks: Counter[str], damaged: list[int], *, cut: bool) -> Coverage:
    doubt = (
        "kmemleak found nothing that points to these objects; it can be wrong about one that is"
        " young or whose address is kept in another form, so scan twice"
    )
    notes = [doubt]
    if tasks:
        names = ", ".join(f"{name} ({n})" for name, n in tasks.most_common(5))
        notes.append(f"they were allocated in the tasks {names}")
    if damaged:
        first = f"line {damaged[0]:,}"
        notes.append(f"not read: {plural(len(damaged), 'object')}, the first at {first}")
    if cut:
        notes.append("the file is cut within its last line")
    return Coverage(mode="kmemleak", notes=tuple(notes))
