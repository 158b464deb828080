# SPDX-License-Identifier: Apache-2.0
"""What heaptrack records, raw (`heaptrack --raw`) and interpreted, as recordings.

All numbers are hexadecimal; indices count from 1, 0 is none. Until file version 2 texts have no length.

    v 10400 3                    heaptrack's version, version of the file
    X ./a -x                     the command          x 11 /tmp/a        its path (raw)
    I 1000 5e298f                page size, pages of the machine
    c 1c   R 2f   A              ms since the start, resident pages, "attached to it"
    + SIZE TRACE PTR   - PTR     raw: allocation, free
    t IP PARENT                  raw: a trace is an address and the trace of its caller
    m 8 /lib/a.so BASE (VADDR SIZE)...   raw: an object; "m 1 x ..." the program, "m 1 -" forget all
    s 5 hello                    interpreted: text
    i IP MODULE (FN FILE LINE)...        an address, inlined functions first
    t IPINDEX PARENT   a SIZE TRACE      and of what kind an allocation is: + INFO   - INFO
    # strings: 25                it ends with comments

Addresses are those of the calls since heaptrack 1.3: one less than where they return to.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, NO_CHECK
from leakscope.formats._lines import RawLines, not_understood
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import Address, FrameName, Module
from leakscope.model.recordings import Coverage, Process
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from leakscope.formats._file import ForeignFile
    from leakscope.model.recordings import Recording

__all__ = ["read", "recognises"]

_T = TypeVar("_T")
_HEAD = re.compile(rb"v ([0-9a-f]{1,8})(?: ([0-9a-f]{1,4}))?\r?\n(?=[XxISmst#] |A\r?\n)")
_RAW = re.compile(rb"^[mx] ", re.MULTILINE)
_FIRST = re.compile(rb"^\+ [0-9a-f]+ [0-9a-f]+ [0-9a-f]+", re.MULTILINE)
_NEWEST = 3
_MOST = 64 << 30  # bytes: memory follows distinct stacks and live blocks, not the length
_MOST_ENTRIES = 1 << 22  # of each table
_MOST_TEXT = 1 << 12
_MOST_LIVE = 1 << 25
_MOST_MODULES = 60_000
_AT_ONCE = 2 << 20  # bytes
_MOST_LINE = 1 << 20
_DIGITS = 8  # of an index
_VALUES = np.full(256, 255, np.int64)
for _digit in b"0123456789abcdefABCDEF":
    _VALUES[_digit] = int(chr(_digit), 16)
_MOST_VALUE = 1 << 48  # bytes of an allocation
_EXACT_SINCE = 0x10300


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` was written by heaptrack."""
    return _HEAD.match(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording in the file. Raises `RecordingError`."""
    head = file.head(1 << 16)
    found = _HEAD.match(head)
    assert found is not None
    version = int(found[2] or b"0", 16)
    if version > _NEWEST:
        raise RecordingError(
            f"{file.path} is a file of heaptrack of version {version}, and {_NEWEST} is the newest that is read"
        )
    data = _Data(raw=_RAW.search(head) is not None, version=version, tool=int(found[1], 16))
    data.read(file)
    return (data.recording(file),)


class _Data:
    """What is read line by line."""

    def __init__(self, *, raw: bool, version: int, tool: int) -> None:
        self.raw = raw
        self._version = version
        self._tool = tool
        self.command = self.exe = ""
        self.ended = self.attached = False
        self._ms: int | None = None
        self._texts: list[str] = []
        self._ips: list[list[int]] = []
        self._traces: list[tuple[int, int]] = []  # index of the frame or address, parent
        self._infos: list[tuple[int, int]] = []  # bytes, trace
        self._pointers: dict[int, tuple[int, int]] = {}  # raw: bytes, trace
        self._modules: list[tuple[str, int, int]] = []
        self._spans: list[tuple[int, int, int]] = []  # start, end, index in _modules
        self._found: dict[int, int] = {}  # index in _ips of an address
        self._sites: dict[int, list[int]] = {}  # trace: allocations, bytes, frees, bytes
        self._plus = np.zeros(0, np.int64)  # interpreted: allocations of each kind, and frees
        self._minus = np.zeros(0, np.int64)
        self._sizes = np.zeros(0, np.int64)
        self.rest = b""  # behind the last newline
        self.live = self.peak = self.events = 0
        self.wrong = self.left_out = self.unmatched = 0
        self.frees = 0

    # ---- reading

    def read(self, file: ForeignFile) -> None:
        if self.raw or _FIRST.search(file.head(1 << 16)) is not None:
            lines = RawLines(file, _MOST)
            self._read_lines(lines)
            self.rest = lines.rest
            return
        kept: list[bytes] = []
        size = 0
        for piece in file.pieces(_MOST):
            kept.append(piece)
            size += len(piece)
            if size >= _AT_ONCE:
                kept = [self._read_part(b"".join(kept))]
                size = len(kept[0])
        self.rest = self._read_part(b"".join(kept)).strip(b"\r")

    def _read_part(self, text: bytes) -> bytes:
        """Read whole lines; returns what is behind the last of them.

        Nearly all of them are `+ INFO` and `- INFO`, and are read as columns. What they refer to
        stands before them, and so may be read first.
        """
        data = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        if not len(ends):
            return text if len(text) < _MOST_LINE else text[:_MOST_LINE]
        starts = np.concatenate([[0], ends[:-1] + 1])
        padded = np.concatenate([data, np.zeros(_DIGITS + 4, np.uint8)])
        first = padded[starts]
        events = ((first == ord("+")) | (first == ord("-"))) & (padded[starts + 1] == ord(" "))
        places = starts[events] + 2
        lengths = ends[events] - places
        lengths -= padded[np.maximum(ends[events] - 1, 0)] == ord("\r")
        values, good = _hexadecimal(padded, places, lengths)
        where = np.flatnonzero(events)
        events[where[~good]] = False
        self._read_lines(text[starts[n] : ends[n]].rstrip(b"\r") for n in np.flatnonzero(~events))
        self._happened(values[good], first[where[good]] == ord("+"))
        return text[int(ends[-1]) + 1 :]

    def _happened(self, infos: npt.NDArray[np.int64], plus: npt.NDArray[np.bool_]) -> None:
        """Take allocations and frees, in their order, of known kinds."""
        count = len(self._infos)
        known = infos < count
        self.wrong += int(np.count_nonzero(~known))
        infos, plus = infos[known], plus[known]
        if not len(infos):
            return
        if len(self._sizes) < count:
            more = [size for size, _ in self._infos[len(self._sizes) :]]
            self._sizes = np.concatenate([self._sizes, np.array(more, np.int64)])
            empty = np.zeros(count - len(self._plus), np.int64)
            self._plus = np.concatenate([self._plus, empty])
            self._minus = np.concatenate([self._minus, empty])
        born = np.bincount(infos[plus], minlength=count)
        died = np.bincount(infos[~plus], minlength=count)
        if (self._plus + born < self._minus + died).any():
            kept = self._matched(infos, plus)
            infos, plus = infos[kept], plus[kept]
            died = np.bincount(infos[~plus], minlength=count)
        self._plus += born
        self._minus += died
        sizes = self._sizes[infos]
        course = np.cumsum(np.where(plus, sizes, -sizes))
        if len(course):
            self.peak = max(self.peak, self.live + int(course.max()))
            self.live += int(course[-1])
        self.events += int(born.sum())
        self.frees += int(died.sum())

    def _matched(
        self, infos: npt.NDArray[np.int64], plus: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Leave out frees of blocks that were not allocated."""
        living = (self._plus - self._minus).tolist()
        kept = np.ones(len(infos), bool)
        for at, (info, is_plus) in enumerate(zip(infos.tolist(), plus.tolist(), strict=True)):
            if is_plus:
                living[info] += 1
            elif living[info] > 0:
                living[info] -= 1
            else:
                self.unmatched += 1
                kept[at] = False
        return kept

    def _read_lines(self, lines: Iterable[bytes]) -> None:
        handlers = {
            b"+": self._allocated,
            b"-": self._freed,
            b"t": self._trace,
            b"a": self._info,
            b"s": self._text,
            b"i": self._address,
            b"m": self._module,
            b"c": self._time,
        }
        for line in lines:
            handler = handlers.get(line[:1])
            try:
                if handler is not None and line[1:2] == b" ":
                    handler(line)
                elif line[:2] == b"X ":
                    self.command = self.command or _decoded(line[2:])
                elif line[:2] == b"x ":
                    self.exe = self.exe or _decoded(self._unsized(line[2:]))
                elif line[:1] == b"A":
                    self.attached = True
                elif line.startswith(b"# strings:"):
                    self.ended = True
            except (ValueError, IndexError):
                self.wrong += 1
                self._fill(line[:1])

    def _fill(self, kind: bytes) -> None:
        """Keep the place of an entry that was not understood: others are known by their number."""
        entries: list[tuple[bytes, list[Any], object]] = [
            (b"t", self._traces, (0, 0)),
            (b"a", self._infos, (0, 0)),
            (b"s", self._texts, ""),
            (b"i", self._ips, [0]),
        ]
        for known, table, entry in entries:
            if known == kind and len(table) < _MOST_ENTRIES:
                table.append(entry)

    def _allocated(self, line: bytes) -> None:
        words = line.split()  # raw, and interpreted by the first versions
        size, trace, pointer = (_number(each) for each in words[1:4])
        if size >= _MOST_VALUE or trace > len(self._traces):
            raise ValueError
        if pointer in self._pointers:
            self._release(*self._pointers.pop(pointer))
        elif len(self._pointers) >= _MOST_LIVE:
            self.left_out += 1
            return
        self._pointers[pointer] = (size, trace)
        site = self._sites.get(trace)
        if site is None:
            site = self._sites[trace] = [0, 0, 0, 0]
        site[0] += 1
        site[1] += size
        self.events += 1
        self.live += size
        self.peak = max(self.peak, self.live)

    def _freed(self, line: bytes) -> None:
        number = _number(line[2:])
        block = self._pointers.pop(number, None)
        if block is None:  # from before heaptrack was there, or of memory it does not know
            self.unmatched += 1
            return
        self._release(*block)

    def _release(self, size: int, trace: int) -> None:
        site = self._sites[trace]
        site[2] += 1
        site[3] += size
        self.frees += 1
        self.live -= size

    def _trace(self, line: bytes) -> None:
        frame, parent = (_number(each) for each in line.split()[1:3])
        # A caller is always told of before: there are no circles.
        if parent > len(self._traces) or frame >= 1 << 64:
            parent = frame = 0
            self.wrong += 1
        if self.raw:
            frame = self._address_of(frame)
        self._add(self._traces, (frame, parent))

    def _info(self, line: bytes) -> None:
        size, trace = (_number(each) for each in line.split()[1:3])
        good = size < _MOST_VALUE and trace <= len(self._traces)
        self.wrong += not good
        self._add(self._infos, (size, trace) if good else (0, 0))

    def _text(self, line: bytes) -> None:
        self._add(self._texts, _decoded(self._unsized(line[2:])))

    def _address(self, line: bytes) -> None:
        words = line.split()[1 : 3 + 3 * MOST_FRAMES]
        if not words:
            raise ValueError
        self._add(self._ips, [_number(each) for each in words])

    def _time(self, line: bytes) -> None:
        self._ms = max(self._ms or 0, min(_number(line[2:]), 1 << 40))

    def _unsized(self, text: bytes) -> bytes:
        return text if self._version < _NEWEST else text.partition(b" ")[2]

    def _add(self, table: list[_T], entry: _T) -> None:
        if len(table) >= _MOST_ENTRIES:
            self.left_out += 1
            raise IndexError
        table.append(entry)

    # ---- raw: where addresses are

    def _module(self, line: bytes) -> None:
        text = line[2:]
        if self._version >= _NEWEST:
            length, _, text = text.partition(b" ")
            size = _number(length)
            name, words = text[:size], text[size:].split()
        else:
            name, *words = text.split()
        if name == b"-" and not words:
            self._spans = []
            return
        path = (self.exe or self.command.split(" ")[0]) if name == b"x" else _decoded(name)
        values = [_number(each) for each in words]
        base, parts = values[0], values[1:]
        ends = [base + at + size for at, size in zip(parts[::2], parts[1::2], strict=False)]
        if not ends or not base < max(ends) < 1 << 64:
            raise ValueError
        known = next((n for n, m in enumerate(self._modules) if m[:2] == (path, base)), None)
        if known is None:
            if len(self._modules) >= _MOST_MODULES:
                self.left_out += 1
                return
            known = len(self._modules)
            self._modules.append((path, base, max(ends)))
        self._spans.append((base + parts[0], max(ends), known))
        self._found = {}

    def _address_of(self, ip: int) -> int:
        """Return the index of an address in its module, in `_ips`, counted from 1."""
        if ip not in self._found:
            module = next((m for start, end, m in self._spans if start <= ip < end), -1)
            self._add(self._ips, [ip, module + 1])
            self._found[ip] = len(self._ips)
        return self._found[ip]

    # ---- the recording

    def recording(self, file: ForeignFile) -> Recording:
        """Make the recording."""
        exe = self.exe or self.command.split(" ")[0]
        build = RecordingBuilder(
            Process(exe=exe or None), duration_ns=None if self._ms is None else self._ms * 1_000_000
        )
        for path, base, end in self._modules:
            build.module(Module(path, None, base, end, base))
        self._add_up()
        for trace, (allocs, size, frees, freed) in self._sites.items():
            frames, more = self._stack(trace)
            build.site(
                build.stack(frames, truncated=more),
                allocs=allocs,
                alloc_bytes=size,
                frees=frees,
                freed_bytes=freed,
                live_count=allocs - frees,
                live_bytes=size - freed,
            )
        if not self._sites:
            build.site(0, allocs=0, frees=0, live_count=0, live_bytes=0)
        part = self._part(file)
        unsure = part is not None or self.attached or self.raw or self.wrong or self.left_out
        build.coverage = Coverage(
            mode="heaptrack" + (", raw" if self.raw else ""),
            alloc_events=self.events,
            free_events=self.frees,
            troubles=(NO_CHECK,) if unsure else (),
            notes=tuple(self._notes(part)),
        )
        return build.build()

    def _add_up(self) -> None:
        """Put the counts of each kind of allocation to its place."""
        for index in np.flatnonzero(self._plus).tolist():
            size, trace = self._infos[index]
            site = self._sites.setdefault(trace, [0, 0, 0, 0])
            born, died = int(self._plus[index]), int(self._minus[index])
            site[0] += born
            site[1] += born * size
            site[2] += died
            site[3] += died * size

    def _stack(self, trace: int) -> tuple[list[BuiltFrame], bool]:
        """Return the frames, and whether there were more of them."""
        frames: list[BuiltFrame] = []
        while trace and len(frames) < MOST_FRAMES:
            index, trace = self._traces[trace - 1]
            if 0 < index <= len(self._ips):
                frames += self._frames(self._ips[index - 1])
        return frames[:MOST_FRAMES], trace != 0 or len(frames) > MOST_FRAMES

    def _frames(self, ip: list[int]) -> list[BuiltFrame]:
        address, module = ip[0], ip[1] if len(ip) > 1 else 0
        exact = self._tool >= _EXACT_SINCE
        if address >= 1 << 64:
            return []
        if self.raw:
            if module:
                return [
                    BuiltFrame(Address(module - 1, address - self._modules[module - 1][1], exact))
                ]
            return [BuiltFrame(Address(None, address, exact))]
        path = self._of(module)
        groups = [ip[at : at + 3] for at in range(2, len(ip), 3)]
        names = [
            FrameName(
                function=self._of(group[0]),
                file=self._of(group[1]) if len(group) == 3 else None,
                line=group[2] if len(group) == 3 and 0 < group[2] < 1 << 31 else None,
                module_path=path,
                inlined=group is not groups[-1],
            )
            for group in groups
        ] or [FrameName(module_path=path)]
        where = Address(None, address, exact)
        return [BuiltFrame(where, None if name == FrameName() else name) for name in names]

    def _of(self, index: int) -> str | None:
        return (self._texts[index - 1] or None) if 0 < index <= len(self._texts) else None

    def _part(self, file: ForeignFile) -> str | None:
        """Return why the file is not whole, None when it is."""
        if file.cut or self.rest:
            return file.cut or "it ends in the middle of a line"
        return None if self.ended or self.raw else "it has no end"

    def _notes(self, part: str | None) -> list[str]:
        notes = [
            f"at most {self.peak:,} bytes ({bytes_text(self.peak)}) were held at once",
            "what heaptrack calls leaked is what was held at the end, a cache as well as a leak",
        ]
        if part is not None:
            notes.append(f"the file is not whole: {part}; what was freed later counts as held")
        elif self.raw:
            notes.append("raw data have no end mark: whether they are whole is not known")
        if self.attached:
            notes.append("heaptrack was attached: what was allocated before is not known")
        if self.unmatched:
            notes.append(f"{self.unmatched:,} frees are of blocks that the file does not tell of")
        if self.wrong:
            notes.append(not_understood(self.wrong))
        if self.left_out:
            notes.append(f"{self.left_out:,} entries are too many, and were not read")
        return notes


def _hexadecimal(
    data: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the numbers at these places of a text, and which of them are numbers."""
    values = np.zeros(len(places), np.int64)
    good = (lengths > 0) & (lengths <= _DIGITS)
    for at in range(int(min(lengths.max(initial=0), _DIGITS))):
        there = at < lengths
        digits = _VALUES[data[places + at]]
        good &= ~there | (digits < 16)
        values = np.where(there, values * 16 + digits, values)
    return values, good


def _number(text: bytes) -> int:
    if b"-" in text or len(text) > 20:
        raise ValueError
    return int(text, 16)


def _decoded(text: bytes) -> str:
    return text[:_MOST_TEXT].decode("utf-8", "replace")
