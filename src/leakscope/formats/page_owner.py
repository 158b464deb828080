# SPDX-License-Identifier: Apache-2.0
"""Saved page_owner of debugfs: which stacks hold pages, in all layouts of it.

    Page allocated via order 0, mask 0x1100cca(GFP_..), pid 1, tgid 1 (podman), ts 1 ns, free_ts 2 ns
    PFN 0x100 type Movable Block 0 type Movable Flags 0x0(..)
     prep_new_page+0xac/0xe0
    Charged to offlined memcg /a

is a record a page, parted by empty lines. `show_stacks` has stacks, each with `nr_base_pages: N`
behind it, and page_owner_sort puts `N times, M pages:` (older: `N times:`) before a record.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES
from leakscope.formats._tables import MOST_ROWS, TableLines
from leakscope.model.frames import FrameName
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Row, Snapshot
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"Page allocated via order \d{1,3}, m|(?:^|\n)nr_base_pages: \d|(?:^|\n) *stack_count: \d"
)
_HEAD = re.compile(r"Page allocated via order (\d{1,2})(?:,|$)")
_TASK = re.compile(r"pid (\d{1,10})(?:, tgid \d{1,10})?(?: \(([^)]{0,64})\))?")
_TIMES = re.compile(r"(\d{1,15}) times(?:, (\d{1,15}) pages)?(?:[,:]|$)")
_BASE = re.compile(r"(?:nr_base_pages|stack_count): (\d{1,15})")
_FRAME = re.compile(
    r"\s*(?:\[<[0-9a-f]{1,16}>\] )?(?:([A-Za-z_$][\w.$]{0,200})\+0x[0-9a-f]{1,16}/0x[0-9a-f]{1,16}(?: \[([\w-]{1,64})\])?"
    r"|0x([0-9a-f]{1,16}))"
)
_INNER = re.compile(
    r"(?:__)?(?:post_alloc_hook|prep_new_page|get_page_from_freelist|set_page_owner\w*|save_stack|"
    r"register_\w+_stack|alloc_pages\w*|get_free_pages\w*|folio_alloc\w*|__alloc_pages\w*|__folio_alloc\w*)(?:_noprof)?"
)
_PAGE = 4096
_KERNEL = Subject("kernel", "pages", "pages of the kernel and of programs")


@dataclass(slots=True)
class _Record:
    pages: int = 0
    known: bool = False  # whether a number of pages was told
    times: int = 0
    frames: list[FrameName] = field(default_factory=list)
    offline: bool = False
    task: str | None = None


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is of page_owner."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return the stacks with their pages. Raises `RecordingError`."""
    lines = TableLines(file)
    table = _Table()
    record = _Record()
    for line in lines:
        text = line.strip()
        if not text:
            table.add(record)
            record = _Record()
        elif (times := _TIMES.match(text)) is not None:
            table.add(record)
            record = _Record(times=int(times[1]))
            if times[2] is not None:
                record.pages, record.known = int(times[2]), True
        elif (head := _HEAD.search(line)) is not None:
            if record.frames or (record.known and not record.times):
                table.add(record)
                record = _Record()
            if not record.known:
                record.pages, record.known = (record.times or 1) << min(int(head[1]), 32), True
            task = _TASK.search(line)
            record.task = None if task is None else task[2]
        elif (base := _BASE.search(text)) is not None:
            record.pages, record.known = int(base[1]), True
            table.add(record)
            record = _Record()
        elif "offline" in text and "memcg" in text:
            record.offline = True
        elif (frame := _FRAME.match(line)) is not None and len(record.frames) < MOST_FRAMES:
            name = frame[1] or f"0x{frame[3]}"
            record.frames.append(FrameName(function=name, module_path=frame[2]))
    if not lines.cut:
        table.add(record)
    if not table.stacks:
        raise RecordingError(f"{file.path} has a line of page_owner in it, and no whole record")
    return (table.snapshot(lines),)


class _Table:
    """Pages by stack."""

    def __init__(self) -> None:
        self.stacks: dict[tuple[FrameName, ...], list[int]] = {}
        self.tasks: Counter[str] = Counter()
        self.offline = self.left_out = 0

    def add(self, record: _Record) -> None:
        if not record.known:
            return
        inner = 0
        frames = record.frames
        while inner < len(frames) and _INNER.fullmatch(frames[inner].function or ""):
            inner += 1
        key = tuple(frames[inner:] or frames)
        if key not in self.stacks and len(self.stacks) >= MOST_ROWS:
            self.left_out += 1
            return
        held = self.stacks.setdefault(key, [0, 0])
        held[0] += record.pages * _PAGE
        held[1] += record.pages
        self.offline += record.pages * record.offline
        if record.task and (len(self.tasks) < 1000 or record.task in self.tasks):
            self.tasks[record.task] += record.pages

    def snapshot(self, lines: TableLines) -> Snapshot:
        rows = [
            Row(" < ".join(f.function or "?" for f in key[:4]) or "no stack", size, pages, key)
            for key, (size, pages) in self.stacks.items()
        ]
        rows.sort(key=lambda row: (-(row.bytes or 0), row.name))
        facts = [("allocation stacks", len(rows), "count")]
        facts += [(f"by {name}", n * _PAGE, "bytes") for name, n in self.tasks.most_common(5)]
        notes = ["a page is taken to be 4 KiB", *lines.notes()]
        if self.offline:
            facts.append(("charged to cgroups that are gone", self.offline * _PAGE, "bytes"))
            notes.append("memory of a cgroup that was removed stays until its last page goes")
        if self.left_out:
            notes.append(f"too many stacks, not read: {plural(self.left_out, 'record')}")
        return Snapshot(
            source="page_owner",
            subject=_KERNEL,
            rows=tuple(rows),
            measures=tuple(
                Measure(Subject("pages", row.key, row.name), "held", "bytes", row.bytes or 0)
                for row in rows
            ),
            time_ns=lines.time_ns,
            total=sum(row.bytes or 0 for row in rows),
            total_count=sum(row.count or 0 for row in rows),
            of="held",
            things="pages",
            kind="alloc_pages",
            facts=tuple(facts),
            notes=tuple(notes),
        )
