# SPDX-License-Identifier: Apache-2.0
"""The log of leakscope.h, replayed: allocations and frees with time, file, line and function.

    leakscope-log 1 pid 1234[ forked]
    + MICROSECONDS BLOCK SIZE KIND LINE FUNCTION FILE     an allocation; ! one that failed
    > MICROSECONDS BLOCK OLD SIZE KIND LINE FUNCTION FILE a resize; OLD 0 is none
    - MICROSECONDS BLOCK                                  a free
    . MICROSECONDS 0                                      the end, after which destructors may free

Addresses are hexadecimal, other numbers decimal, the file name is the rest of the line. Each process
has a head of its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_RECORDS
from leakscope.formats._text import LogLines, frame, without_prefix
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import BLOCK_DTYPE, Coverage, Process, Recording, Timeline
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(rb"(?:^|\n|[ \t])leakscope-log 1 pid \d{1,20}")
_HEAD = re.compile(r"leakscope-log 1 pid (\d{1,20})( forked)?$")
_HEX, _NUMBER = r"([0-9a-f]{1,16})", r"(\d{1,20})"
_PLACE = r"(\S{1,32}) (\d{1,20}) (\S{1,200}) (.{1,4096})"
_BORN = re.compile(rf"[+!] {_NUMBER} {_HEX} {_NUMBER} {_PLACE}$")
_MOVED = re.compile(rf"> {_NUMBER} {_HEX} {_HEX} {_NUMBER} {_PLACE}$")
_DIED = re.compile(rf"- {_NUMBER} {_HEX}$")
_END = re.compile(rf"\. {_NUMBER} 0$")
_MOST_SIZE = 1 << 40
_MOST_TIME_US = 1 << 52
_MOST_PROCESSES = 4096
_ROWS = 64  # of the course over time; when they are used up, every other one is dropped
_KINDS = frozenset({"malloc", "calloc", "realloc", "memalign", "new", "new[]"})


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is a log of leakscope.h."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return a recording of each process in the log. Raises `RecordingError`."""
    lines = LogLines(file)
    logs: list[_Log] = []
    strange = 0
    for whole in lines:
        if lines.cut:
            break  # its number may be the beginning of another one
        line = whole if whole[:1] in "+->!.l" else without_prefix(whole)
        head = _HEAD.match(line)
        if head is not None:
            if len(logs) >= _MOST_PROCESSES:
                raise RecordingError(
                    f"{file.path} has more than {_MOST_PROCESSES:,} processes in it",
                    hint="Cut out the part that matters.",
                )
            logs.append(_Log(int(head[1]), forked=head[2] is not None))
        elif logs and logs[-1].take(line):
            continue
        elif line.strip():
            strange += 1
    if not logs:
        raise RecordingError(f"{file.path} has no whole line of leakscope.h in it")
    if lines.cut:
        logs[-1].cut = True
    return tuple(log.recording(strange) for log in logs)


class _Log:
    """What one process wrote, replayed. Times are microseconds."""

    def __init__(self, pid: int, *, forked: bool) -> None:
        self.pid, self.forked = pid, forked
        self.cut = self.ended = False
        self.now = 0
        self.failed = self.unknown_frees = self.replaced = self.left_out = 0
        self.frees = 0
        self.sites: dict[tuple[str, str, str, str], int] = {}  # kind, line, function, file
        self.counts: list[list[int]] = []  # allocs, their bytes, frees, their bytes, first, last
        self.held: list[int] = []  # bytes by site, …
        self.blocks: list[int] = []  # … and blocks
        self.ages: dict[int, list[int]] = {}
        self.live: dict[int, tuple[int, int, int]] = {}  # address: size, site, birth
        self.rows: list[tuple[int, list[int], list[int]]] = []
        self._every = 1000  # microseconds between rows
        self._due = 0

    def take(self, line: str) -> bool:
        """Read one line; False for one that is none of ours."""
        mark = line[:1]
        found = _DIED.match(line) if mark == "-" else None
        if found is not None:
            self._tick(found[1])
            self._free(int(found[2], 16))
            return True
        found = _BORN.match(line) if mark in "+!" else _MOVED.match(line) if mark == ">" else None
        if found is not None:
            self._tick(found[1])
            if mark == "!":
                self.failed += 1
                return True
            if mark == ">":
                old = int(found[3], 16)
                if old:
                    self._free(old, moved=True)
            fields = found.groups()[-5:]
            address = int(found[2], 16)
            if address:
                self._allocate(address, int(fields[0]), fields[1:])
            return True
        found = _END.match(line) if mark == "." else None
        if found is not None:
            self._tick(found[1])
            self.ended = True
        return found is not None

    def _tick(self, text: str) -> None:
        self.now = min(max(self.now, int(text)), _MOST_TIME_US)
        while self.now >= self._due and self.held:
            self.rows.append((min(self._due, self.now), [*self.held], [*self.blocks]))
            if len(self.rows) >= _ROWS:
                self.rows = self.rows[::2]
                self._every *= 2
            self._due = max(self._due + self._every, self.now - self.now % self._every)

    def _allocate(self, address: int, size: int, place: tuple[str, ...]) -> None:
        kind, line, function, file = place
        if size >= _MOST_SIZE:
            self.left_out += 1
            return
        key = (kind if kind in _KINDS else "malloc", line, function, file)
        site = self.sites.get(key)
        if site is None:
            if len(self.sites) >= MOST_RECORDS:
                self.left_out += 1
                return
            site = self.sites[key] = len(self.sites)
            self.counts.append([0, 0, 0, 0, self.now, self.now])
            self.held.append(0)
            self.blocks.append(0)
        if address in self.live:
            self.replaced += 1
            self._free(address)
        self.live[address] = (size, site, self.now)
        counts = self.counts[site]
        counts[0] += 1
        counts[1] += size
        counts[5] = self.now
        self.held[site] += size
        self.blocks[site] += 1

    def _free(self, address: int, *, moved: bool = False) -> None:
        block = self.live.pop(address, None)
        if block is None:
            self.unknown_frees += 1
            return
        size, site, birth = block
        counts = self.counts[site]
        counts[2] += 1
        counts[3] += size
        self.frees += not moved
        self.held[site] -= size
        self.blocks[site] -= 1
        bucket = (self.now - birth).bit_length()
        ages = self.ages.setdefault(site, [])
        if bucket >= len(ages):
            ages += [0] * (bucket + 1 - len(ages))
        ages[bucket] += 1

    def recording(self, strange: int) -> Recording:
        """Return what it comes to."""
        build = RecordingBuilder(
            Process(pid=self.pid or None, ended="exited" if self.ended else None),
            self._coverage(strange),
            tick_ns=1000.0,
            duration_ns=self.now * 1000,
        )
        numbers = []
        for (kind, line, function, file), counts in zip(self.sites, self.counts, strict=True):
            known = file != "?"
            built = frame(
                None,
                None if function == "?" else function,
                file if known else None,
                int(line) if known and len(line) < 10 else None,
            )
            numbers.append(
                build.site(
                    0 if built is None else build.stack([built], truncated=True),
                    kind,
                    allocs=counts[0],
                    alloc_bytes=counts[1],
                    frees=counts[2],
                    freed_bytes=counts[3],
                    first_birth_ns=counts[4] * 1000,
                    last_birth_ns=counts[5] * 1000,
                )
            )
        table = np.zeros(len(self.live), BLOCK_DTYPE)
        for row, (address, (size, site, birth)) in enumerate(self.live.items()):
            table[row] = (address, size, numbers[site], birth * 1000)
        build.blocks(table)
        size = max(numbers, default=0) + 1
        build.deaths(self._deaths(numbers, size))
        build.timeline(self._timeline(numbers, size))
        return build.build()

    def _deaths(
        self, numbers: list[int], size: int
    ) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
        from leakscope.model.recordings import AGE_BUCKETS

        deaths = np.zeros((size, AGE_BUCKETS), np.uint64)
        for site, ages in self.ages.items():
            for bucket, count in enumerate(ages):
                deaths[numbers[site], min(bucket, AGE_BUCKETS - 1)] += np.uint64(count)
        return deaths

    def _timeline(self, numbers: list[int], size: int) -> Timeline:
        site_bytes = np.zeros((len(self.rows), size), np.float32)
        site_counts = np.zeros((len(self.rows), size), np.uint32)
        for row, (_, held, blocks) in enumerate(self.rows):
            at = numbers[: len(held)]
            site_bytes[row, at] = held
            site_counts[row, at] = blocks
        return Timeline(
            times_ns=np.array([time * 1000 for time, _, _ in self.rows], np.int64),
            live_bytes=np.array([sum(held) for _, held, _ in self.rows], np.int64),
            live_counts=np.array([sum(blocks) for _, _, blocks in self.rows], np.int64),
            site_bytes=site_bytes,
            site_counts=site_counts,
        )

    def _coverage(self, strange: int) -> Coverage:
        notes = [
            "leakscope.h sees the calls in files that were compiled with it, and one place to a block"
        ]
        if not self.ended:
            notes.append("the log has no end: the program was killed, or still ran")
        if self.cut:
            notes.append("the last line of the log is cut, and was not read")
        if self.forked:
            notes.append("a forked process: what it had from its parent is in the parent's log")
        if self.unknown_frees:
            notes.append(f"freed, and not allocated here: {plural(self.unknown_frees, 'block')}")
        if self.failed:
            notes.append(f"allocations that failed, and are no blocks: {self.failed:,}")
        if self.replaced:
            notes.append(
                f"freed where it was not seen: {plural(self.replaced, 'block')}, whose addresses came"
                " again"
            )
        if strange or self.left_out:
            notes.append(f"not read: {plural(strange + self.left_out, 'line')}")
        return Coverage(
            mode="leakscope.h",
            alloc_events=sum(each[0] for each in self.counts),
            free_events=sum(each[2] for each in self.counts) + self.unknown_frees,
            max_depth=1,
            notes=tuple(notes),
        )
