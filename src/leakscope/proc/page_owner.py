# SPDX-License-Identifier: Apache-2.0
"""Who allocated each page, from debugfs: page_owner, and its sums by stack (Linux 6.8 and newer).

The file has an entry a page and reaches gigabytes: it is read line by line and added up by stack.
Entries: Linux 4 to 6.1 tell the page frame in decimal and when it was freed last, newer ones
neither. All of it but the first line of an entry is optional.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PageStack", "PageSums", "sum_pages", "sum_stacks"]

_HEAD = re.compile(r"Page allocated via order (\d{1,2}), m")
_TASK = re.compile(r", pid (\d{1,10})(?:, tgid \d{1,10})?(?: \((.{0,64})\))?,")
_FRAME = re.compile(
    r" ?(?:\[<[0-9a-f()_ptrval]{1,20}>\] )?([A-Za-z_$][\w.$]{0,250}\+0x[0-9a-f]{1,16}/0x[0-9a-f]{1,16}(?: \[[^\]\s]{1,96}(?: [0-9a-f]{4,64})?\])?"
    r"|(?:\[<)?0x[0-9a-f]{1,16}(?:>\])?)\s{0,4}"
)
_MEMCG = re.compile(
    r"Charged (?:\(via objcg\) ?)?to (off(?:lined?)? )?memcg (.{1,4096}?)\.?\s{0,4}"
)
_PAGES = re.compile(r" ?(?:nr_base_pages: |stack_count: )(\d{1,18})\s{0,4}")
_MOST_STACKS = 1 << 16
_MOST_FRAMES = 64
_MOST_NAMES = 256


@dataclass(slots=True)
class PageStack:
    """Pages that one stack allocated. `frames` are as the kernel writes them, innermost first."""

    frames: tuple[str, ...]
    pages: int = 0
    blocks: int = 0  # allocations; 0 where only pages are told
    slab: bool = False  # a page of a slab cache: whose objects, the cache tells
    offline: int = 0  # pages charged to a memory cgroup that is gone
    tasks: set[str] = field(default_factory=set)


@dataclass(slots=True)
class PageSums:
    """All stacks, by their frames. `left_out` counts entries beyond what is kept."""

    stacks: dict[tuple[str, ...], PageStack] = field(default_factory=dict)
    left_out: int = 0
    offline: dict[str, int] = field(default_factory=dict)  # pages by cgroup that is gone

    @property
    def pages(self) -> int:
        """Pages of all stacks."""
        return sum(one.pages for one in self.stacks.values())

    def at(self, frames: tuple[str, ...]) -> PageStack | None:
        """Return the entry of a stack; None where there are too many."""
        found = self.stacks.get(frames)
        if found is None:
            if len(self.stacks) >= _MOST_STACKS:
                self.left_out += 1
                return None
            found = self.stacks[frames] = PageStack(frames)
        return found


@dataclass(slots=True)
class _Entry:
    order: int
    task: str
    frames: list[str] = field(default_factory=list)
    slab: bool = False
    memcg: str | None = None  # that is gone


def sum_pages(lines: Iterable[str]) -> PageSums:
    """Add up the text of page_owner by stack. Lines that do not fit are left out."""
    sums = PageSums()
    entry: _Entry | None = None
    for line in lines:
        if line.startswith("Page allocated via order"):
            _end(entry, sums)
            entry = None
            head = _HEAD.match(line)
            if head is not None and int(head[1]) < 32:
                task = _TASK.search(line)
                entry = _Entry(int(head[1]), (task[2] or task[1]) if task is not None else "")
        elif entry is None:
            continue
        elif (frame := _FRAME.fullmatch(line)) is not None:
            if len(entry.frames) < _MOST_FRAMES:
                entry.frames.append(frame[1])
        elif line.startswith("Slab cache page"):
            entry.slab = True
        elif line.startswith("Charged") and (memcg := _MEMCG.fullmatch(line)) is not None:
            entry.memcg = memcg[2] if memcg[1] else None
    _end(entry, sums)
    return sums


def _end(entry: _Entry | None, sums: PageSums) -> None:
    if entry is None:
        return
    one = sums.at(tuple(entry.frames))
    if one is None:
        return
    pages = 1 << entry.order
    one.pages += pages
    one.blocks += 1
    one.slab |= entry.slab
    if entry.task and len(one.tasks) < _MOST_NAMES:
        one.tasks.add(entry.task)
    if entry.memcg is not None:
        one.offline += pages
        if entry.memcg in sums.offline or len(sums.offline) < _MOST_NAMES:
            sums.offline[entry.memcg] = sums.offline.get(entry.memcg, 0) + pages


def sum_stacks(lines: Iterable[str]) -> PageSums:
    """Read page_owner_stacks/show_stacks: the frames of each stack, then its number of pages."""
    sums = PageSums()
    frames: list[str] = []
    for line in lines:
        if (frame := _FRAME.fullmatch(line)) is not None:
            if len(frames) < _MOST_FRAMES:
                frames.append(frame[1])
        elif (count := _PAGES.fullmatch(line)) is not None:
            one = sums.at(tuple(frames)) if frames else None
            if one is not None:
                one.pages += int(count[1])
            frames = []
        elif not line.strip():
            frames = []
    return sums
