# SPDX-License-Identifier: Apache-2.0
"""What glibc's script `mtrace` prints of a log: the blocks that were not freed, with their callers.

    - 0x0000000000000077 Free 3 was never alloc'd 0x1
    Memory not freed:
    -----------------
               Address     Size     Caller
    0x000055dd1088d4a0    0x1f4  at /tmp/b/churn.c:10

or `No memory leaks.` Whether something still points to a block it does not know.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_RECORDS, NO_CHECK
from leakscope.formats._text import LogLines, frame, plain_number, without_prefix
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Coverage, Recording

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"(?:^|\n)[^\n]{0,80}?Memory not freed:\r?\n|(?:^|\n)No memory leaks\.\r?\n?$"
    rb"|(?:^|\n)- 0x[0-9a-f]{1,16} Free \d{1,12} was never alloc'd"
)
_BLOCK = re.compile(r"\s*0x([0-9a-f]{1,16})\s+(?:0x([0-9a-f]{1,16})|0)  at (.{1,4096})")
_DISCRIMINATOR = re.compile(r" \(discriminator \d{1,9}\)$")  # as addr2line has it
_WRONG = re.compile(
    r"\s*([-+]) 0x([0-9a-f]{1,16}) (?:Free|Alloc|Realloc) \d{1,12} (was never alloc'd|duplicate).*"
)


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is output of mtrace."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of the output. Raises `RecordingError`."""
    lines = LogLines(file)
    build = RecordingBuilder()
    count = left_out = unknown = 0
    said = clean = False
    for raw in lines:
        line = without_prefix(raw)
        if "Memory not freed:" in line:
            said = True
        elif line.startswith("No memory leaks."):
            clean = True
        elif lines.cut:
            break
        elif (block := _BLOCK.fullmatch(line.rstrip())) is not None:
            size = plain_number(block[2] or "0", 16)
            if size is None or size >= 1 << 40 or count >= MOST_RECORDS:
                left_out += 1
                continue
            count += 1
            build.block(int(block[1], 16), size, build.site(_place(build, block[3])))
        elif (wrong := _WRONG.fullmatch(line.rstrip())) is not None:
            unknown += wrong[1] == "-"
    if not (said or clean or unknown):
        raise RecordingError(f"{file.path} has a line of mtrace in it, and no report")
    if not count:
        build.site(0, live_bytes=0, live_count=0)
    cut = file.cut or ("its last line has no end" if lines.cut and not clean else None)
    notes = ["there is one caller to a block in what mtrace prints, and no time"]
    if unknown:
        notes.append(f"freed, and allocated before the log began: {unknown:,} blocks")
    if left_out:
        notes.append(f"not read: {left_out:,} lines")
    if cut:
        notes.append(f"the file is not whole: {cut}")
    build.coverage = Coverage(
        mode="mtrace's report",
        max_depth=1,
        troubles=() if clean and not count and not cut else (NO_CHECK,),
        notes=tuple(notes),
    )
    return (build.build(),)


def _place(build: RecordingBuilder, text: str) -> int:
    """Return the node of such as `/tmp/a.c:10`, `0x1` and `./a.out:(f+0x1)[0x2]`."""
    file, _, number = _DISCRIMINATOR.sub("", text).rpartition(":")
    line = plain_number(number)
    if file and line is not None:
        built = frame(file=file, line=line)
    elif text.startswith("0x"):
        built = frame(plain_number(text.split(" ", maxsplit=1)[0].removeprefix("0x"), 16))
    else:
        built = frame(function=text)
    return 0 if built is None else build.stack([built])
