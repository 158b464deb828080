# SPDX-License-Identifier: Apache-2.0
"""The reports of LeakTracer 2 and 3: blocks of C++ that were not freed.

Version 2 has a line `L RETURN-ADDRESS SIZE # BLOCK` to a block and a trailer with the sum,
version 3 `leak, time=T, stack=ADDRESSES, size=N, data=BYTES`. Neither tells what was mapped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._text import (
    LogLines,
    frame,
    plain_number,
)
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Coverage, Process, Recording
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"# LeakTracer report|(?:^|\n)# starting [A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:]{8} \d{4}\r?\n# "
    rb"|# LeakReport\r?\n|# total allocation requests: +\d{1,20} ; max\. mem used"
    rb"|(?:^|\n)leak, time=\d{1,12}\.\d{1,9}, stack="
)
_OLD = re.compile(r"L 0x([0-9a-fA-F]{1,16})\s{1,30}(\d{1,20})\s{1,8}# 0x[0-9a-fA-F]{1,16}")
_NEW = re.compile(
    r"leak, time=[\d.]{1,30}, stack=((?:0x[0-9a-fA-F]{1,16}(?: |(?=,))){0,600}), size=(\d{1,20}), data="
)
_SUM = re.compile(r"# leak\s{1,20}(\d{1,20}) Bytes")
_NONE = re.compile(r"# total allocation requests: {1,20}0 ;")
_WRONG = re.compile(
    r"S 0x[0-9a-fA-F]{1,16}\s{1,8}0x([0-9a-fA-F]{1,16})\s{1,30}(?:#\s?)?(.{0,200}?)(?: ; size.*)?$"
)


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is a report of LeakTracer."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of the report. Raises `RecordingError`."""
    lines = LogLines(file)
    total: int | None = None
    blocks: list[tuple[tuple[int, ...], int]] = []
    wrong: list[tuple[str, int]] = []
    left_out = 0
    idle = False
    for line in lines:
        found = _OLD.search(line) or _NEW.search(line)
        if found is not None:
            size = plain_number(found[2])
            if size is None or len(blocks) >= MOST_RECORDS:
                left_out += 1
                continue
            stack = tuple(int(each.removeprefix("0x"), 16) for each in found[1].split())
            blocks.append((stack[:MOST_FRAMES], size))
        elif (found := _SUM.search(line)) is not None:
            total = plain_number(found[1])
        elif (found := _WRONG.match(line)) is not None and len(wrong) < MOST_RECORDS:
            wrong.append((found[2].strip() or "delete of the wrong kind", int(found[1], 16)))
        elif _NONE.match(line):
            idle = True
    told = sum(size for _, size in blocks)
    troubles, notes = [], ["LeakTracer sees what C++ allocates with new, and no more"]
    notes.append("the file does not tell what was mapped: its addresses have no names")
    if not blocks and (total != 0 or idle):
        troubles.append(NO_CHECK)
    if idle:
        notes.append("nothing was allocated with new, so there was nothing to see")
    if total is not None and total != told:
        notes.append(f"its own sum is {total:,} bytes, and {told:,} are listed")
    if total is None:
        notes.append("it has no sum: whether it is whole is not known")
    if left_out:
        notes.append(f"not read: {plural(left_out, 'line')}")
    if lines.cut:
        notes.append("the file is cut within its last line")
    if not blocks and total is None and left_out:
        raise RecordingError(f"{file.path} is a report of LeakTracer, and its numbers are none")
    build = RecordingBuilder(
        Process(),
        Coverage(mode="LeakTracer", troubles=tuple(troubles), notes=tuple(notes)),
    )
    for text, address in wrong:
        at = frame(address)
        build.error("mismatched free", text, [] if at is None else [at])
    for stack, size in blocks:
        frames = [built for address in stack if (built := frame(address)) is not None]
        build.site(build.stack(frames), "new", live_bytes=size, live_count=1)
    return (build.build(),)
