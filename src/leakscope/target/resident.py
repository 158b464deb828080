# SPDX-License-Identifier: Apache-2.0
"""The memory of a process without the pages that are not there.

A program may reserve terabytes and touch three pages of them. To read what was never touched
makes the kernel set up page tables in that program, and costs time by address space, not by
memory. So the kernel is asked first which pages there are (native/scan/pages.c); nothing
else is read, and stands for zeros, which it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakscope.target.image import Copied
from leakscope.target.pages import list_pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from leakscope.proc.maps import Mapping
    from leakscope.target.ending import Ending
    from leakscope.target.image import Image
    from leakscope.target.memory import Thread

    Words = npt.NDArray[np.uint64]

__all__ = ["Resident"]

_ROOM = 1 << 16  # spans asked for at a time
_SHARED_MOST = 64 << 20  # bytes of shared memory that were touched by others and are read
_PIECE = 1 << 20
# Other file systems may not answer, or ask somebody who does not.
_LOCAL = frozenset({"tmpfs", "ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "f2fs", "zfs"})
_UNNAMED = ("/memfd:", "/dev/zero", "/SYSV")  # shared memory that is in no file system one can see


class Resident:
    """An image of a process that has only those pages that are in memory or in swap.

    Stands for the image, whose `pid`, `mappings`, `threads`, `method` and `check` it has; `spans` are the ranges with such pages, ascending, one a
    row, None when the kernel does not tell: then everything is read.
    """

    def __init__(self, image: Image | Ending) -> None:
        self._image = image
        self.pid = image.pid
        self.method = image.method
        self.check = image.check
        self.notes, self.segments, self.split = image.notes, image.segments, image.split
        self._origin: int = getattr(image, "target", image.pid)  # whose shared memory it is
        self.mappings: Sequence[Mapping] = image.mappings
        self.threads: Sequence[Thread] = image.threads
        # A copy has just those pages already.
        self.spans = image.spans if isinstance(image, Copied) else self._spans()
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._before: list[int] = []  # bytes in the spans before each
        self._areas: list[tuple[int, int]] = []
        # By where a mapping starts: the descriptor of a thread that ended, as `scan.roots` found.
        self.ended_stacks: dict[int, int | None] = {}
        if self.spans is not None:
            self._starts, self._ends = self.spans[:, 0].tolist(), self.spans[:, 1].tolist()
            sizes = self.spans[:, 1] - self.spans[:, 0]
            self._before = [0, *np.cumsum(sizes).tolist()]
            self._areas = _merged((m.start, m.end) for m in self.mappings)

    def read(self, address: int, size: int) -> bytes:
        """Return up to `size` bytes from `address`; fewer where they cannot be read."""
        if self.spans is None or isinstance(self._image, Copied):
            return self._image.read(address, size)
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and address + size <= self._ends[at]:
            return self._image.read(address, size)
        area = bisect_right(self._areas, (address, 1 << 64)) - 1
        if area < 0:
            return b""
        end = min(address + size, self._areas[area][1])
        if end <= address:
            return b""
        found = bytearray(end - address)
        for number in range(max(at, 0), len(self._starts)):
            low, high = max(self._starts[number], address), min(self._ends[number], end)
            if low >= end:
                break
            if low < high:
                part = self._image.read(low, high - low)
                found[low - address : low - address + len(part)] = part
                if len(part) < high - low:
                    return bytes(found[: low - address + len(part)])
        return bytes(found)

    def bytes_of(self, ranges: Iterable[tuple[int, int]]) -> int:
        """Return how many bytes of the ranges there are."""
        return sum(self.resident_bytes(start, end) for start, end in ranges)

    def resident_bytes(self, start: int, end: int) -> int:
        """Return how many bytes from `start` to `end` there are."""
        if self.spans is None:
            return end - start
        return self._bytes_below(end) - self._bytes_below(start)

    def _bytes_below(self, address: int) -> int:
        at = bisect_right(self._starts, address)
        return self._before[at] - (max(self._ends[at - 1] - address, 0) if at else 0)

    def words_of_others(self) -> Words:
        """Return what is in shared memory that this process has mapped and not touched.

        Another mapping, of this process or of another one, may have been used to write it. Read
        from the file behind it, so that the process does not get it mapped; at most 64 MiB.
        """
        found: list[Words] = []
        left = _SHARED_MOST
        local = _local_devices(self._origin)
        for mapping in self.mappings:
            if mapping.permissions[3] != "s" or mapping.permissions[0] != "r" or not mapping.inode:
                continue
            if not mapping.path.startswith(_UNNAMED) and mapping.device not in local:
                continue
            for raw in _data(self._origin, mapping, self._absent(mapping), left):
                found.append(np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64))
                left -= len(raw)
        return np.concatenate([np.empty(0, np.uint64), *found])

    def _absent(self, mapping: Mapping) -> list[tuple[int, int]]:
        """Return the parts of a mapping that have no page."""
        if self.spans is None:
            return []
        at, start, left = bisect_right(self._ends, mapping.start), mapping.start, []
        while at < len(self._starts) and self._starts[at] < mapping.end:
            if start < self._starts[at]:
                left.append((start, self._starts[at]))
            start = max(start, self._ends[at])
            at += 1
        if start < mapping.end:
            left.append((start, mapping.end))
        return left

    def _spans(self) -> Words | None:
        own, shared, whole = [], [], []
        for m in self.mappings:
            if m.path.startswith("[v"):
                continue
            if m.permissions[3] == "s":
                shared.append((m.start, m.end))
            elif m.path.startswith("/") and m.permissions[1] != "w":
                whole.append((m.start, m.end))  # the file is its memory
            else:
                own.append((m.start, m.end))
        found = [_resident(self.pid, own), _resident(self._origin, shared)]
        if found[0] is None or found[1] is None:
            return None
        found.append(np.array(whole, np.uint64).reshape(-1, 2))
        spans = np.concatenate([each for each in found if each is not None])
        return np.ascontiguousarray(spans[np.argsort(spans[:, 0], kind="stable")])


def _resident(pid: int, ranges: Sequence[tuple[int, int]]) -> Words | None:
    asked = np.array(_merged(ranges), np.uint64).reshape(-1, 2)
    found: list[Words] = [np.empty((0, 2), np.uint64)]
    cursor = np.zeros(2, np.uint64)
    try:
        pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        while int(cursor[0]) < len(asked):
            room = np.empty((_ROOM, 2), np.uint64)
            before = cursor.copy()
            count = list_pages(pagemap, asked, room, cursor=cursor)
            if count is None:
                return None
            found.append(room[:count].copy())
            if not count and np.array_equal(before, cursor):
                return None  # cancelled
    finally:
        os.close(pagemap)
    return np.concatenate(found)


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join neighbours of an ascending list."""
    merged: list[tuple[int, int]] = []
    for start, end in ranges:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def _local_devices(pid: int) -> set[tuple[int, int]]:
    """Return the devices of file systems that are in this machine, as `pid` has them mounted."""
    found: set[tuple[int, int]] = set()
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/mountinfo").read_text("utf-8", "replace")
        for line in text.splitlines():
            before, _, after = line.partition(" - ")
            fields, kind = before.split(), after.split()
            if len(fields) > 2 and kind and kind[0] in _LOCAL:
                major, _, minor = fields[2].partition(":")
                found.add((int(major), int(minor)))
    return found


def _data(
    pid: int, mapping: Mapping, absent: Sequence[tuple[int, int]], most: int
) -> Iterable[bytes]:
    """Read what the file has for these parts of a mapping; nothing when it is more than `most`."""
    if not absent:
        return
    try:
        fd = os.open(f"/proc/{pid}/map_files/{mapping.span}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # no such right, or gone
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return
        parts: list[tuple[int, int]] = []
        for start, end in absent:
            parts += _extents(fd, mapping.offset + start - mapping.start, end - start)
        if sum(high - low for low, high in parts) > most:
            return
        for low, high in parts:
            for at in range(low, high, _PIECE):
                yield os.pread(fd, min(_PIECE, high - at), at)
    except OSError:
        return
    finally:
        os.close(fd)


def _extents(fd: int, offset: int, size: int) -> list[tuple[int, int]]:
    """Return the parts of a file that are not holes."""
    found: list[tuple[int, int]] = []
    at, end = offset, offset + size
    while at < end:
        try:
            low = os.lseek(fd, at, os.SEEK_DATA)
            high = os.lseek(fd, low, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # nothing behind here
            raise
        if low < end:
            found.append((low, min(high, end)))
        at = high
    return found
