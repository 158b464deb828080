# SPDX-License-Identifier: Apache-2.0
"""What Dr. Memory writes into results.txt, or to the terminal (`~~Dr.M~~ ` before each line).

    Error #1: LEAK 150 direct bytes 0x005a2540-0x005a25d6 + 0 indirect bytes
    # 0 replace_malloc         [/drmemory_package/common/alloc_replace.c:2576]
    # 1 ntdll.dll!Etw          +0xef     (0x776aa0b0 <ntdll.dll+0x2a0b0>)

An error is listed once; `DUPLICATE ERROR COUNTS` tells how often it came, and the sums in the final
summary count all of them. Leaks that Dr. Memory ignored are sums alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._text import LogLines, allocation_kind, frame, plain_number, without_prefix
from leakscope.model.builder import RecordingBuilder
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Coverage, Process, Recording
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.builder import BuiltFrame

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"Dr\. Memory (?:version \d|results for pid \d)|~~Dr\.M~~ |Error #\d{1,9}: (?:POSSIBLE |REACHABLE )?LEAK \d"
)
_MARK = re.compile(r"~~(?:Dr\.M|\d{1,10})~~ ?")
_VERSION = re.compile(r"Dr\. Memory version (\S{1,40})")
_RESULTS = re.compile(r'Dr\. Memory results for pid (\d{1,10}): "(.{0,4096}?)"')
_ERROR = re.compile(r"E(?:rror|RROR) #\s{0,8}(\d{1,9}): (.{1,400})")
_LEAK = re.compile(
    r"(POSSIBLE |REACHABLE )?LEAK ([\d,]{1,20}) (?:direct )?bytes? (?:0x[0-9a-f]{1,16}-0x[0-9a-f]{1,16})?"
    r"(?: ?\+ ([\d,]{1,20}) indirect bytes?)?"
)
_FRAME = re.compile(r"#\s{0,4}(\d{1,4})\s(\S.{0,4096}?)\s*$")
_PLACE = re.compile(r"(.{1,2000}?)\s+\[(.{1,2000}):(\d{1,9})\]$")
_OFFSET = re.compile(
    r"(.{0,2000}?)\s*(?:\+0x[0-9a-f]{1,16})?\s+\(?(?:0x([0-9a-f]{1,16}) )?<(.{1,400})\+0x([0-9a-f]{1,16})>\)?$"
)
_DUPLICATE = re.compile(r"\s*Error #\s{0,8}(\d{1,9}):\s{1,12}([\d,]{1,20})\s*$")
_SUM = re.compile(
    r"\s*([\d,]{1,20}) unique,\s{1,20}([\d,]{1,20}) total,?\s{1,20}(?:([\d,]{1,20}) byte\(s\) of )?(.{1,60}?)\s*$"
)
_POTENTIAL = re.compile(r"\s*([\d,]{1,20}) potential (?:error|leak)\(s\) \(suspected")
_KINDS = {
    None: Reachability.DEFINITELY_LOST,
    "POSSIBLE ": Reachability.POSSIBLY_LOST,
    "REACHABLE ": Reachability.REACHABLE,
}
_SUMS = {
    "leak(s)": Reachability.DEFINITELY_LOST,
    "possible leak(s)": Reachability.POSSIBLY_LOST,
    "still-reachable allocation(s)": Reachability.REACHABLE,
}
_NAMES = (
    "UNADDRESSABLE ACCESS", "UNINITIALIZED READ", "INVALID HEAP ARGUMENT", "GDI USAGE ERROR",
    "HANDLE LEAK", "WARNING",
)  # fmt: skip
_MOST_RUNS = 1000


@dataclass(slots=True)
class _Error:
    number: int
    text: str
    kind: Reachability | None  # of a leak
    size: int = 0
    owned: int = 0
    frames: list[BuiltFrame] = field(default_factory=list)
    allocator: str = ""
    read: int = 0  # frames, with those of the allocator
    done: bool = False
    times: int = 1


@dataclass(slots=True)
class _Run:
    version: str | None = None
    pid: int | None = None
    exe: str | None = None
    errors: list[_Error] = field(default_factory=list)
    sums: dict[Reachability, tuple[int, int]] = field(default_factory=dict)  # bytes, blocks
    ended: bool = False
    cut: bool = False
    left_out: int = 0
    potential: int = 0


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` was written by Dr. Memory."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return a recording of each run in the file. Raises `RecordingError`."""
    lines = LogLines(file)
    runs: list[_Run] = []
    for raw in lines:
        line = _MARK.sub("", without_prefix(raw), count=1)
        version = _VERSION.search(line)
        if version is not None or not runs:
            if len(runs) >= _MOST_RUNS:
                raise RecordingError(f"{file.path} has more than {_MOST_RUNS:,} runs in it")
            runs.append(_Run())
        if version is not None:
            runs[-1].version = version[1]
        elif not (lines.cut and line.lstrip().startswith("#")):
            _take(runs[-1], line)
    if not any(run.version or run.errors or run.ended for run in runs):
        raise RecordingError(f"{file.path} has a line of Dr. Memory in it, and no report")
    runs[-1].cut = lines.cut or file.cut is not None
    known = [run for run in runs if run.version or run.errors or run.ended]
    return tuple(_recording(run, several=len(known) > 1) for run in known)


def _take(run: _Run, line: str) -> None:
    current = run.errors[-1] if run.errors else None
    if (duplicate := _DUPLICATE.match(line)) is not None:
        times, number = plain_number(duplicate[2]), int(duplicate[1])
        for error in run.errors:
            if error.number == number and times is not None:
                error.times = max(times, 1)
    elif (found := _ERROR.search(line)) is not None:
        if len(run.errors) >= MOST_RECORDS:
            run.left_out += 1
            return
        run.errors.append(_started(int(found[1]), found[2].strip()))
    elif (found := _FRAME.match(line.strip())) is not None and current is not None:
        if not current.done and int(found[1]) == current.read:
            current.read += 1
            _add(current, found[2])
        else:
            current.done = True
    elif (found := _RESULTS.search(line)) is not None:
        run.pid, run.exe = plain_number(found[1]), found[2]
    elif (found := _POTENTIAL.match(line)) is not None:
        run.potential = plain_number(found[1]) or 0
    elif "FINAL SUMMARY" in line or "ERRORS FOUND:" in line:
        run.ended = True
    elif (found := _SUM.match(line)) is not None:
        kind, size, count = _SUMS.get(found[4]), plain_number(found[3]), plain_number(found[2])
        if kind is not None and size is not None and count is not None:
            run.sums[kind] = (size, count)
    elif current is not None and current.frames and (not line.strip() or line.startswith("Note:")):
        current.done = True  # stacks in notes are of something else


def _started(number: int, text: str) -> _Error:
    leak = _LEAK.match(text)
    if leak is None:
        return _Error(number, text, None)
    size, owned = plain_number(leak[2]), plain_number(leak[3])
    return _Error(number, text, _KINDS[leak[1]], size or 0, owned or 0)


def _add(error: _Error, text: str) -> None:
    if len(error.frames) >= MOST_FRAMES:
        return
    address = line = None
    file = module = None
    function: str | None = text.strip()
    if (place := _PLACE.match(text)) is not None:
        function, file, line = place[1], place[2], plain_number(place[3])
    elif (offset := _OFFSET.match(text)) is not None:
        function, module = offset[1] or None, offset[3]
        address = plain_number(offset[2] or offset[4], 16)
    if function is not None and "!" in function:
        before, _, function = function.partition("!")
        module = module or before
    if error.kind is not None and not error.frames and _is_allocator(function or "", file):
        error.allocator = (function or "").removeprefix("replace_")
        return
    built = frame(address, function, file, line, module, exact=True)
    if built is not None:
        error.frames.append(built)


def _is_allocator(function: str, file: str | None) -> bool:
    return function.startswith(("replace_", "operator new")) or (
        file is not None and file.rsplit("/", 1)[-1].startswith("alloc_replace")
    )


def _recording(run: _Run, *, several: bool) -> Recording:
    build = RecordingBuilder(
        Process(pid=run.pid, exe=run.exe, ended="exited" if run.ended else None)
    )
    listed = {kind: [0, 0] for kind in _SUMS.values()}
    for error in run.errors:
        if error.kind is None:
            build.error(_name(error.text), error.text, error.frames, error.times)
            continue
        site = build.site(
            build.stack(error.frames),
            allocation_kind(error.allocator),
            live_bytes=error.size * error.times,
            live_count=error.times,
        )
        build.reach(site, error.kind, error.times, error.size * error.times)
        listed[error.kind][0] += (error.size + error.owned) * error.times
        listed[error.kind][1] += error.times
        if error.owned:  # how many blocks is not told
            own = build.site(0, live_bytes=error.owned * error.times, live_count=0)
            build.reach(own, Reachability.INDIRECTLY_LOST, 0, error.owned * error.times)
    notes = []
    for kind, (size, count) in run.sums.items():
        rest = max(size - listed[kind][0], 0), max(count - listed[kind][1], 0)
        if rest != (0, 0):
            site = build.site(0, live_bytes=rest[0], live_count=rest[1])
            build.reach(site, kind, rest[1], rest[0])
            what = next(name for name, each in _SUMS.items() if each is kind)
            notes.append(
                f"{rest[0]:,} bytes in {rest[1]:,} {what} are in its sums alone, without a place"
            )
    checked = bool(run.sums) or any(error.kind is not None for error in run.errors)
    if checked:
        build.reach_is_known()
    if not checked:
        notes.append("it has no sum of leaks: it was cut, or Dr. Memory did not count leaks")
    elif not run.ended:
        notes.append("the report is not whole: it has no final summary")
    if run.potential:
        notes.append(
            f"{plural(run.potential, 'potential error')}, suspected to be none, stand in another file"
        )
    if several:
        notes.append("one of several runs in this file")
    if run.cut:
        notes.append("the file is cut within its last line")
    if run.left_out:
        notes.append(f"not read: {plural(run.left_out, 'error')}")
    build.coverage = Coverage(
        mode="Dr. Memory" + (f" {run.version}" if run.version else ""),
        troubles=() if checked else (NO_CHECK,),
        notes=tuple(notes),
    )
    return build.build()


def _name(text: str) -> str:
    return next((name.lower() for name in _NAMES if text.startswith(name)), "other errors")
