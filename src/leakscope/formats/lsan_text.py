# SPDX-License-Identifier: Apache-2.0
"""Reports of LeakSanitizer and of AddressSanitizer's leak check, as they stand in a log.

A report is a head with the process, records of direct and indirect leaks with a stack each,
and a summary. Only the head names a process, so the records behind it are taken for its own
and proved by the summary. Where several processes wrote at once and the sums do not tell whose a
record is, their reports are one. What is before a line (time stamps, file names) does not matter:
the parts are searched for in each line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._frame_text import function_and_file, function_and_place
from leakscope.formats._text import LogLines, allocation_kind, frame, plain_number
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import Address, Module
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Coverage, Process, Recording
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"(?:ERROR|SUMMARY): (?:Leak|Address|HWAddress)Sanitizer"
    rb"|(?:Direct|Indirect) leak of \d+ byte\(s\) in \d+ object"
    rb"|LeakSanitizer has encountered a fatal error"
)
_HEAD = re.compile(r"==(\d{1,10})==\s?ERROR: (\w{1,20}Sanitizer): ?(.{0,200})")
_PID = re.compile(r"==(\d{1,10})==")
_RECORD = re.compile(
    r"(Direct|Indirect) leak of (\d{1,20}) byte\(s\) in (\d{1,20}) object\(s\) allocated from:"
)
_SUMMARY = re.compile(
    r"SUMMARY: (\w{1,20}Sanitizer): (\d{1,20}) byte\(s\) leaked in (\d{1,20}) allocation\(s\)"
)
_FRAME = re.compile(r"#(\d{1,4}) 0x([0-9a-fA-F]{1,16})(?: |$)")
_BUILD_ID = re.compile(r" \(BuildId: ([0-9a-fA-F]{1,80})\)$")
_WHERE = re.compile(r":(\d{1,10})(?::\d{1,10})?$")
_OMITTED = re.compile(r"Omitting (\d{1,20}) more leak")
_SUPPRESSED = re.compile(r"[\s-](\d{1,20})\s{1,30}(\d{1,20})\s{1,8}\S")
_FATAL = ("LeakSanitizer has encountered a fatal error", "LeakSanitizer does not work under ptrace")
_RUNTIME = re.compile(r"lib(?:clang_rt\.)?(?:asan|lsan|hwasan|ubsan)\b")
_ALLOCATES = re.compile(
    r"_*(?:interceptor_)?(?:malloc|calloc|realloc|reallocarray|p?valloc|memalign|posix_memalign|aligned_alloc)$"
)
_MOST_NAMED = 8
_MOST_OPEN = 64  # reports that are written at once
_LOW = 1 << 28  # programs that are not position-independent are loaded below
_MOST_MODULES = 10_000
_OTHERS = ("SUMMARY: AddressSanitizer: ", "SUMMARY: HWAddressSanitizer: ")


@dataclass(slots=True)
class _Record:
    kind: Reachability
    size: int
    count: int
    stack: list[BuiltFrame] = field(default_factory=list)
    frames: int = 0  # of the stack, with those of the run-time
    allocator: str = ""
    done: bool = False
    cut: bool = False


@dataclass(slots=True)
class _Report:
    """What one process said."""

    pid: int | None = None
    tool: str = "LeakSanitizer"
    leaks: bool = False  # its head, or a record, speaks of leaks
    records: list[_Record] = field(default_factory=list)
    summary: tuple[int, int] | None = None  # bytes, blocks
    omitted: int | None = None
    suppressed: tuple[int, int] = (0, 0)  # blocks, bytes
    fatal: bool = False
    cut: bool = False
    left_out: int = 0
    wrong: list[tuple[str, str, _Record]] = field(default_factory=list)  # kind, text, stack
    mixed: list[int | None] = field(default_factory=list)  # processes whose reports these are
    sums: int = 0  # summaries of those
    exchanged: bool = False  # its stacks may be those of one another's records
    unsure: bool = False  # its records may be those of another report


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has such a report."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return a recording of each report in the file. Raises `RecordingError`."""
    lines = LogLines(file)
    reader = _Reader()
    for line in lines:
        reader.take(line, cut=lines.cut)
    if not reader.reports:
        raise RecordingError(f"{file.path} has the name of a sanitizer in it, and no report of one")
    reader.reports[-1].cut = lines.cut
    modules = [Module(path, build_id, 0, 0, 0) for path, build_id in reader.modules]
    return tuple(
        _recording(report, modules, stray=reader.stray) for report in _merged(reader.reports)
    )


def _merged(reports: list[_Report]) -> list[_Report]:
    """Put what a process said of other errors to its leaks."""
    kept: list[_Report] = []
    for report in reports:
        known = next((each for each in kept if each.pid == report.pid is not None), None)
        if known is not None and not (known.leaks and report.leaks):
            known.wrong += report.wrong
            if report.leaks:
                report.wrong = known.wrong
                kept[kept.index(known)] = report
            continue
        kept.append(report)
    return kept


class _Reader:
    """Takes the lines of a file and keeps the reports in it."""

    def __init__(self) -> None:
        self.reports: list[_Report] = []
        self.stray = 0  # summaries of no report
        self.modules: dict[tuple[str, str | None], int] = {}
        self._record: _Record | None = None
        self._waiting: list[_Record] = []  # whose stacks have not begun yet
        self._failed: set[int | None] = set()  # processes whose check did not work
        self._open: list[_Report] = []  # of leaks, without their summaries yet
        self._table: tuple[int, int] | None = None  # what suppressions hid, while it is listed
        self._hidden = (0, 0)  # what they hid before the next report

    def take(self, line: str, *, cut: bool) -> None:
        """Read one line."""
        if self._table is not None:
            self._in_table(line)
        if "#" in line and (found := _FRAME.search(line)) is not None:
            if found[1] == "0" and self._waiting:
                self._begin_stack()
            if self._record is not None and not cut:
                self._add(self._record, found, line)
        elif "leak" in line or "Sanitizer" in line:
            self._take_head(line)
        elif "Suppressions used:" in line:
            self._record, self._table = None, (0, 0)
        elif "here:" in line or "<empty stack>" in line:
            self._record = None
            self._waiting.clear()
        elif "==" in line or not line.strip():
            self._record = None

    def _begin_stack(self) -> None:
        """Give a stack that begins to the record that has waited for one longest."""
        if len(self._waiting) > 1:
            for report in self._open:
                report.exchanged = True
        self._record = self._waiting.pop(0)

    def _add(self, record: _Record, found: re.Match[str], line: str) -> None:
        if record.done or int(found[1]) != record.frames:
            # A stack of something else; where another process wrote, what follows may be its own.
            record.cut = record.cut or len(self._open) > 1
            record.done = True
            return
        record.frames += 1
        if record.frames > MOST_FRAMES:
            record.cut = True
            return
        pc, parts = int(found[2], 16), _parts(line[found.end() :].strip())
        if not record.stack and _is_runtime(parts):
            record.allocator = parts.function or record.allocator
            return
        at = Address(self._module(parts), _offset(pc, parts.offset), exact=True)
        where = pc if at.module is None else at
        built = frame(where, parts.function, parts.file, parts.line, parts.module, exact=True)
        if built is not None:
            record.stack.append(built)

    def _module(self, parts: _Parts) -> int | None:
        if parts.module is None or parts.offset is None:
            return None
        key = (parts.module, parts.build_id)
        if key not in self.modules and len(self.modules) >= _MOST_MODULES:
            return None
        return self.modules.setdefault(key, len(self.modules))

    def _take_head(self, line: str) -> None:
        if (found := _RECORD.search(line)) is not None:
            self._start_record(found)
        elif (found := _HEAD.search(line)) is not None:
            self._record = None
            report = _Report(plain_number(found[1]), found[2], suppressed=self._hidden)
            self._hidden = (0, 0)
            report.leaks = "detected memory leaks" in found[3]
            if not report.leaks:
                kind = found[3].split(" ", 1)[0] or "error"
                self._record = _Record(Reachability.REACHABLE, 0, 0)
                report.wrong.append((kind, found[3].strip() or "error", self._record))
            self._begin(report)
        elif (found := _SUMMARY.search(line)) is not None:
            self._end(int(found[2]), int(found[3]), found[1])
        elif (found := _OMITTED.search(line)) is not None and self.reports:
            self.reports[-1].omitted = plain_number(found[1])
        elif any(text in line for text in _FATAL):
            pid = plain_number(found[1]) if (found := _PID.search(line)) is not None else None
            if pid not in self._failed:
                self._failed.add(pid)
                self.reports.append(_Report(pid, fatal=True))
        elif not self.reports and any(text in line for text in _OTHERS):
            report = _Report(tool="AddressSanitizer")
            text = line.partition("SUMMARY: ")[2].partition(": ")[2].strip()
            nowhere = _Record(Reachability.REACHABLE, 0, 0)
            report.wrong.append((text.split(" ", 1)[0] or "error", text or "error", nowhere))
            self.reports.append(report)

    def _start_record(self, found: re.Match[str]) -> None:
        size, count = plain_number(found[2]), plain_number(found[3])
        if not self._open:
            # Its head is not in the file, or was of another error.
            if self.reports and not self.reports[-1].leaks:
                self._open.append(self.reports[-1])
            else:
                self._begin(_Report(leaks=True))
        report = self._open[-1]
        report.leaks = True
        self._record = None
        if size is None or count is None or len(report.records) >= MOST_RECORDS:
            report.left_out += 1
            return
        direct = found[1] == "Direct"
        kind = Reachability.DEFINITELY_LOST if direct else Reachability.INDIRECTLY_LOST
        self._record = _Record(kind, size, count)
        report.records.append(self._record)
        # Of one process a record without a stack is followed by the next one's; only where
        # several write, another's line may come between a record and its stack.
        kept = self._waiting[1 - _MOST_OPEN :] if len(self._open) > 1 else []
        self._waiting = [*kept, self._record]

    def _begin(self, report: _Report) -> None:
        self.reports.append(report)
        if report.leaks:
            self._open = [*self._open[1 - _MOST_OPEN :], report]

    def _end(self, size: int, count: int, tool: str) -> None:
        self._record = None
        if not self._open:
            if self.reports and self.reports[-1].leaks:
                self.stray += 1
                return
            if not self.reports:
                self._begin(_Report(leaks=True))
            else:
                self._open.append(self.reports[-1])
        report = self._ended(size, count)
        report.tool, report.leaks = tool, True
        if plain_number(str(size)) is not None and plain_number(str(count)) is not None:
            before = report.summary or (0, 0)
            report.summary = before[0] + size, before[1] + count
            report.sums += 1
        if report.sums >= len(report.mixed):
            self._open.remove(report)

    def _ended(self, size: int, count: int) -> _Report:
        """Return the open report whose summary says so many bytes and blocks.

        Where the records of none add up to it, those that are open lie in one another.
        """
        whole = [one for one in self._open if not one.mixed]
        fits = [one for one in reversed(whole) if _listed(one) == (size, count)]
        if fits:
            for one in fits if len(fits) > 1 else ():
                one.unsure = True
            return fits[0]
        last = self._open[-1]
        # What max_leaks left out, or a file of one process: the newest, however it adds up.
        if len(self._open) == 1 or last.omitted is not None or last.left_out:
            return last
        return self._mix()

    def _mix(self) -> _Report:
        """Put the open reports together."""
        mixed = self._open[0]
        mixed.mixed = mixed.mixed or [mixed.pid]
        for other in self._open[1:]:
            mixed.mixed += other.mixed or [other.pid]
            mixed.records += other.records
            mixed.wrong += other.wrong
            if other.summary is not None:
                before = mixed.summary or (0, 0)
                mixed.summary = before[0] + other.summary[0], before[1] + other.summary[1]
            mixed.sums += other.sums
            mixed.left_out += other.left_out
            mixed.exchanged = mixed.exchanged or other.exchanged
            hidden = other.suppressed
            mixed.suppressed = mixed.suppressed[0] + hidden[0], mixed.suppressed[1] + hidden[1]
            self.reports.remove(other)
        mixed.pid = None
        self._open = [mixed]
        return mixed

    def _in_table(self, line: str) -> None:
        assert self._table is not None
        if "template" in line or "Suppressions used" in line:
            return
        found = _SUPPRESSED.search(" " + line)
        blocks = plain_number(found[1]) if found is not None else None
        size = plain_number(found[2]) if found is not None else None
        if blocks is not None and size is not None:
            self._table = (self._table[0] + blocks, self._table[1] + size)
            return
        # The table stands before the report in old versions, and within it in new ones.
        if self.reports and self.reports[-1].leaks and self.reports[-1].summary is None:
            self.reports[-1].suppressed = self._table
        else:
            self._hidden = self._table
        self._table = None


class _Parts(NamedTuple):
    """What stands behind a frame's address; `offset` is in the module."""

    function: str | None = None
    file: str | None = None
    line: int | None = None
    module: str | None = None
    offset: int | None = None
    build_id: str | None = None


def _parts(text: str) -> _Parts:
    found = _BUILD_ID.search(text[-120:])
    build_id = None if found is None else found[1].lower()
    text = text if found is None else text[: len(text) - len(found[0])]
    named = text.startswith("in ")
    text = text[3:] if named else text
    if text.endswith(")"):
        function, place = function_and_place(text)
        function, inner = (function.strip() if named else "", place or "")
        module, plus, offset = inner.rpartition("+0x")
        inside = plain_number(offset, 16)
        if plus and module and inside is not None:
            return _Parts(function or None, None, None, module, inside, build_id)
        if inner == "<unknown module>":
            return _Parts(function or None)
    if not named:
        return _Parts()
    where = _WHERE.search(text[-24:])
    if where is None:
        return _Parts(text)
    text, line = text[: len(text) - len(where[0])], plain_number(where[1])
    function, file = function_and_file(text)
    return _Parts(function or None, file, line)


def _offset(pc: int, offset: int | None) -> int:
    """Return the ELF virtual address: for what is loaded low it is the address itself."""
    return pc if offset is None or 0 < pc - offset < _LOW else offset


def _is_runtime(parts: _Parts) -> bool:
    function, file, module = parts.function, parts.file, parts.module
    if file is not None and ("libsanitizer/" in file or "compiler-rt/lib/" in file):
        return True
    if module is not None and _RUNTIME.match(module.rsplit("/", 1)[-1]):
        return True
    if function is None:
        return False
    return "__interceptor_" in function or (
        file is None and (function.startswith("operator new") or bool(_ALLOCATES.match(function)))
    )


def _recording(report: _Report, modules: list[Module], *, stray: int) -> Recording:
    known = report.summary is not None or bool(report.records)
    build = RecordingBuilder(
        Process(pid=report.pid, ended="exited" if report.summary is not None else None),
        _coverage(report, stray=stray, known=known),
    )
    for module in modules:
        build.module(module)
    for record in report.records:
        node = build.stack(record.stack, truncated=record.cut)
        kind = allocation_kind(record.allocator)
        site = build.site(node, kind, live_bytes=record.size, live_count=record.count)
        build.reach(site, record.kind, record.count, record.size)
    size, count = _unlisted(report)
    if size > 0 or count > 0:
        site = build.site(0, "malloc", live_bytes=max(size, 0), live_count=max(count, 0))
        # They are listed in this order; what is left out behind an indirect leak is one.
        last = report.records[-1].kind if report.records else Reachability.DEFINITELY_LOST
        build.reach(site, last, max(count, 0), max(size, 0))
    for name, text, record in report.wrong:
        build.error(name, text, record.stack)
    if known:
        build.reach_is_known()
    return build.build()


def _listed(report: _Report) -> tuple[int, int]:
    records = report.records
    return sum(each.size for each in records), sum(each.count for each in records)


def _unlisted(report: _Report) -> tuple[int, int]:
    """What the summary counts beyond the records (bytes, blocks); negative: less than they."""
    if report.summary is None or report.sums < len(report.mixed):
        return 0, 0
    size, count = _listed(report)
    return report.summary[0] - size, report.summary[1] - count


def _coverage(report: _Report, *, stray: int, known: bool) -> Coverage:
    troubles, notes = [], []
    if not known:
        troubles.append(NO_CHECK)
        notes.append(_why_unknown(report))
    elif report.summary is None or report.sums < len(report.mixed):
        notes.append("the report is not whole: it has no summary")
    if report.mixed:
        who = ", ".join(str(pid) for pid in report.mixed[:_MOST_NAMED] if pid is not None)
        more = ", …" if len(report.mixed) > _MOST_NAMED else ""
        notes.append(
            f"{len(report.mixed)} processes wrote at once ({who}{more}): the sums are right, and which"
            " leak is of which is not known; log_path=FILE keeps them apart"
        )
    size, count = _unlisted(report)
    if size > 0 or count > 0:
        why = (
            ""
            if report.omitted is None
            else f" (max_leaks left out {plural(report.omitted, 'record')})"
        )
        notes.append(
            f"{size:,} bytes in {plural(max(count, 0), 'block')} are in the summary alone, without a place{why}"
        )
    elif size < 0 or count < 0:
        told = report.summary or (0, 0)
        notes.append(
            f"the summary counts {told[0]:,} bytes in {told[1]:,} blocks, less than the records:"
            " reports of several processes may lie in one another"
        )
    if report.exchanged:
        notes.append("lines of several processes lie in one another: stacks may be exchanged")
    if stray or report.unsure:
        notes.append("reports lie in one another: which process a leak is of is not sure")
    if report.suppressed[0]:
        blocks, hidden = report.suppressed
        notes.append(f"its own suppressions hid {hidden:,} bytes in {plural(blocks, 'block')}")
    if report.left_out:
        notes.append(f"not read: {plural(report.left_out, 'leak record')}")
    if known:
        notes.append("what is still reachable is not in this report")
    return Coverage(mode=report.tool, troubles=tuple(troubles), notes=tuple(notes))


def _why_unknown(report: _Report) -> str:
    if report.fatal:
        return "LeakSanitizer could not look for leaks: it does not work under a debugger"
    if report.leaks:
        return "leaks were found, and the file is cut before the first of them"
    return "the program ended by another error, before it was looked for leaks"
