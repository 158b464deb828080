# SPDX-License-Identifier: Apache-2.0
"""The log of dmalloc: the pointers that it lists as not freed.

Each line may begin with a time, a count and more, by its settings. The table of sources counts
known places alone, so the lines of the pointers are what counts. A log can have several lists,
of which the last one counts, and none where an error ended the program before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_RECORDS, NO_CHECK
from leakscope.formats._text import LogLines, frame, plain_number
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import BLOCK_DTYPE, Coverage, Process, Recording
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"(?i)Dmalloc version '|Dumping Not-Freed Pointers|not freed: '(?:0x)?[0-9a-fA-F]{1,16}(?:\|[^'\n]{1,40})?' \("
)
_POINTER = re.compile(
    r"not freed: '(?:0x)?([0-9a-fA-F]{1,16})(?:\|[^']{1,80})?' \((\d{1,20}) bytes?\)"
    r" from '([^']{0,4096})'"
)
_IN_USE = re.compile(r"current memory in use: (\d{1,20}) bytes \((\d{1,20}) pnts?\)")
_VERSION = re.compile(r"Dmalloc version '([^']{1,40})'", re.IGNORECASE)
_PID = re.compile(r"process pid = (\d{1,10})")
_ERROR = re.compile(r"ERROR: (.{1,200})")
_SINCE = re.compile(r"Dumping Not-Freed Pointers Changed Since (.{1,40}?):", re.IGNORECASE)
_MOST_RUNS = 4096


@dataclass(slots=True)
class _Run:
    """What one program logged."""

    version: str | None = None
    pid: int | None = None
    pointers: dict[int, tuple[int, str]] = field(default_factory=dict)  # size and source
    lists: int = 0
    since: str | None = None
    in_use: tuple[int, int] | None = None
    errors: int = 0
    error: str | None = None
    wrong: dict[str, int] = field(default_factory=dict)
    ended: bool = False
    cut: bool = False
    left_out: int = 0


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is a log of dmalloc."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return a recording of each run in the log. Raises `RecordingError`."""
    lines = LogLines(file)
    runs: list[_Run] = []
    for line in lines:
        found = _VERSION.search(line)
        if found is not None or not runs:
            if len(runs) >= _MOST_RUNS:
                raise RecordingError(f"{file.path} has more than {_MOST_RUNS:,} runs in it")
            runs.append(_Run(None if found is None else found[1]))
        _take(runs[-1], line)
    if not runs:
        raise RecordingError(f"{file.path} is empty")
    runs[-1].cut = lines.cut
    known = [run for run in runs if run.version or run.lists or run.pointers]
    return tuple(_recording(run, several=len(known) > 1) for run in known or runs)


def _take(run: _Run, line: str) -> None:
    """Read one line."""
    if (found := _POINTER.search(line)) is not None:
        address, size = int(found[1], 16), plain_number(found[2])
        if size is None or len(run.pointers) >= MOST_RECORDS:
            run.left_out += 1
        else:
            run.pointers[address] = (size, found[3])
    elif (found := _SINCE.search(line)) is not None:
        run.pointers.clear()
        run.lists += 1
        run.since = found[1]
    elif (found := _IN_USE.search(line)) is not None:
        size, count = plain_number(found[1]), plain_number(found[2])
        run.in_use = None if size is None or count is None else (size, count)
    elif (found := _PID.search(line)) is not None:
        run.pid = plain_number(found[1])
    elif (found := _ERROR.search(line)) is not None:
        run.errors += 1
        run.error = run.error or found[1].strip()
        if len(run.wrong) < 1000 or found[1].strip() in run.wrong:
            run.wrong[found[1].strip()] = run.wrong.get(found[1].strip(), 0) + 1
    elif "ending time = " in line:
        run.ended = True


def _recording(run: _Run, *, several: bool) -> Recording:
    build = RecordingBuilder(
        Process(pid=run.pid, ended="exited" if run.ended else None),
        _coverage(run, several=several),
    )
    table = np.zeros(len(run.pointers), BLOCK_DTYPE)
    for row, (address, (size, source)) in enumerate(run.pointers.items()):
        table[row] = (address, size, build.site(_place(build, source), "malloc"), 0)
    build.blocks(table)
    for text, count in run.wrong.items():
        build.error("error", text, count=count)
    return build.build()


def _place(build: RecordingBuilder, source: str) -> int:
    """Return the node of such as `file.c:12`, `ra=0x400618` and `unknown`."""
    address = plain_number(source.removeprefix("ra=0x"), 16) if source.startswith("ra=0x") else None
    file, _, number = source.rpartition(":")
    line = plain_number(number)
    if address is None and (not file or line is None):
        return 0
    built = frame(address) if address is not None else frame(file=file, line=line)
    return 0 if built is None else build.stack([built])


def _coverage(run: _Run, *, several: bool) -> Coverage:
    troubles, notes = [], ["there is one place to a block in a log of dmalloc, and no time"]
    size = sum(each for each, _ in run.pointers.values())
    nothing = run.in_use == (0, 0) or (run.in_use is None and run.ended)
    if not run.pointers and not (run.lists and nothing):
        troubles.append(NO_CHECK)
        why = "an error ended the program before" if run.errors else "the log has no such list"
        notes.append(f"what was not freed is not known: {why}")
    if run.in_use is not None and run.lists and run.in_use != (size, len(run.pointers)):
        notes.append(
            f"{run.in_use[0]:,} bytes in {run.in_use[1]:,} blocks were in use, and"
            f" {size:,} in {len(run.pointers):,} are listed"
        )
    if run.lists > 1:
        notes.append(f"the last of {run.lists:,} lists counts, of what changed since {run.since}")
    unknown = sum(source == "unknown" for _, source in run.pointers.values())
    if unknown:
        notes.append(
            f"the place of {plural(unknown, 'block')} is not known: build with dmalloc.h and -DDMALLOC"
        )
    if several:
        notes.append("one of several runs in this file")
    if run.cut:
        notes.append("the file is cut within its last line")
    if run.left_out:
        notes.append(f"{plural(run.left_out, 'line')} could not be read")
    mode = "dmalloc" + (f" {run.version}" if run.version else "")
    return Coverage(mode=mode, max_depth=1, troubles=tuple(troubles), notes=tuple(notes))
