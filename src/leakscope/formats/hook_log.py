# SPDX-License-Identifier: Apache-2.0
"""Logs that home-made hooks and macros write, and the files that they leave for each block.

    [+0x401234]malloc --> addr: 0x5581, size: 32        [-0x401290]free --> addr: 0x5581
    [+main.c:51]malloc: 0x5581 32                       [-main.c:60]free 0x5581
    malloc(32) = 0x5581                                 free(0x5581)

`+` or the name of the function tells an allocation, `-` a free; the caller's address or file and
line stand in the bracket. Of hooks that write a file for each block (`0x5581.mem`) and remove it when
the block is freed, the files that are left are what was not freed.
"""

from __future__ import annotations

import os
import re

from leakscope.errors import RecordingError
from leakscope.formats._bounds import NO_CHECK
from leakscope.formats._file import ForeignFile
from leakscope.formats._replay import EventReplay
from leakscope.formats._tables import MOST_BYTES
from leakscope.formats._text import LogLines, allocation_kind, frame, without_prefix
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Coverage, Recording
from leakscope.words import plural

__all__ = ["is_folder", "read", "read_folder", "recognises", "recognises_loosely"]

_FUNCTION = r"(?:_{0,2}(?:my|hook|dbg|debug|trace|xx?|wrap)?_{0,2})?(malloc|calloc|realloc|memalign|posix_memalign|aligned_alloc|strdup|new(?:\[\])?|free|delete(?:\[\])?)_?(?:hook)?"
_HEX = r"(?:0x)?[0-9a-fA-F]{4,16}"
_BRACKET = re.compile(
    rf"\[\s?([+-])((?:[^\[\]\n]{{0,600}}\[[^\[\]\n]{{0,40}}\])?[^\[\]\n]{{0,600}})\]\s*(?:{_FUNCTION}(?![A-Za-z]))?(.*)"
)
_WHERE = re.compile(
    r"([^\s:,;()\[\]]{1,200}\.\w{1,8}|[^\s:,;()\[\]]{1,200})\s?:\s?(?:[A-Za-z_]\w{0,200}\s?:\s?)?(\d{1,9})(?!\d)"
)
_FILE_LINE = re.compile(
    r"file\s?[:=]\s?([^\s,;()\[\]]{1,1000})[,; ]\s?(?:line|l)\s?[:=]?\s?(\d{1,9})"
)
_CALLER = re.compile(r"0x([0-9a-fA-F]{1,16})")
_LOOSE = re.compile(rf"(?i)(?<![\w.]){_FUNCTION}(?![\w])(.{{0,2000}})")
_LOOSE_LINE = re.compile(
    rb"(?i)(?<![\w.])(?:malloc|calloc|realloc|new|free|delete)(?![\w])[^\n]{0,120}0x[0-9a-fA-F]{4,16}|0x[0-9a-fA-F]{4,16}[^\n]{0,120}\bfree"
)
_PLAIN = re.compile(
    rf"(?:\[?(?:([^\[\]\s:]{{1,400}}):(\d{{1,9}})\]?:?\s+))?{_FUNCTION}\s?\(([^()]{{0,80}})\)\s?(?:=|-->|->|returns?|:)?\s*((?:0x)[0-9a-fA-F]{{1,16}}|\(nil\))?.*"
)
_ADDRESS = re.compile(
    r"(?:addr(?:ess)?|ptr|pointer|p|at|mem(?:ory)?)\s?[:=]?\s?(\(nil\)|(?:0x)?[0-9a-fA-F]{1,16})\b|(0x[0-9a-fA-F]{1,16}|\(nil\))"
)
_DIGITS = r"0x[0-9a-fA-F]{1,12}\b|\d{1,3}(?:[.,'\u2019\u202f]\d{3})+(?![\d.,])|\d{1,15}\b(?![.,]\d)"
_SIZE = re.compile(
    rf"(?:size|bytes?|len(?:gth)?|sz|nbytes)\s?[:=(]?\s?({_DIGITS})|\b(\d{{1,15}})\s?(?:bytes?|B)\b"
)
_NEXT = re.compile(r"[\s,;:|]{1,8}(\d{1,15})(?![\w.])")  # right behind an address
_COMMA_PLACE = re.compile(r"([\w./+-]{1,200}\.(?:cc?|cpp|cxx|hh?|hpp|mm?))[,;|]\s?(\d{1,9})(?!\d)")
_NEW = re.compile(r"\bnew\w{0,10}\s?[:=]?\s?0x([0-9a-fA-F]{1,16})")
_NUMBER = re.compile(r"(?<![\w.])(\d{1,15})(?![\w.])")
_KNOWN = re.compile(
    rb"(?:^|\n)[^\n]{0,80}?\[\s?[+-]\s?(?:0x[0-9a-fA-F]{1,16}|[^\[\]\n]{1,400}: ?\d{1,9}(?:, ?\w{1,80})?|[^\n]{1,400}\[0x[0-9a-f]{1,16}\]|)\s?\]\s?(?:[\w ]{0,20}(?:alloc|free|new|delete|strdup)|\s{0,4}--?> ?(?:addr|ptr)|\s{0,4}(?:addr|ptr|p ?= ?0x|0x[0-9a-fA-F]{4,16}\b))"
    rb"|(?:^|\n)[^\n]{0,60}\bmalloc\(\d{1,15}\) ?(?:=|-->|->|returns?) ?0x[0-9a-fA-F]{4,16}[^\n]{0,80}\r?\n"
)
_FILE_NAME = re.compile(
    r"(?:mem[._-]?)?(0x[0-9a-fA-F]{4,16}|[0-9a-fA-F]{8,16})(?:\.(?:mem|txt|log|leak))?"
)
_MOST_FILES = 1 << 20
_FREES = ("free", "delete", "delete[]")
_Place = tuple[str, int, str]  # kind; address; "file:line"


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is a log of such a hook."""
    return _KNOWN.search(head) is not None


def recognises_loosely(head: bytes) -> bool:
    """Whether most lines of a text tell of allocations and frees in no form that is known.

    Asked where it is of no other format.
    """
    lines = [line for line in head.split(b"\n")[:400] if line.strip()]
    told = sum(_LOOSE_LINE.search(line[:400]) is not None for line in lines)
    return told >= 2 and told * 2 >= len(lines)


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of a log. Raises `RecordingError`."""
    log = _Log()
    cut = log.read(file)
    if not log.events:
        raise RecordingError(
            f"{file.path} looks like a log of a malloc hook, and has no whole line"
        )
    return (log.recording(file.cut or cut, 0),)


def is_folder(path: str) -> bool:
    """Whether a folder has files that such a hook leaves, one for each block."""
    found = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if _FILE_NAME.fullmatch(entry.name) is None:
                    continue
                with ForeignFile.open(entry.path) or _nothing() as file:
                    if file.size > 4096 or not recognises(b"\n" + file.head(4096)):
                        return False
                found += 1
                if found >= 3:
                    return True
    except (OSError, RecordingError):
        return False
    return found > 0


def read_folder(path: str) -> tuple[Recording, ...]:
    """Return the recording of the files that are left in a folder. Raises `RecordingError`."""
    log, files = _Log(), 0
    try:
        with os.scandir(path) as entries:
            paths = sorted((entry.name, entry.path) for entry in entries)
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    for name, full in paths:
        if _FILE_NAME.fullmatch(name) is None or files >= _MOST_FILES:
            continue
        opened = ForeignFile.open(full)
        if opened is None:
            continue
        with opened as file:
            if file.size <= 1 << 16:
                log.read(file, name=name)
                files += 1
    if not log.events:
        raise RecordingError(f"{path} has files of a malloc hook, and none can be read")
    return (log.recording(None, files),)


def _nothing() -> ForeignFile:
    raise RecordingError("it is no regular file")


class _Log:
    """What is read line by line."""

    def __init__(self) -> None:
        self.replay: EventReplay[_Place] = EventReplay()
        self.events = self.strange = self.missed = 0

    def read(self, file: ForeignFile, *, name: str | None = None) -> str | None:
        """Read a log; `name` is that of a file for one block. Returns how it is cut."""
        lines = LogLines(file, MOST_BYTES)
        for line in lines:
            if lines.cut and name is None:
                return "its last line has no end, and was not read"
            known = self._take(without_prefix(line), name)
            self.events += known
            self.strange += not known and bool(line.strip())
        return None

    def _take(self, line: str, name: str | None) -> bool:
        found = _BRACKET.search(line)
        if found is None:
            return self._take_plain(line) or self._take_loose(line)
        sign, inner, function, rest = found[1], found[2], found[3], found[4] or ""
        freed = sign == "-" or function in _FREES
        at, size = _address(rest), _size(rest)
        if at is None and name is not None:
            at = _address(f"addr: {name.partition('.')[0]}")
        if at is None or (not freed and size is None):
            self.missed += function is not None
            return False
        if freed:
            self.replay.free(at)
            return True
        if function == "realloc" and (new := _NEW.search(rest)) is not None:
            self.replay.free(at)
            at = int(new[1], 16)
        callers = _CALLER.findall(inner)
        where = _WHERE.search(inner)
        if where is not None:
            place = f"{where[1]}:{where[2]}"
        else:
            place = "" if callers and inner.strip().startswith("0x") else inner.strip()
        caller = int(callers[-1], 16) if callers else 0
        self.replay.allocate(at, size or 0, (function or "malloc", caller, place))
        return True

    def _take_plain(self, line: str) -> bool:
        found = _PLAIN.search(line)
        if found is None:
            return False
        function, arguments = found[3], found[4]
        if function in _FREES:
            at = _address(f"ptr {arguments.strip()}")
            if at is not None:
                self.replay.free(at)
            return at is not None
        at = None if found[5] is None else _address(found[5])
        numbers = [int(each) for each in _NUMBER.findall(arguments)]
        if at is None or not numbers:
            return False
        size = numbers[0] * numbers[1] if function == "calloc" and len(numbers) > 1 else numbers[-1]
        if function == "realloc":
            old = _address(f"ptr {arguments.partition(',')[0].strip()}")
            if old is not None and at:
                self.replay.free(old)
        place = f"{found[1]}:{found[2]}" if found[1] else ""
        self.replay.allocate(at, size, (function, 0, place))
        return True

    def _take_loose(self, line: str) -> bool:
        """Take a line that names a function, an address and, for an allocation, a size."""
        found = _LOOSE.search(line)
        if found is None:
            return False
        function, rest = found[1].lower(), found[2]
        hexadecimal = _CALLER.search(rest)
        if hexadecimal is None:
            return False
        at = int(hexadecimal[1], 16)
        if function in _FREES:
            self.replay.free(at)
            return True
        named = _FILE_LINE.search(line)
        where = (
            named
            or _WHERE.search(rest[hexadecimal.end() :])
            or _WHERE.search(line[: found.start()])
            or _COMMA_PLACE.search(rest[hexadecimal.end() :])
            or _WHERE.search(rest[: hexadecimal.start()])
        )
        without = rest[hexadecimal.end() :]
        if named is not None or where is not None:
            without = without.replace(where[0], " ") if where is not None else without
        size = _size(without)
        if size is None:
            before = rest[: hexadecimal.start()]
            size = _size(before.replace(where[0], " ") if where is not None else before)
        if size is None:
            self.missed += 1
            return False
        place = f"{where[1]}:{where[2]}" if where is not None else ""
        self.replay.allocate(at, size, (function, 0, place))
        return True

    def recording(self, cut: str | None, files: int) -> Recording:
        """Make the recording."""
        replay, build = self.replay, RecordingBuilder()

        def site(place: _Place) -> tuple[int, str]:
            kind, caller, text = place
            file, _, line = text.rpartition(":")
            if file and line.isdecimal():
                built = frame(caller or None, file=file, line=int(line))
            else:
                built = frame(caller or None, text or None)
            return build.stack([built] if built is not None else []), allocation_kind(kind)

        replay.build(build, site)
        notes = ["there is one place to a block in such a log, and no time"]
        if files:
            notes = [f"it is what the {files:,} files that are left tell; no frees are in them"]
        notes += replay.notes()
        if self.missed:
            notes.append(
                f"{plural(self.missed, 'allocation')} could not be read: the size is in no form that is known"
            )
        if self.strange and not files:
            notes.append(f"not of the log, or not understood: {self.strange:,} lines")
        if cut:
            notes.append(f"the file is not whole: {cut}")
        if not replay.frees and not files:
            notes.append("there is no free in it: it may be that frees were not logged")
        unsure = bool(replay.live) or not replay.frees or cut is not None or self.missed > 0
        build.coverage = Coverage(
            mode="a malloc hook's log",
            alloc_events=replay.allocs,
            free_events=None if files else replay.frees,
            max_depth=1,
            troubles=(NO_CHECK,) if unsure else (),
            notes=tuple(notes),
        )
        return build.build()


def _address(text: str) -> int | None:
    found = _ADDRESS.search(text)
    if found is None:
        return None
    digits = found[1] or found[2]
    return 0 if digits == "(nil)" else int(digits, 16)


def _size(text: str) -> int | None:
    found = _SIZE.search(text)
    if found is not None:
        digits = found[1] or found[2]
        if digits.startswith("0x"):
            return int(digits, 16)
        return int("".join(each for each in digits if each.isdecimal()))
    behind = _NEXT.match(text)
    if behind is not None:
        return int(behind[1])
    numbers = _NUMBER.findall(text)
    return int(numbers[-1]) if numbers else None
