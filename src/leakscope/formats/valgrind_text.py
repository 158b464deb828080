# SPDX-License-Identifier: Apache-2.0
"""The text that valgrind writes, memcheck's leak check above all, as recordings.

Every line of valgrind has the process in it (`==PID== `, with a time where it was asked for), so
that processes in one log are kept apart, and the program's own output and printed suppressions
are passed over. One log file of several processes is overwritten by them: holes are NULs.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._frame_text import function_and_place
from leakscope.formats._text import LogLines, allocation_kind, frame, plain_number
from leakscope.model.builder import MOST_ERRORS, RecordingBuilder
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Coverage, Process, Recording
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.builder import BuiltFrame

__all__ = ["read", "recognises"]

_DELTA = r"(?:\([-+][\d,]{1,30}\) )?"  # since the check before
_TIME = r"(?:(\d{1,6}:\d\d:\d\d:\d\d\.\d{3}) )?"
_KNOWN = re.compile(
    rb"==\s?(?:[\d:.]{13,22} )?\d{1,10}== (?:\s{0,8}(?:Memcheck, a memory error|HEAP SUMMARY:|LEAK SUMMARY:"
    rb"|Using Valgrind-|malloc/free: in use at exit|ERROR SUMMARY: \d|definitely lost: \d)"
    rb"|[\d,]{1,30} (?:\([^)\n]{1,80}\) )?bytes in [\d,]{1,30} blocks (?:are|is) "
    # Errors alone are all that -q leaves.
    rb"|(?:Invalid (?:read|write) of size|Invalid free|Mismatched free|Conditional jump or move"
    rb"|Use of uninitialised value|Syscall param \S{1,80} |Process terminating with default action))"
)
_LINE = re.compile(rf"==\s?{_TIME}(\d{{1,10}})==(?: (.*))?$")
_RECORD = re.compile(
    rf"([\d,]{{1,30}}) {_DELTA}(?:\(([\d,]{{1,30}}) {_DELTA}direct, ([\d,]{{1,30}}) {_DELTA}indirect\) )?"
    rf"bytes in ([\d,]{{1,30}}) {_DELTA}blocks? (?:are|is) (definitely lost|indirectly lost|possibly lost|still reachable)"
    r" in loss record"
)
_SUM = re.compile(
    r"\s{0,12}(definitely lost|indirectly lost|possibly lost|still reachable|suppressed):"
    rf" ([\d,]{{1,30}}) {_DELTA}bytes in ([\d,]{{1,30}}) {_DELTA}blocks"
)
_FRAME = re.compile(r"\s{0,12}(?:at|by) 0x([0-9A-Fa-f]{1,16}): (.{1,16384})$")
_IN_USE = re.compile(r"in use at exit: ([\d,]{1,30}) bytes in ([\d,]{1,30}) blocks")
_USAGE = re.compile(r"(?:total heap usage|malloc/free): ([\d,]{1,30}) allocs, ([\d,]{1,30}) frees")
_VERSION = re.compile(r"Using Valgrind-(\S{1,40})")
_SIGNAL = re.compile(r"Process terminating with default action of signal \d{1,3} \((SIG\w{1,12})\)")
_ERRORS = re.compile(r"ERROR SUMMARY: ([\d,]{1,30}) errors")
_TOOL = re.compile(
    r"(Memcheck|Helgrind|(?i:drd)|Massif|Callgrind|Cachegrind|DHAT|Nulgrind|Lackey)(?:, (?:an?|the) )"
)
_OTHER = re.compile(
    r"(Invalid (?:read|write|free|alignment|size)|Mismatched (?:free|new|delete)|Conditional jump"
    r"|Use of uninitialised|Syscall param|Source and destination overlap|Jump to the invalid"
    r"|realloc\(\) with size 0|Argument '\w{1,40}' of function|Unsafe allocation with size of zero"
    r"|(?:Uninitialised|Unaddressable) byte\(s\) found|Illegal memory pool|Process terminating)"
)
_NOTHING_HELD = ("All heap blocks were freed", "no leaks are possible")
_KINDS = {
    "definitely lost": Reachability.DEFINITELY_LOST,
    "indirectly lost": Reachability.INDIRECTLY_LOST,
    "possibly lost": Reachability.POSSIBLY_LOST,
    "still reachable": Reachability.REACHABLE,
}
_LOST = {Reachability.DEFINITELY_LOST, Reachability.INDIRECTLY_LOST}
_MOST_PROCESSES = 10_000
_MOST_TEXT = 4096  # characters of a command


class _Frame(NamedTuple):
    address: int
    function: str | None = None
    file: str | None = None
    line: int | None = None
    module: str | None = None


@dataclass(slots=True)
class _Record:
    kind: Reachability
    size: int  # direct bytes
    owned: int  # bytes lost with them
    count: int
    stack: list[_Frame] = field(default_factory=list)
    cut: bool = False


@dataclass(slots=True)
class _Process:
    """What one process wrote."""

    pid: int
    tool: str | None = None
    version: str | None = None
    command: str | None = None
    ppid: int | None = None
    records: list[_Record] = field(default_factory=list)
    sums: dict[str, tuple[int, int]] = field(default_factory=dict)  # bytes, blocks
    in_use: tuple[int, int] | None = None
    allocs: int | None = None
    frees: int | None = None
    clean: bool = False  # every block was freed
    ended: str | None = None
    finished: bool = False
    replaced: bool = False
    left_out: int = 0
    last_ns: int | None = None
    others: Counter[str] = field(default_factory=Counter)
    record: _Record | None = None  # whose stack is being read
    errors: list[tuple[str, str, list[_Frame]]] = field(default_factory=list)
    error: list[_Frame] | None = None  # the stack of the newest one, while it is read

    @property
    def checked(self) -> bool:
        """Whether something says that valgrind looked for leaks, and how that came out."""
        return bool(self.sums) or self.clean or any(r.kind in _LOST for r in self.records)


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has text of valgrind."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return a recording of each process in the file. Raises `RecordingError`."""
    lines = LogLines(file)
    processes: list[_Process] = []
    current: dict[int, _Process] = {}
    for line in lines:
        if "==" not in line:
            continue
        found = _LINE.search(line)
        if found is None:
            continue
        pid, text = int(found[2]), found[3] or ""
        process = current.get(pid)
        if process is None or (process.tool is not None and _TOOL.match(text)):
            if not _is_valgrinds(text) or len(processes) >= _MOST_PROCESSES:
                continue
            if process is not None and not process.finished:
                process.replaced = True
            process = current[pid] = _Process(pid)
            processes.append(process)
        if found[1] is not None:
            process.last_ns = _nanoseconds(found[1])
        _take(process, text, cut=lines.cut)
    if not processes:
        raise RecordingError(f"{file.path} has a line of valgrind in it, and no report")
    return tuple(_recording(p, processes, lines) for p in processes)


def _is_valgrinds(text: str) -> bool:
    """Whether a line is one that a process can begin with; programs write `==1==` too."""
    return bool(
        _TOOL.match(text)
        or _SUM.match(text)
        or _RECORD.match(text)
        or _OTHER.match(text)
        or _IN_USE.search(text)
        or _ERRORS.match(text)
        or _VERSION.match(text)
        or text.startswith(("HEAP SUMMARY:", "LEAK SUMMARY:", "FILE DESCRIPTORS:", "Command: "))
    )


def _nanoseconds(text: str) -> int:
    days, hours, minutes, rest = text.split(":")
    seconds, ms = rest.split(".")
    return (
        (((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(ms)
    ) * 1_000_000


def _take(process: _Process, text: str, *, cut: bool) -> None:
    """Read one line of a process."""
    if (found := _FRAME.match(text)) is not None:
        record = process.record
        if process.error is not None and not cut and len(process.error) < MOST_FRAMES:
            process.error.append(_frame_of(int(found[1], 16), found[2]))
        if record is not None and not (cut and not text.endswith(")")):
            if len(record.stack) < MOST_FRAMES:
                record.stack.append(_frame_of(int(found[1], 16), found[2]))
            else:
                record.cut = True
        return
    process.record = process.error = None
    if (found := _RECORD.match(text)) is not None:
        _start(process, found)
    elif (found := _SUM.match(text)) is not None:
        size, count = plain_number(found[2]), plain_number(found[3])
        if size is not None and count is not None:
            process.sums[found[1]] = (size, count)
    elif text.startswith("HEAP SUMMARY:") or "malloc/free: in use at exit" in text:
        process.records.clear()  # those before were of checks that the program asked for
        process.sums.clear()
        process.in_use = _pair(text)
    elif text.startswith("LEAK SUMMARY:"):
        process.sums.clear()
    elif process.in_use is None and _IN_USE.search(text):
        process.in_use = _pair(text)
    else:
        _take_about(process, text)


def _start(process: _Process, found: re.Match[str]) -> None:
    total, direct, owned = (plain_number(found[n]) for n in (1, 2, 3))
    count = plain_number(found[4])
    size = total if direct is None else direct
    if size is None or count is None or len(process.records) >= MOST_RECORDS:
        process.left_out += 1
        return
    process.record = _Record(_KINDS[found[5]], size, owned or 0, count)
    process.records.append(process.record)


def _pair(text: str) -> tuple[int, int] | None:
    found = _IN_USE.search(text)
    size, count = (plain_number(found[n]) if found else None for n in (1, 2))
    return None if size is None or count is None else (size, count)


def _take_about(process: _Process, text: str) -> None:
    """Read a line that is about the process, and of no record."""
    if (found := _USAGE.search(text)) is not None:
        process.allocs, process.frees = plain_number(found[1]), plain_number(found[2])
    elif any(said in text for said in _NOTHING_HELD):
        process.clean = True
    elif (found := _SIGNAL.match(text)) is not None:
        process.ended = f"killed by {found[1]}"
    elif (found := _TOOL.match(text)) is not None:
        process.tool = found[1].lower()
    elif (found := _VERSION.match(text)) is not None:
        process.version = found[1]
    elif text.startswith("Command: "):
        process.command = text.removeprefix("Command: ").strip()[:_MOST_TEXT]
    elif text.startswith("Parent PID: "):
        process.ppid = plain_number(text.removeprefix("Parent PID: ").strip())
    elif _ERRORS.match(text) is not None:
        process.finished = True
    elif (found := _OTHER.match(text)) is not None:
        process.others[found[1]] += 1
        if found[1] != "Process terminating" and len(process.errors) < MOST_ERRORS:
            process.error = []
            process.errors.append((found[1].lower(), text.strip()[:_MOST_TEXT], process.error))


def _frame_of(address: int, text: str) -> _Frame:
    text = text.rstrip()
    if not text.endswith(")"):
        return _Frame(address, None if text == "???" else text)
    before, where = function_and_place(text)
    if where is None:
        return _Frame(address, text)
    function = None if before == "???" else before
    if where.startswith("in "):
        return _Frame(address, function, module=where[3:])
    file, colon, number = where.rpartition(":")
    line = plain_number(number)
    if colon and line is not None:
        return _Frame(address, function, file, line)
    return _Frame(address, text)  # brackets of the function's own


def _is_allocator(one: _Frame) -> bool:
    if one.module is not None and one.module.rsplit("/", 1)[-1].startswith("vgpreload_"):
        return True
    return one.file is not None and one.file.rsplit("/", 1)[-1] == "vg_replace_malloc.c"


def _built(one: _Frame) -> BuiltFrame | None:
    return frame(one.address, one.function, one.file, one.line, one.module, exact=True)


# ---- the recording


def _program(command: str | None) -> str | None:
    """Return the first word of a command; valgrind puts a backslash before blanks within words."""
    if not command:
        return None
    word = re.match(r"(?:\\.|[^\\ ])*", command)
    return (re.sub(r"\\(.)", r"\1", word[0]) if word else "") or command.split(" ", 1)[0]


def _recording(process: _Process, processes: list[_Process], lines: LogLines) -> Recording:
    ended = process.ended or ("exited" if process.finished else None)
    build = RecordingBuilder(
        Process(
            pid=process.pid,
            ppid=process.ppid,
            exe=_program(process.command),
            ended="replaced by exec" if process.replaced else ended,
        ),
        _coverage(process, processes, lines),
        duration_ns=process.last_ns if process.finished else None,
    )
    for record in process.records:
        own = list(itertools.takewhile(_is_allocator, record.stack))
        kind = allocation_kind((own[-1].function or "") if own else "")
        frames = [built for one in record.stack[len(own) :] if (built := _built(one)) is not None]
        node = build.stack(frames, truncated=record.cut)
        site = build.site(node, kind, live_bytes=record.size, live_count=record.count)
        build.reach(site, record.kind, record.count, record.size)
    for name, text, stack in process.errors:
        built_stack = [built for one in stack if (built := _built(one)) is not None]
        build.error(name, text, built_stack)
    for name, (size, count) in _unlisted(process).items():
        if size > 0 or count > 0:
            more = max(size, 0), max(count, 0)
            site = build.site(0, "malloc", live_bytes=more[0], live_count=more[1])
            build.reach(site, _KINDS[name], more[1], more[0])
    if process.checked:
        build.reach_is_known()
    return build.build()


def _unlisted(process: _Process) -> dict[str, tuple[int, int]]:
    """What the summary counts beyond the records, by kind."""
    found = {}
    for name, kind in _KINDS.items():
        if name in process.sums:
            size, count = process.sums[name]
            of_kind = [record for record in process.records if record.kind is kind]
            size -= sum(record.size for record in of_kind)
            count -= sum(record.count for record in of_kind)
            if (size, count) != (0, 0):
                found[name] = (size, count)
    return found


def _coverage(process: _Process, processes: list[_Process], lines: LogLines) -> Coverage:
    tool = process.tool or next((p.tool for p in processes if p.tool), None) or "memcheck"
    version = process.version or next((p.version for p in processes if p.version), None)
    troubles, notes = [], []
    if not process.checked:
        troubles.append(NO_CHECK)
        notes.append(_why_unchecked(process, tool))
    elif not process.clean and not (process.finished and process.sums):
        quiet = process.tool is None and process.in_use is None and not process.sums
        notes.append(
            "there are leak records alone (-q): what is still reachable, and whether these are all, is not told"
            if quiet
            else "the report is not whole: it has no end"
        )
    notes += _unlisted_notes(process)
    if lines.holes and len(processes) > 0:
        notes.append(
            "the log was overwritten by several processes, and what others wrote is lost: use"
            " --log-file=NAME.%p"
        )
    size, count = process.sums.get("suppressed", (0, 0))
    if count:
        notes.append(f"valgrind's own suppressions hid {size:,} bytes in {plural(count, 'block')}")
    if process.left_out:
        notes.append(f"not read: {plural(process.left_out, 'leak record')}")
    return Coverage(
        mode=f"valgrind {tool}" + (f" {version}" if version else ""),
        alloc_events=process.allocs,
        free_events=process.frees,
        troubles=tuple(troubles),
        notes=tuple(notes),
    )


def _unlisted_notes(process: _Process) -> list[str]:
    notes = []
    for name, (size, count) in _unlisted(process).items():
        if size < 0 or count < 0:
            notes.append(f"the summary counts less that is {name} than the records")
        else:
            notes.append(
                f"{name}: {size:,} bytes in {plural(count, 'block')} are in the summary alone,"
                " without a place: --leak-check=full --show-leak-kinds=all lists them"
            )
    return notes


def _why_unchecked(process: _Process, tool: str) -> str:
    if tool == "nulgrind":
        return "valgrind's tool none looks for nothing; memcheck looks for leaks"
    if tool != "memcheck":
        return f"valgrind's {tool} does not look for leaks; memcheck does"
    if process.in_use is not None and process.finished:
        size, count = process.in_use
        return (
            f"valgrind was not asked for leaks: {size:,} bytes in {plural(count, 'block')} were in use at"
            " exit; run it with --leak-check=full"
        )
    if process.replaced:
        return "the process went on as another program"
    if process.tool is None and process.errors:
        return "its errors alone are here (-q), and no leak check: run it with --leak-check=full"
    return "the program was killed, or the file cut, before the leak check ended"
