# SPDX-License-Identifier: Apache-2.0
"""What Android's malloc_debug records (record_allocs), replayed: what was held at the end.

    186: malloc 0xb6038060 20
    186: realloc 0xb48390a0 0xb6038060 12         new, old, size
    186: memalign 0xae9d1000 16 104               alignment, size
    187: calloc 0xb609f080 32 4                   number, size
    187: free 0xb609f080
    187: thread_done 0x0

Newer ones end in the start and end of each call in ns.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import NO_CHECK
from leakscope.formats._replay import EventReplay
from leakscope.formats._tables import MOST_BYTES
from leakscope.formats._text import LogLines
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Coverage, Recording

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"(?:^|\n)\d{1,10}: (?:malloc 0x[0-9a-f]{1,16} \d{1,18}|calloc 0x[0-9a-f]{1,16} \d{1,18} \d{1,18}"
    rb"|realloc 0x[0-9a-f]{1,16} 0x[0-9a-f]{1,16} \d{1,18}|memalign 0x[0-9a-f]{1,16} \d{1,18} \d{1,18}"
    rb"|thread_done 0x0)(?: \d{1,20} \d{1,20})?\r?\n"
)
_LINE = re.compile(
    r"(\d{1,10}): (malloc|calloc|realloc|memalign|free|thread_done) 0x([0-9a-f]{1,16})"
    r"(?: (0x[0-9a-f]{1,16}|\d{1,18}))?(?: (\d{1,18}))?(?: (\d{1,20}))?(?: (\d{1,20}))?\s*"
)
_Place = str  # the function


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` was written by record_allocs."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of the log. Raises `RecordingError`."""
    lines = LogLines(file, MOST_BYTES)
    replay: EventReplay[_Place] = EventReplay()
    strange = events = 0
    threads: set[int] = set()
    for line in lines:
        if lines.cut:
            break
        found = _LINE.fullmatch(line)
        if found is None or not _take(replay, found):
            strange += bool(line.strip())
            continue
        events += 1
        if len(threads) < 100_000:
            threads.add(int(found[1]))
    if not events:
        raise RecordingError(f"{file.path} has a line of record_allocs in it, and no whole one")
    build = RecordingBuilder()
    replay.build(build, lambda place: (0, place))
    cut = file.cut or ("its last line has no end" if lines.cut else None)
    notes = [
        "such a log has no call stacks: it tells how much is held, and not by whom",
        f"threads: {len(threads):,}",
        *replay.notes(),
    ]
    if strange:
        notes.append(f"not understood: {strange:,} lines")
    if cut:
        notes.append(f"the file is not whole: {cut}")
    build.coverage = Coverage(
        mode="Android's record_allocs",
        alloc_events=replay.allocs,
        free_events=replay.frees,
        max_depth=0,
        troubles=(NO_CHECK,) if replay.live or cut or strange else (),
        notes=tuple(notes),
    )
    return (build.build(),)


def _take(replay: EventReplay[_Place], found: re.Match[str]) -> bool:
    """EventReplay a line; returns whether it has all that it needs."""
    function, address = found[2], int(found[3], 16)
    if function == "thread_done":
        return True
    if function == "free":
        replay.free(address)
        return True
    one, two = found[4], found[5]
    if one is None or (function != "malloc" and two is None):
        return False
    if function == "realloc":
        if not one.startswith("0x"):
            return False
        size = int(two)
        replay.free(int(one, 16))
        if size == 0 and address == 0:
            return True
    elif one.startswith("0x"):
        return False
    elif function == "calloc":
        size = int(one) * int(two)
    else:
        size = int(one) if function == "malloc" else int(two)
    replay.allocate(address, size, function)
    return True
