# SPDX-License-Identifier: Apache-2.0
"""ftrace's text of the kmem events, replayed: what of the kernel's allocations was not freed.

    # entries-in-buffer/entries-written: 55/55   #P:1
    init-1  [000] .....  2.022604: kmalloc: call_site=f+0x44/0x56 ptr=ffff888002dfe600 bytes_req=64 …
    init-1  [000] .....  2.023395: kmem_cache_free: call_site=g+0x64/0x67 ptr=ffff888000b20600 name=filp

Addresses may be hashed; within one boot they are still told apart. Older kernels print `call_site` as
a bare number, and `(null)` for what failed. Pages have `pfn=` and `order=`.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import NO_CHECK
from leakscope.formats._replay import EventReplay
from leakscope.formats._tables import MOST_BYTES
from leakscope.formats._text import LogLines
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import Address, FrameName
from leakscope.model.recordings import Coverage, Process, Recording

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb":\s{1,12}(?:kmem:)?(?:kmalloc(?:_node)?|kmem_cache_alloc(?:_node)?|kfree|kmem_cache_free):\s{1,30}"
    rb"(?:\([^)\n]{1,200}\)\s{1,8})?call_site=\S{1,200} ptr="
    rb"|:\s{1,12}(?:kmem:)?mm_page_(?:alloc|free):\s{1,30}page="
)
_EVENT = re.compile(
    r"\[(\d{1,5})\]\s+(?:\S{4,6}\s+)?(\d{1,12}\.\d{1,9}):\s+(?:kmem:)?"
    r"(kmalloc|kmalloc_node|kmem_cache_alloc|kmem_cache_alloc_node|kfree|kmem_cache_free|mm_page_alloc|mm_page_free):\s+(.*)"
)
_FIELD = re.compile(r"(\w{1,20})=(\S{1,300})")
_SITE = re.compile(r"([A-Za-z_$][\w.$]{0,200})(?:\+0x[0-9a-f]{1,16}/0x[0-9a-f]{1,16})?")
_ENTRIES = re.compile(r"entries-in-buffer/entries-written: (\d{1,18})/(\d{1,18})")
_LOST = re.compile(r"LOST (\d{1,18}) EVENTS|\[LOST")
_ALLOCATE = ("kmalloc", "kmalloc_node", "kmem_cache_alloc", "kmem_cache_alloc_node")
_PAGE = 4096
_Place = tuple[str, str]  # event, call site


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has kmem events of ftrace."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of the kernel. Raises `RecordingError`."""
    lines = LogLines(file, MOST_BYTES)
    objects: EventReplay[_Place] = EventReplay()
    pages: EventReplay[_Place] = EventReplay()
    first = last = None
    kinds: Counter[str] = Counter()
    lost = 0
    for line in lines:
        if lines.cut:
            break
        if (entries := _ENTRIES.search(line)) is not None:
            lost += max(int(entries[2]) - int(entries[1]), 0)
        elif (gap := _LOST.search(line)) is not None:
            lost += int(gap[1] or 1)
        elif (event := _EVENT.search(line)) is not None:
            first = first if first is not None else float(event[2])
            last = float(event[2])
            kinds[event[3]] += 1
            _take(event[3], dict(_FIELD.findall(event[4])), objects, pages)
    if first is None or last is None:
        raise RecordingError(f"{file.path} has a line of ftrace in it, and no whole kmem event")
    return (_recording(objects, pages, kinds, lost, max(last - first, 0.0), _cut(file, lines)),)


def _cut(file: ForeignFile, lines: LogLines) -> str | None:
    return file.cut or ("its last line has no end" if lines.cut else None)


def _take(
    kind: str, fields: dict[str, str], objects: EventReplay[_Place], pages: EventReplay[_Place]
) -> None:
    if kind in {"mm_page_alloc", "mm_page_free"}:
        frame, order = _number(fields.get("pfn")), _number(fields.get("order"))
        if frame is None or order is None or order > 32:
            return
        if kind == "mm_page_free":
            pages.free(frame + 1)
        else:
            pages.allocate(frame + 1, _PAGE << order, ("alloc_pages", ""))
        return
    at = _number(fields.get("ptr"))
    if at is None:
        return
    if kind not in _ALLOCATE:
        objects.free(at)
        return
    size = _number(fields.get("bytes_alloc")) or _number(fields.get("bytes_req")) or 0
    event = "kmalloc" if kind.startswith("kmalloc") else "kmem_cache_alloc"
    objects.allocate(at, size, (event, fields.get("call_site", "")))


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if text in {"(null)", "(nil)"}:
        return 0
    try:
        value = int(text, 16 if text.startswith("0x") or len(text) >= 8 else 10)
    except ValueError:
        return None
    return value if 0 <= value < 1 << 64 else None


def _recording(
    objects: EventReplay[_Place],
    pages: EventReplay[_Place],
    kinds: Counter[str],
    lost: int,
    seconds: float,
    cut: str | None,
) -> Recording:
    build = RecordingBuilder(Process(), duration_ns=int(min(seconds, 1e9) * 1e9))

    def site(place: _Place) -> tuple[int, str]:
        return _node(build, place[1]), place[0]

    for replay in (objects, pages):
        if replay.allocs or replay.places:
            replay.build(build, site)
    if not (objects.allocs or pages.allocs):
        build.site(0, live_bytes=0, live_count=0)
    notes = ["there is one caller to an allocation, often a wrapper"]
    notes += [*objects.notes(), *pages.notes()]
    if lost:
        notes.append(
            f"events were lost, at least {lost:,}: what was freed meanwhile counts as held"
        )
    frees = objects.frees + pages.frees
    if not frees:
        notes.append("no free was traced: everything looks held; enable kfree and kmem_cache_free")
    if cut:
        notes.append(f"the file is not whole: {cut}")
    notes.append("what was allocated shortly before the trace ended may be freed later")
    build.coverage = Coverage(
        mode="ftrace, kmem events",
        alloc_events=sum(kinds[each] for each in _ALLOCATE) + kinds["mm_page_alloc"],
        free_events=frees,
        max_depth=1,
        troubles=(NO_CHECK,),
        notes=tuple(notes),
    )
    return build.build()


def _node(build: RecordingBuilder, text: str) -> int:
    if not text:
        return 0
    found = _SITE.match(text)
    address = _number(text) if found is None or (len(text) >= 16 and text.isalnum()) else None
    if address is not None:
        return build.stack([BuiltFrame(Address(None, address))])
    if found is None:
        return 0
    return build.stack([BuiltFrame(None, FrameName(function=found[1]))])
