# SPDX-License-Identifier: Apache-2.0
"""Android's native heap dumps (`am dumpheap -n`, malloc_debug), versions 1.0 to 1.2, as recordings.

    Android Native Heap Dump v1.2
    Build fingerprint: 'google/...'                     since 1.2
    Total memory: 1900
    Allocation records: 2
    z 0  sz      400  num    1  bt a2a0 b510            z 0: of the zygote, before the fork
      bt_info {"/system/libc.so" 2a0 "abort" 24} ...    with backtrace_full
    MAPS
    7fe9181000-7fe91a2000 r-xp 00000000 00:00 0    /system/lib64/libc.so
    END

Frames are innermost first, at the calls. num is wrong in many files of version 1.0: it counts
where the sums in the head agree with it, and is 1 where they do not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._lines import RawLines, not_understood
from leakscope.formats._maps import Maps
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import Address, FrameName
from leakscope.model.recordings import Coverage

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.recordings import Recording

__all__ = ["read", "recognises"]

_HEAD = re.compile(rb"\s*Android Native Heap Dump v1\.(\d{1,3})\s*\n")
_RECORD = re.compile(
    rb"z ([01])\s+sz\s+(\d{1,18})\s+num\s+(\d{1,18})\s+bt((?:\s+[0-9a-f]{1,16})*)\s*"
)
_TOTAL = re.compile(rb"(Total memory|Allocation records): (\d{1,18})\s*")
_INFO = re.compile(rb'\{"([^"]*)" ([0-9a-f]{1,16}) "((?:[^"\\]|\\.)*)" ([0-9a-f]{1,16})\}')
_HARMLESS = (b"Android", b"Build fingerprint:", b"Backtrace size:")
_NEWEST = 2


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is such a dump."""
    return _HEAD.match(head[:4096]) is not None


class _Record(NamedTuple):
    zygote: bool
    size: int
    num: int
    addresses: list[int]
    names: list[FrameName]


class _Dump:
    """What is in the file."""

    def __init__(self) -> None:
        self.records: list[_Record] = []
        self.told: dict[bytes, int] = {}
        self.maps = Maps(fixed=0)  # Android runs nothing that cannot be moved
        self.has_maps = self.ended = False
        self.left_out = self.unknown = 0

    def read(self, lines: RawLines) -> None:
        for line in lines:
            self._line(line)
        if lines.rest.strip() == b"END":  # the one line that is whole without an end
            self.ended, lines.rest = True, b""

    def _line(self, line: bytes) -> None:
        if self.has_maps:
            self.ended = self.ended or line.strip() == b"END"
            self.maps.add(line)
        elif (found := _RECORD.fullmatch(line)) is not None:
            if len(self.records) >= MOST_RECORDS:
                self.left_out += 1
                return
            addresses = [int(each, 16) for each in found[4].split()[:MOST_FRAMES]]
            size, num = int(found[2]), int(found[3])
            self.records.append(_Record(found[1] == b"0", size, num, addresses, []))
        elif line.lstrip().startswith(b"bt_info"):
            if self.records:
                self.records[-1].names.extend(_named(line))
        elif line.strip() == b"MAPS":
            self.has_maps = True
        elif (total := _TOTAL.fullmatch(line)) is not None:
            self.told.setdefault(total[1], int(total[2]))
        elif line.strip() and not line.startswith(_HARMLESS):
            self.unknown += 1

    def sums(self, *, num: bool) -> tuple[int, int]:
        """Return bytes and blocks; without `num` each record is one block."""
        return (
            sum(r.size * (r.num if num else 1) for r in self.records),
            sum(r.num if num else 1 for r in self.records),
        )

    @property
    def in_head(self) -> tuple[int | None, int | None]:
        """Bytes and blocks as the head of the file tells them."""
        return self.told.get(b"Total memory"), self.told.get(b"Allocation records")


def _named(line: bytes) -> list[FrameName]:
    return [
        FrameName(
            function=function.decode("utf-8", "replace") or None,
            module_path=path.decode("utf-8", "replace") or None,
        )
        for path, _, function, _ in _INFO.findall(line)[:MOST_FRAMES]
    ]


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording in the file. Raises `RecordingError`."""
    head = _HEAD.match(file.head(4096))
    if head is None:
        raise RecordingError(f"{file.path} is no native heap dump")
    minor = int(head[1])
    lines, dump = RawLines(file), _Dump()
    dump.read(lines)
    # Of version 1.0 the number is believed where the head agrees with it.
    num = minor > 0 or dump.sums(num=True) == dump.in_head
    build = RecordingBuilder()
    for record in dump.records:
        count = min(record.num if num else 1, (1 << 62) // max(record.size, 1))
        site = build.stack(_frames(build, dump, record))
        kind = "malloc (zygote)" if record.zygote else "malloc"
        build.site(site, kind, live_count=count, live_bytes=record.size * count)
    if not dump.records:
        build.site(0, live_count=0, live_bytes=0)
    build.coverage = Coverage(
        mode=f"Android's native heap dump, version 1.{minor}",
        troubles=(NO_CHECK,),
        notes=tuple(_notes(file, lines, dump, minor, num=num)),
    )
    return (build.build(),)


def _frames(build: RecordingBuilder, dump: _Dump, record: _Record) -> list[BuiltFrame]:
    frames = []
    named = record.names if len(record.names) == len(record.addresses) else []
    for at, address in enumerate(record.addresses):
        name = named[at] if named else None
        if name is not None and name.function is not None:
            frames.append(BuiltFrame(Address(None, address, exact=True), name))
        else:
            frames.append(BuiltFrame(dump.maps.address(build, address, exact=True)))
    return frames


def _notes(file: ForeignFile, lines: RawLines, dump: _Dump, minor: int, *, num: bool) -> list[str]:
    notes = ["it is what was held when the dump was made; nobody looked whether it is in use"]
    if minor > _NEWEST:
        notes.append(f"version 1.{minor} is newer than what is known: 1.{_NEWEST}")
    if file.cut or lines.rest or not dump.ended:
        notes.append(f"the file is not whole: {file.cut or 'it ends too early'}")
    sums = dump.sums(num=num)
    for told, listed, what in zip(dump.in_head, sums, ("bytes", "blocks"), strict=True):
        if told is not None and told != listed:
            notes.append(
                f"the head of the file tells of {told:,} {what}, its records of {listed:,}"
            )
    if not num and any(record.num != 1 for record in dump.records):
        notes.append(
            "the numbers of blocks contradict the head: each record was taken for one block"
        )
    zygote = sum(r.size * (r.num if num else 1) for r in dump.records if r.zygote)
    if zygote:
        notes.append(f"{zygote:,} bytes are the zygote's, from before the fork of this process")
    if not any(record.addresses for record in dump.records):
        notes.append("no record has a stack: turn on malloc_debug's option backtrace")
    if dump.left_out:
        notes.append(f"{dump.left_out:,} records beyond {MOST_RECORDS:,} were not read")
    if dump.unknown:
        notes.append(not_understood(dump.unknown))
    return notes
