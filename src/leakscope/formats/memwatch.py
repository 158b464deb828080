# SPDX-License-Identifier: Apache-2.0
"""The log of memwatch: one run behind the other, each with what it did not free.

    ============= MEMWATCH 2.71 Copyright (C) 1992-1999 Johan Lindh =============
    Started at Sun Nov 22 16:29:32 2015
    Stopped at Sun Nov 22 16:29:32 2015
    unfreed: <11> a.c(161), 255 bytes at 0x1e80c40   {28 74 .. (test 5)(a.out 1}
    Memory usage statistics (global):
     U)nfreed bytes totals      : 765

Other lines of that form (overflow, underflow, wild, double-free) are errors. A run without
`Stopped at` ended before it could look. The braces hold whatever was in memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_RECORDS, NO_CHECK
from leakscope.formats._tables import MOST_BYTES
from leakscope.formats._text import LogLines, frame
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import BLOCK_DTYPE, Coverage, Process, Recording
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"={4,20} MEMWATCH (?:\d|\()|(?:^|\n)unfreed: <\d{1,12}> [^\n]{1,400}\(\d{1,9}\), \d{1,12} bytes at"
)
_HEAD = re.compile(r"={4,20} MEMWATCH (\d[\d.]{0,8})?")
_LINE = re.compile(
    r"([A-Za-z][A-Za-z -]{1,30}): <(\d{1,15})> (.{1,1000}?)\((\d{1,9})\),? ?(.{0,400})"
)
_HELD = re.compile(r"(\d{1,15}) bytes at (?:0x)?([0-9a-fA-F]{1,16})")
_FIGURE = re.compile(r"\s([NLTU])\)(\S.{0,60}?):\s{1,8}(\d{1,18})\s*$")
_MOST_RUNS = 100_000


@dataclass(slots=True)
class _Run:
    version: str | None = None
    started: str | None = None
    stopped: bool = False
    held: list[tuple[int, int, str, int]] = field(default_factory=list)  # address, size, place
    errors: list[tuple[str, str, str, int]] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)
    left_out: int = 0


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is a log of memwatch."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return a recording of the newest run, and of those before that held something.

    Raises `RecordingError`.
    """
    lines = LogLines(file, MOST_BYTES)
    runs: list[_Run] = []
    count = skipped = unended = 0
    for line in lines:
        head = _HEAD.search(line)
        if head is None and not runs and not line.startswith("unfreed: <"):
            continue
        if head is not None or not runs:
            if runs and not (runs[-1].held or runs[-1].errors):
                skipped += 1
                unended += not runs[-1].stopped
                runs.pop()
            if len(runs) >= _MOST_RUNS:
                raise RecordingError(f"{file.path} has more than {_MOST_RUNS:,} runs in it")
            runs.append(_Run(None if head is None else head[1]))
        if head is None and not lines.cut:
            count += _take(runs[-1], line, full=count >= MOST_RECORDS)
    if not runs:
        raise RecordingError(f"{file.path} has a line of memwatch in it, and no log")
    cut = file.cut or ("its last line has no end" if lines.cut else None)
    return tuple(
        _recording(
            run,
            (skipped, unended),
            several=len(runs) + skipped,
            cut=cut if run is runs[-1] else None,
        )
        for run in runs
    )


def _take(run: _Run, line: str, *, full: bool) -> bool:
    """Take a line; returns whether it was kept."""
    if (found := _LINE.match(line)) is not None:
        if full:
            run.left_out += 1
            return False
        held = _HELD.search(found[5])
        if found[1] == "unfreed" and held is not None:
            run.held.append((int(held[2], 16), int(held[1]), found[3], int(found[4])))
        else:
            text = f"{found[1]}: {found[3]}({found[4]}), {found[5].split('{')[0].strip()}"
            run.errors.append((found[1], text, found[3], int(found[4])))
        return True
    if line.startswith("Started at "):
        run.started = line[11:].strip()[:60]
    elif line.startswith("Stopped at "):
        run.stopped = True
    elif (figure := _FIGURE.match(line)) is not None:
        run.figures[figure[1]] = int(figure[3])
    return False


def _recording(run: _Run, others: tuple[int, int], *, several: int, cut: str | None) -> Recording:
    build = RecordingBuilder(Process(ended="exited" if run.stopped else None))
    table = np.zeros(len(run.held), BLOCK_DTYPE)
    for row, (address, size, file, line) in enumerate(run.held):
        place = frame(file=file, line=line)
        site = build.site(build.stack([place] if place is not None else []))
        table[row] = (address, min(size, 1 << 48), site, 0)
    build.blocks(table)
    for kind, text, file, line in run.errors:
        place = frame(file=file, line=line)
        build.error(kind, text, [place] if place is not None else [])
    size = sum(each[1] for each in run.held)
    told = run.figures.get("U")
    checked = run.stopped and (bool(run.held) or told == 0)
    notes = [
        "there is one place to a block in a log of memwatch; code without its header is not seen"
    ]
    if not run.stopped:
        notes.append("the run has no end: the program crashed, or still ran, and nothing is known")
    elif told is not None and told != size:
        notes.append(f"its sum is {told:,} bytes, and the blocks listed are {size:,}")
    if run.started:
        notes.append(f"started at {run.started}")
    if "L" in run.figures:
        notes.append(f"at most {run.figures['L']:,} bytes were held at once")
    if several > 1:
        text = f"one of {several:,} runs in this file"
        if others[0]:
            text += f"; not shown: {plural(others[0], 'run')} without an unfreed block"
            text += f", {others[1]:,} of which did not end" if others[1] else ""
        notes.append(text)
    if run.left_out:
        notes.append(f"not read: {plural(run.left_out, 'line')}")
    if cut:
        notes.append(f"the file is not whole: {cut}")
    build.coverage = Coverage(
        mode="memwatch" + (f" {run.version}" if run.version else ""),
        alloc_events=run.figures.get("N"),
        max_depth=1,
        troubles=() if checked else (NO_CHECK,),
        notes=tuple(notes),
    )
    return build.build()
