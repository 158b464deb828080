# SPDX-License-Identifier: Apache-2.0
"""What gperftools' heap checker prints (HEAPCHECK), as recordings: one for each of its checks.

    WARNING: Perftools heap leak checker is active -- Performance may suffer
    Leak check _main_ detected leaks of 940 bytes in 17 objects
    The 3 largest leaks:
    Leak of 700 bytes in 7 objects allocated from:
            @ 5632fbe9c231 my_alloc                    names where it found pprof
            @ 5632fbe9c26e lose
    pprof ./a "/tmp/a.18559._main_-end.heap" --inuse_objects …

or `No leaks found for check "_main_" (but no 100% guarantee that there aren't any): found 12
reachable heap objects of 73243 bytes`. It looks for pointers as LeakSanitizer does, but where it
does not look at stacks (draconian) it lists all that was not freed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._text import LogLines, frame, plain_number
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Coverage, Process
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.recordings import Recording

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"Perftools heap leak checker is active"
    rb"|Leak check [^\n]{1,200} detected leaks of \d{1,20} bytes in \d"
    rb"|No leaks found for check \""
)
_CHECK = re.compile(
    r"Leak check (.{1,200}?) detected leaks of (\d{1,20}) bytes in (\d{1,20}) objects"
)
_NONE = re.compile(
    r'No leaks found for check "(.{0,200}?)"'
    r"(?:.{0,80}found (\d{1,20}) reachable heap objects of (\d{1,20}) bytes)?"
)
_RECORD = re.compile(r"Leak of (\d{1,20}) bytes in (\d{1,20}) objects allocated from:")
_FRAME = re.compile(r"\s@ (?:0x)?([0-9a-f]{1,16})(?: (.{0,16384}))?$")
_DUMP = re.compile(r'"[^"]{0,4096}?([^/".]{1,255})\.(\d{1,10})\.[^/"]{1,255}-end\.heap"')
_ALL = "Not looking for thread stacks"
_NO_CALLERS = "Have memory regions w/o callers"
_MOST_CHECKS = 10_000


@dataclass(slots=True)
class _Record:
    size: int
    count: int
    stack: list[BuiltFrame] = field(default_factory=list)
    cut: bool = False


@dataclass(slots=True)
class _Check:
    """What one check of one process said."""

    name: str
    total: tuple[int, int] = (0, 0)  # bytes, blocks that leak
    reachable: tuple[int, int] | None = None
    records: list[_Record] = field(default_factory=list)
    program: str | None = None
    pid: int | None = None
    left_out: int = 0


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has text of the heap checker."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return a recording of each check in the file. Raises `RecordingError`."""
    lines = LogLines(file)
    checks: list[_Check] = []
    record: _Record | None = None
    everything = no_callers = False
    for line in lines:
        if record is not None and (found := _FRAME.search(line)) is not None:
            if lines.cut or len(record.stack) >= MOST_FRAMES:
                record.cut = True
            elif (built := _frame(found)) is not None:
                record.stack.append(built)
            continue
        record = None
        everything = everything or _ALL in line
        no_callers = no_callers or _NO_CALLERS in line
        if (started := _started(line)) is not None:
            if len(checks) < _MOST_CHECKS:
                checks.append(started)
        elif checks:
            record = _take(checks[-1], line)
    about = _About(cut=lines.cut, everything=everything, no_callers=no_callers)
    if not checks:
        return (_unchecked(),)
    return tuple(_recording(check, about, last=check is checks[-1]) for check in checks)


def _frame(found: re.Match[str]) -> BuiltFrame | None:
    # A return address: the call is before it.
    return frame(int(found[1], 16), (found[2] or "").strip() or None)


def _started(line: str) -> _Check | None:
    if "eak" not in line:
        return None
    if (found := _CHECK.search(line)) is not None:
        size, count = plain_number(found[2]), plain_number(found[3])
        return _Check(found[1], (size or 0, count or 0))
    if (found := _NONE.search(line)) is not None:
        count, size = plain_number(found[2]), plain_number(found[3])
        held = None if count is None or size is None else (size, count)
        return _Check(found[1], reachable=held)
    return None


def _take(check: _Check, line: str) -> _Record | None:
    """Read a line behind the head of a check; return the record that it begins."""
    if (found := _RECORD.search(line)) is not None:
        size, count = plain_number(found[1]), plain_number(found[2])
        if size is None or count is None or len(check.records) >= MOST_RECORDS:
            check.left_out += 1
            return None
        check.records.append(_Record(size, count))
        return check.records[-1]
    if (dump := _DUMP.search(line)) is not None:
        check.program, check.pid = dump[1], plain_number(dump[2])
    return None


@dataclass(frozen=True, slots=True)
class _About:
    """What is so of the whole text."""

    cut: bool
    everything: bool  # all that was not freed is listed, whether it is in use or not
    no_callers: bool


def _unchecked() -> Recording:
    note = "the heap checker was at work, and printed no result: the program was killed, or left by _exit"
    return RecordingBuilder(
        Process(), Coverage(mode="gperftools' heap checker", troubles=(NO_CHECK,), notes=(note,))
    ).build()


def _recording(check: _Check, about: _About, *, last: bool) -> Recording:
    build = RecordingBuilder(
        Process(pid=check.pid, exe=check.program),
        _coverage(check, about, cut=last and about.cut),
    )
    reaches = not about.everything
    for record in check.records:
        node = build.stack(record.stack, truncated=record.cut)
        site = build.site(node, "malloc", live_bytes=record.size, live_count=record.count)
        if reaches:
            build.reach(site, Reachability.DEFINITELY_LOST, record.count, record.size)
    size, count = _unlisted(check)
    if size > 0 or count > 0:
        site = build.site(0, "malloc", live_bytes=max(size, 0), live_count=max(count, 0))
        if reaches:
            build.reach(site, Reachability.DEFINITELY_LOST, max(count, 0), max(size, 0))
    if check.reachable is not None:
        size, count = check.reachable
        site = build.site(0, "malloc", live_bytes=size, live_count=count)
        build.reach(site, Reachability.REACHABLE, count, size)
    if reaches:
        build.reach_is_known()
    return build.build()


def _unlisted(check: _Check) -> tuple[int, int]:
    """What is counted beyond the records (bytes, blocks); negative: less than they."""
    size = check.total[0] - sum(record.size for record in check.records)
    return size, check.total[1] - sum(record.count for record in check.records)


def _coverage(check: _Check, about: _About, *, cut: bool) -> Coverage:
    notes, troubles = [], []
    if check.name != "_main_":
        notes.append(f"it is the check {check.name}, of a part of the run")
    if about.everything:
        troubles.append(NO_CHECK)
        notes.append(
            "it did not look at stacks (HEAPCHECK=draconian): all that was not freed is listed,"
            " whether or not it was in use"
        )
    if about.no_callers:
        notes.append("it did not know who mapped some memory, and says that its leaks may be false")
    size, count = _unlisted(check)
    if size > 0 or count > 0:
        notes.append(
            f"{size:,} bytes in {plural(max(count, 0), 'block')} are in its sum alone, without a place"
            " (HEAP_CHECK_MAX_LEAKS)"
        )
    elif size < 0 or count < 0:
        notes.append("it counts less than it lists")
    stacks = [record.stack for record in check.records if record.stack]
    if stacks and not any(one.name is not None for stack in stacks for one in stack):
        notes.append("its addresses have no names: with PPROF_PATH=/usr/bin/google-pprof they have")
    if cut:
        notes.append("the report is not whole: its last line has no end")
    if check.left_out:
        notes.append(f"not read: {plural(check.left_out, 'leak record')}")
    if check.total != (0, 0) and not about.everything:
        notes.append("what is still reachable is not in this report")
    return Coverage(mode="gperftools' heap checker", troubles=tuple(troubles), notes=tuple(notes))
