# SPDX-License-Identifier: Apache-2.0
"""The report of ccmalloc: call chains of what was not freed, outermost call first.

    |ccmalloc report|
    | total # of|   allocated | deallocated |     garbage |
    |      bytes|         100 |          40 |          60 |
    |allocations|           3 |           1 |           2 |
    *100.0% = 60 Bytes of garbage allocated in 2 allocations
    |       |   0x0804875c in <main>
    |       |             at a.c:12
    |       `-----> 0x08048700 in <malloc>

Sizes of 10 KB and more are rounded. No file of it is public: this was written from its source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._text import LogLines, allocation_kind, plain_number
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import Address, FrameName
from leakscope.model.recordings import Coverage, Process, Recording
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"\|\s{0,8}ccmalloc report\s{0,8}\||% = [\d.]{1,20} [KMG]?B(?:ytes?)? of garbage allocated in \d"
)
_CHAIN = re.compile(
    r"[*| ]\s{0,4}\d{1,3}(?:\.\d{1,3})?% = ([\d.]{1,20}) (Bytes?|[KMG]B) of garbage allocated in (\d{1,18}) allocations?"
)
_FRAME = re.compile(
    r"[| `>-]{0,200}(?:0x([0-9a-fA-F]{1,16}) in )?<(.{1,1000})>\s*$|[| `>-]{0,200}0x([0-9a-fA-F]{1,16})(?: in \?\?\?)?\s*$"
)
_PLACE = re.compile(r"[| ]{0,200}at (.{1,1000}):(\d{1,9})\s*$")
_ROW = re.compile(
    r"\|\s{0,20}(bytes|allocations?)\s{0,20}\|\s{0,20}([\d.,]{1,20}(?: ?[KMG]B)?)\s{0,20}\|\s{0,20}([\d.,]{1,20}(?: ?[KMG]B)?)\s{0,20}\|\s{0,20}([\d.,]{1,20}(?: ?[KMG]B)?)\s{0,20}\|"
)
_PROGRAM = re.compile(r"\|?\s{0,8}(?:program|executable):?\s{1,8}(\S{1,1000})")
_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(slots=True)
class _Chain:
    size: int
    count: int
    rounded: bool
    frames: list[tuple[int | None, str | None, str | None, int | None]] = field(
        default_factory=list
    )


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is a report of ccmalloc."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of the report. Raises `RecordingError`."""
    lines = LogLines(file)
    chains: list[_Chain] = []
    sums: dict[str, tuple[int | None, int | None, int | None]] = {}
    begun, left_out = False, 0
    for line in lines:
        if lines.cut:
            break
        begun = begun or "ccmalloc report" in line
        if (chain := _CHAIN.search(line)) is not None:
            begun = True
            size = _size(f"{chain[1]} {chain[2]}")
            count = plain_number(chain[3])
            if size is None or count is None or len(chains) >= MOST_RECORDS:
                left_out += 1
                continue
            chains.append(_Chain(size, count, chain[2][0] in "KMG"))
        elif (row := _ROW.match(line)) is not None:
            sums[row[1][:5]] = (_size(row[2]), _size(row[3]), _size(row[4]))
        elif chains and (place := _PLACE.match(line)) is not None:
            if chains[-1].frames:
                last = chains[-1].frames[-1]
                chains[-1].frames[-1] = (last[0], last[1], place[1], plain_number(place[2]))
        elif not chains or len(chains[-1].frames) >= MOST_FRAMES:
            continue
        elif (found := _FRAME.match(line)) is not None:
            address = plain_number(found[1] or found[3], 16)
            chains[-1].frames.append((address, found[2], None, None))
    if not begun:
        raise RecordingError(f"{file.path} has a line of ccmalloc in it, and no report")
    cut = file.cut or ("its last line has no end" if lines.cut else None)
    return (_recording(chains, sums, left_out, cut),)


def _size(text: str) -> int | None:
    number, _, unit = text.strip().partition(" ")
    try:
        value = float(number.replace(",", "")) * _UNITS.get(unit[:1], 1)
    except ValueError:
        return None
    return int(value) if 0 <= value < 1 << 48 else None


def _recording(
    chains: list[_Chain],
    sums: dict[str, tuple[int | None, int | None, int | None]],
    left_out: int,
    cut: str | None,
) -> Recording:
    build = RecordingBuilder(Process(ended="exited" if sums else None))
    for chain in chains:
        frames = list(reversed(chain.frames))
        kind = allocation_kind(frames[0][1] or "") if frames else "malloc"
        if frames and frames[0][1] is not None and len(frames) > 1 and _allocates(frames[0][1]):
            frames = frames[1:]
        built = [
            BuiltFrame(
                None if address is None else Address(None, address),
                FrameName(function=function, file=place, line=line),
            )
            for address, function, place, line in frames
            if function is not None or address is not None
        ]
        build.site(build.stack(built), kind, live_bytes=chain.size, live_count=chain.count)
    if not chains:
        build.site(0, live_bytes=0, live_count=0)
    garbage, blocks = sums.get("bytes", (None,) * 3)[2], sums.get("alloc", (None,) * 3)[2]
    size, count = sum(c.size for c in chains), sum(c.count for c in chains)
    notes = ["it is what was not freed at the end; nobody looked whether it was in use"]
    if any(chain.rounded for chain in chains):
        notes.append("sizes of 10 KB and more are rounded")
    if garbage is not None and blocks is not None and blocks != count:
        notes.append(
            f"its sums are {garbage:,} bytes in {blocks:,} blocks, and the chains listed have"
            f" {size:,} in {count:,}"
        )
    if left_out:
        notes.append(f"not read: {plural(left_out, 'call chain')}")
    if cut:
        notes.append(f"the file is not whole: {cut}")
    events = sums.get("alloc", (None,) * 3)
    build.coverage = Coverage(
        mode="ccmalloc",
        alloc_events=events[0],
        free_events=events[1],
        troubles=() if (blocks == 0 and not chains) or chains else (NO_CHECK,),
        notes=tuple(notes),
    )
    return build.build()


def _allocates(function: str) -> bool:
    return function in {"malloc", "calloc", "realloc", "memalign", "valloc"} or function.startswith(
        ("operator new", "__builtin_new", "__builtin_vec_new")
    )
