# SPDX-License-Identifier: Apache-2.0
"""Heap profiles in the text form of gperftools, and in that of Go (debug=1), as recordings.

    heap profile:   40: 30300000 [  50: 60300000] @ heapprofile    held [ever allocated] @ kind
      10: 30000000 [  20: 60000000] @ 0x5565d62302f7 0x7fcead04524a
    #  0x4b3c0e  main.leakSite+0x2e  /src/main.go:12               Go alone: names of the frames
    MAPPED_LIBRARIES:                                              a copy of /proc/PID/maps

The map may be headed "--- Memory map: ---" instead, and have texts of its own: NAME=TEXT, $NAME.

Kinds: heapprofile (every block), heap_v2/N and heapz_v2/N (samples, N bytes apart), heap/N (Go and
old gperftools: N is twice that), growth (address space that the heap asked for).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._lines import RawLines, not_understood, number
from leakscope.formats._maps import Maps
from leakscope.formats._sampling import unsampled
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import Address, FrameName
from leakscope.model.recordings import Coverage

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.recordings import Recording

__all__ = ["read", "recognises"]

_N = rb"\s*(-?\d{1,19}):\s*(-?\d{1,19})\s*\[\s*(-?\d{1,19}):\s*(-?\d{1,19})\]\s*@"
_HEAD = re.compile(rb"\s*heap profile: " + _N + rb"\s*([a-z_0-9]+)(?:/(\d{1,18}))?\s*\n")
_RECORD = re.compile(_N + rb"(.*)")
_NAME = re.compile(rb"#\t(0x[0-9a-f]{1,16})\t([^\t]+?)(?:\+0x[0-9a-f]+)?\t+(.*?)(?::(\d{1,9}))?")
_STATISTIC = re.compile(rb"# ([A-Za-z]{1,40}) = (\d{1,19})")
_MAP_HEADS = (b"MAPPED_LIBRARIES:", b"--- Memory map:")
_TEXT = re.compile(rb"\s*([a-z]{1,20})=(\S{0,4096})\s*")
_SAMPLED = {b"heap_v2", b"heapz_v2", b"heap"}
_KINDS = {*_SAMPLED, b"heapprofile", b"growth", b"growthz"}
_GROWTH = (
    "it is address space that the heap asked the system for, by who made it grow: that it grew is"
    " no leak, and who holds it is not told"
)


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is such a profile."""
    return _HEAD.match(head[:4096].replace(b"\r", b"")) is not None


@dataclass(slots=True)
class _Record:
    counts: tuple[int, int, int, int]
    addresses: tuple[int, ...]
    names: list[tuple[int, FrameName]] = field(default_factory=list)


class _Profile:
    """What is in the file."""

    def __init__(self) -> None:
        self.records: list[_Record] = []
        self.maps = Maps()
        self.has_maps = False
        self.texts: dict[bytes, bytes] = {}
        self.statistics: dict[str, int] = {}
        self.left_out = self.unknown = self.negative = 0

    def read(self, lines: RawLines) -> None:
        header = record = None
        for line in lines:
            if self.has_maps:
                self._map_line(line)
            elif line.startswith(_MAP_HEADS):
                self.has_maps = True
            elif header is None:
                header = line.strip() or None
            elif (found := _RECORD.match(line)) is not None:
                record = self._record(found)
            elif line.startswith(b"#"):
                self._comment(record, line)
            elif line.strip():
                self.unknown += 1

    def _map_line(self, line: bytes) -> None:
        if (found := _TEXT.fullmatch(line)) is not None and len(self.texts) < 10:
            self.texts[b"$" + found[1]] = found[2]
            return
        for name, text in self.texts.items():
            line = line.replace(name, text, 1)
        self.maps.add(line)

    def _record(self, found: re.Match[bytes]) -> _Record:
        told = [int(each) for each in found.groups()[:4]]
        if min(told) < 0:  # of two profiles that were subtracted
            self.negative += 1
            told = [max(each, 0) for each in told]
        words = found[5].split()[:MOST_FRAMES]
        addresses = tuple(a for w in words if (a := number(w, 16)) is not None)
        record = _Record((told[0], told[1], told[2], told[3]), addresses)
        if len(self.records) < MOST_RECORDS:
            self.records.append(record)
        else:
            self.left_out += 1
        return record

    def _comment(self, record: _Record | None, line: bytes) -> None:
        if (found := _NAME.fullmatch(line)) is not None and record is not None:
            if len(record.names) < MOST_FRAMES:
                text = [found[n].decode("utf-8", "replace") for n in (2, 3)]
                at = number(found[4]) if found[4] else None
                name = FrameName(function=text[0], file=text[1] or None, line=at)
                record.names.append((int(found[1], 16), name))
        elif (stat := _STATISTIC.fullmatch(line)) is not None and len(self.statistics) < 1000:
            self.statistics[stat[1].decode()] = int(stat[2])


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording in the file. Raises `RecordingError`."""
    head = _HEAD.match(file.head(4096).replace(b"\r", b""))
    if head is None:
        raise RecordingError(f"{file.path} is no heap profile of gperftools")
    kind, period = head[5], number(head[6] or b"") or 1
    if kind not in _KINDS:
        raise RecordingError(
            f"{file.path} is a profile of the kind {kind.decode()!r}, which does not tell what is held",
            hint="Heap profiles are read: heapprofile, heap_v2, heap and growth.",
        )
    if kind == b"heap":
        period //= 2
    lines, profile = RawLines(file), _Profile()
    profile.read(lines)
    sampled = period > 1 and kind in _SAMPLED
    growth = kind.startswith(b"growth")
    build = RecordingBuilder()
    with_allocs = not growth and any(r.counts[:2] != r.counts[2:] for r in profile.records)
    for record in profile.records:
        count, size = unsampled(*record.counts[:2], period if sampled else 1)
        # The producer's viewers cut off what is behind the point, stack by stack; so do we.
        told = {"live_count": int(count), "live_bytes": int(size)}
        if with_allocs:
            count, size = unsampled(*record.counts[2:], period if sampled else 1)
            told |= {"allocs": int(count), "alloc_bytes": int(size)}
        node = build.stack(_frames(build, profile, record))
        build.site(node, "heap growth" if growth else "malloc", **told)
    if not profile.records:
        build.site(0, live_count=0, live_bytes=0)
    build.coverage = Coverage(
        mode="Go's heap profile" if profile.statistics else "gperftools' heap profile",
        sample_bytes=period if sampled else None,
        troubles=(NO_CHECK,),
        notes=tuple(_notes(file, lines, profile, head, period if sampled else 1)),
    )
    return (build.build(),)


def _frames(build: RecordingBuilder, profile: _Profile, record: _Record) -> list[BuiltFrame]:
    if record.names:  # Go names the call instructions, and inlined functions with them
        return [BuiltFrame(Address(None, at, exact=True), name) for at, name in record.names]
    return profile.maps.frames(build, record.addresses, skip="libtcmalloc")


def _notes(
    file: ForeignFile, lines: RawLines, profile: _Profile, head: re.Match[bytes], period: int
) -> list[str]:
    if head[5].startswith(b"growth"):
        notes = [_GROWTH]
    else:
        notes = [
            "it is what was held when the file was written; nobody looked whether it is in use"
        ]
    if period > 1:
        notes.append(
            f"one block in about {period:,} allocated bytes was looked at: the numbers are estimates"
        )
    listed = sum(record.counts[1] for record in profile.records)
    header = int(head[2])
    go = "HeapAlloc" in profile.statistics
    if file.cut or lines.rest or not (profile.has_maps or go):
        notes.append(f"the file is not whole: {file.cut or 'it ends too early'}")
    if listed != header:
        notes.append(f"the head of the file tells of {header:,} bytes, its records of {listed:,}")
    if go:
        collected = profile.statistics.get("NumGC", 0)
        notes.append(
            f"Go's run-time held {profile.statistics['HeapAlloc']:,} bytes, garbage included;"
            f" collections so far: {collected:,}"
        )
    if any(not record.addresses for record in profile.records):
        notes.append("some stacks are empty: the producer could not unwind them")
    if profile.negative:
        notes.append(f"{profile.negative:,} records are negative, and were taken for 0")
    if profile.left_out:
        notes.append(f"{profile.left_out:,} records beyond {MOST_RECORDS:,} were not read")
    if profile.unknown:
        notes.append(not_understood(profile.unknown))
    return notes
