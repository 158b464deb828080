# SPDX-License-Identifier: Apache-2.0
"""What Electric Fence and DUMA print: errors of access and of frees, and hardly ever a leak.

    Electric Fence 2.2 Copyright (C) 1987-1999 Bruce Perens <bruce@perens.com>
    ElectricFence Aborting: free(7fb6eb624ff4): address not from malloc().
    DUMA: ptr=0xb7c5dff0 size=10 type='malloc()' alloced from a.c:7 not freed

Electric Fence never looks for leaks; DUMA does where it was built for it. An overrun ends the
program by SIGSEGV, and nothing is printed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.formats._bounds import MOST_RECORDS, NO_CHECK
from leakscope.formats._text import LogLines, frame, plain_number
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Coverage, Recording

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"Electric ?Fence (?:\d\.\d[\d.]{0,8} Copyright|Aborting: |Exiting: )|DUMA (?:\d{1,2}\.\d|Aborting: |Exiting: )"
    rb"|DUMA: ptr=0x[0-9a-fA-F]{1,16} size="
)
_VERSION = re.compile(r"(Electric Fence|DUMA) (\d{1,2}[\d.]{1,10})")
_ENDED = re.compile(r"(ElectricFence|DUMA) (Aborting|Exiting): (.{1,400})")
_HELD = re.compile(
    r"DUMA: ptr=(0x[0-9a-fA-F]{1,16}) size=(\d{1,18}).{0,200}?(?:alloced from (.{1,1000}?)[:(](\d{1,9})\)?)?"
    r" not freed"
)
_KINDS = (
    ("address not from", "invalid free"), ("already", "double free"), ("mprotect", "out of mappings"),
    ("mmap", "out of mappings"), ("allocate", "out of memory"), ("free(", "invalid free"),
    ("delete", "mismatched free"),
)  # fmt: skip


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has output of Electric Fence or DUMA."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return one recording of all that was printed. Raises `RecordingError`."""
    lines = LogLines(file)
    build = RecordingBuilder()
    tool, runs, errors, held, left_out = "Electric Fence", 0, 0, 0, 0
    for line in lines:
        if (version := _VERSION.search(line)) is not None:
            tool = f"{version[1]} {version[2].rstrip('.')}"
            runs += 1
        elif (ended := _ENDED.search(line)) is not None:
            errors += 1
            text = f"{ended[1]} {ended[2]}: {ended[3].strip()}"
            build.error(_kind(ended[3]), text)
        elif (block := _HELD.search(line)) is not None:
            size = plain_number(block[2])
            if size is None or held >= MOST_RECORDS:
                left_out += 1
                continue
            held += 1
            place = frame(file=block[3], line=plain_number(block[4])) if block[3] else None
            build.block(int(block[1], 16), size, build.site(build.stack([place] if place else [])))
    notes = []
    if held:
        notes.append("it is what was not freed at the end; nobody looked whether it was in use")
    else:
        notes.append(
            f"{tool} finds overruns and wrong frees, and does not look for leaks; for those:"
            " leakscope run -- PROGRAM"
        )
    if not errors:
        notes.append("it printed no error; an overrun would have ended the program by SIGSEGV")
    elif any(error.kind == "out of mappings" for error in build.build().errors):
        notes.append(
            "each block takes pages and a mapping of its own there: too many blocks, or a leak, use"
            " up vm.max_map_count"
        )
    if left_out:
        notes.append(f"not read: {left_out:,} lines")
    if lines.cut or file.cut:
        notes.append(f"the file is not whole: {file.cut or 'its last line has no end'}")
    build.coverage = Coverage(mode=tool, max_depth=1, troubles=(NO_CHECK,), notes=tuple(notes))
    return (build.build(),)


def _kind(text: str) -> str:
    return next((kind for part, kind in _KINDS if part in text), "other errors")
