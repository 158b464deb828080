# SPDX-License-Identifier: Apache-2.0
"""The log of glibc's mtrace(), replayed: what was allocated and not freed when it ends.

`@ CALLER + ADDRESS SIZE` is an allocation, `- ADDRESS` a free, `< OLD` with `> NEW SIZE` a
resize, `! ADDRESS SIZE` one that failed. There is one return address to a block, and neither
a time nor a thread. After a fork both processes write what was in the buffer: a second
`= Start` begins another process.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakscope._paths import absolute
from leakscope.errors import LeakscopeError, RecordingError
from leakscope.formats._bounds import MOST_RECORDS, NO_CHECK
from leakscope.formats._lines import RawLines
from leakscope.formats._tables import MOST_BYTES
from leakscope.formats._text import frame, plain_number, without_colours
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import Address, Module
from leakscope.model.recordings import BLOCK_DTYPE, Coverage, Process, Recording
from leakscope.proc.elf_file import PT_LOAD, ElfFile
from leakscope.words import plural

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"(?:^|\n)(?:[^\n]{0,80} )?= Start\r?\n(?:[^\n]{0,80} )?(?:@ [^\n]{0,4096}\[0x|\+ 0x|- 0x|= End|= Start|$)"
    rb"|(?:^|\n)@ [^\n]{0,4096}\[0x[0-9a-f]{1,16}\] [+<>-] (?:0x|\(nil\))"
)
_EVENT = re.compile(
    r"(?:\[(0x[0-9a-fA-F]{1,16})\] |^)([-+<>!]) (\(nil\)|0x[0-9a-fA-F]{1,16})"
    r"(?: (0x[0-9a-fA-F]{1,16}|[0-9]{1,20}))?\s*$"
)
_CALLER = re.compile(r"(?:(.{0,4096}):)?(?:\(([^()+-]{1,4096})[+-](?:0x)?[0-9a-fA-F]{1,16}\))?$")
_PLAIN = re.compile(r"[ -~]{0,4096}\[0x[0-9a-fA-F]{1,16}\]")
_MOST_PROCESSES = 4096
_MOST_MODULES = 10_000


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is a log of mtrace."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return a recording of each process in the log. Raises `RecordingError`."""
    lines = RawLines(file, MOST_BYTES)  # its rest may be the beginning of another number
    processes: list[_Log] = []
    strange = 0
    log: _Log | None = None
    for line in lines:
        words = line.split(b" ")
        if words[0] == b"@" and 4 <= len(words) <= 5 and log is not None and log.quick(words):
            continue
        text = without_colours(line.replace(b"\0", b"").decode("utf-8", "replace"))
        if text.endswith("= Start"):
            if len(processes) >= _MOST_PROCESSES:
                raise RecordingError(
                    f"{file.path} has more than {_MOST_PROCESSES:,} processes in it",
                    hint="Cut out the part that matters.",
                )
            log = _Log()
            processes.append(log)
            continue
        if log is None:
            log = _Log(begun=False)
            processes.append(log)
        if text.endswith("= End"):
            log.ended = True
        elif (found := _EVENT.search(text)) is not None:
            log.take(text, found)
        elif text.strip():
            strange += 1
    if not any(log.events or log.ended or log.begun for log in processes):
        raise RecordingError(f"{file.path} has a line of mtrace in it, and no log")
    logs = [log for log in processes if log.events or log.begun]
    for log in logs:
        log.cut = bool(lines.rest.strip(b"\0\r\t ")) and log is logs[-1]
        log.damage = file.cut if log is logs[-1] else None
    folder, several = Path(file.path).parent, len(logs) > 1
    return tuple(_recording(log, folder, several=several, strange=strange) for log in logs)


class _Log:
    """What one process wrote, replayed."""

    def __init__(self, *, begun: bool = True) -> None:
        self.begun = begun
        self.ended = self.cut = False
        self.damage: str | None = None
        self.events = 0
        self.failed = self.unknown_frees = self.replaced = self.left_out = 0
        self.callers: dict[str, int] = {}
        self.keys: dict[tuple[bytes, bytes], str] = {}
        self.counts: list[list[int]] = []  # allocs, their bytes, frees, their bytes; by caller
        self.live: dict[int, tuple[int, int]] = {}  # address: size, caller
        self.pending: tuple[int, int] | None = None  # a block that is being resized

    def quick(self, words: list[bytes]) -> bool:
        """Take `@ CALLER MARK ADDRESS [SIZE]`; returns whether it was one, and nothing odd in it."""
        mark = words[2]
        freed = mark in {b"-", b"<"}
        if freed is (len(words) == 5) or not (freed or mark in {b"+", b">"}):
            return False
        try:
            at = int(words[3], 16)
            size = 0 if freed else int(words[4], 16)
        except ValueError:
            return False
        if not 0 < at < 1 << 64 or not 0 <= size < 1 << 40:
            return False
        if freed:
            self.events += 1
            block = self._free(at)
            if mark == b"<":
                self.pending = block
            return True
        pair = (mark, words[1])
        key = self.keys.get(pair)
        if key is None:
            text = words[1].decode("utf-8", "replace")
            if not _PLAIN.fullmatch(text) or len(self.keys) >= MOST_RECORDS:
                return False
            key = self.keys[pair] = f"{mark.decode()}@ {text}"
        self.events += 1
        if mark == b">":
            self.pending = None
        self._allocate(at, size, key)
        return True

    def take(self, line: str, found: re.Match[str]) -> None:
        """Read one line."""
        mark, address = found[2], found[3]
        at = 0 if address == "(nil)" else int(address, 16)
        self.events += 1
        if mark == "-":
            self._free(at)
        elif mark == "<":
            self.pending = self._free(at)
        elif mark == "!":
            self.failed += 1
        else:
            if mark == ">":
                self.pending = None
            text = found[4]
            size = None if text is None else plain_number(text.removeprefix("0x"), 16)
            if at == 0:
                self.failed += 1
            elif size is None or size >= 1 << 40:
                self.left_out += 1
            else:
                key = line[: found.end(1) + 1] if found[1] else ""
                self._allocate(at, size, f"{mark}{key}")

    def _allocate(self, at: int, size: int, key: str) -> None:
        caller = self.callers.get(key)
        if caller is None:
            if len(self.callers) >= MOST_RECORDS:
                self.left_out += 1
                return
            caller = self.callers[key] = len(self.callers)
            self.counts.append([0, 0, 0, 0])
        if at in self.live:
            self.replaced += 1
            self._free(at)
        self.live[at] = (size, caller)
        counts = self.counts[caller]
        counts[0] += 1
        counts[1] += size

    def _free(self, at: int) -> tuple[int, int] | None:
        block = self.live.pop(at, None)
        if block is None:
            self.unknown_frees += at != 0
            return None
        counts = self.counts[block[1]]
        counts[2] += 1
        counts[3] += block[0]
        return block


def _recording(log: _Log, folder: Path, *, several: bool, strange: int) -> Recording:
    build = RecordingBuilder(
        Process(ended="exited" if log.ended else None),
        _coverage(log, several=several, strange=strange),
    )
    sites = []
    callers = _Callers(build, folder)
    for key, (allocs, alloc_bytes, frees, freed_bytes) in zip(log.callers, log.counts, strict=True):
        site = build.site(
            callers.node(key[1:]),
            "realloc" if key[0] == ">" else "malloc",
            allocs=allocs,
            alloc_bytes=alloc_bytes,
            frees=frees,
            freed_bytes=freed_bytes,
        )
        sites.append(site)
    table = np.zeros(len(log.live), BLOCK_DTYPE)
    for row, (address, (size, caller)) in enumerate(log.live.items()):
        table[row] = (address, size, sites[caller], 0)
    build.blocks(table)
    return build.build()


class _Callers:
    """Callers as frames: what is in a file that lies here can be looked up there.

    The log has no build-ids: a file of that path need not be the one that ran, and reports say
    so. Since glibc 2.35 or so offsets count from where an object is loaded, also in programs that
    are linked to a fixed address; before that, addresses of libraries were absolute.
    """

    def __init__(self, build: RecordingBuilder, folder: Path) -> None:
        self._build = build
        self._folder = folder
        self._known: dict[str, tuple[int, int, int] | None] = {}  # module, lowest, end

    def node(self, text: str) -> int:
        """Return the node of such as `@ ./a.out:(main+1b)[0x1169]`."""
        before, _, digits = text.rstrip("]").rpartition("[")
        start = before.find("@ ")
        found = _CALLER.match(before[start + 2 :]) if start >= 0 else None
        module, function = (found[1], found[2]) if found is not None else (None, None)
        number = plain_number(digits.removeprefix("0x"), 16)
        at = None if module is None or number is None else self._address(module, number)
        if at is not None:
            return self._build.stack([BuiltFrame(at)])
        built = frame(number, function, module=module)
        return 0 if built is None else self._build.stack([built])

    def _address(self, path: str, number: int) -> Address | None:
        if path not in self._known:
            room = len(self._known) < _MOST_MODULES
            self._known[path] = self._object(path) if room else None
        known = self._known[path]
        if known is None:
            return None
        module, lowest, end = known
        offset = number if number >= lowest else number + lowest
        return Address(module, offset) if lowest <= offset < end else None

    def _object(self, path: str) -> tuple[int, int, int] | None:
        """Return the number of a module, and its lowest and highest address in its file."""
        for place in (absolute(path), self._folder / path):
            try:
                with ElfFile(str(place)) as file:
                    spans = [one for one in file.segments if one.type == PT_LOAD]
            except (LeakscopeError, OSError, ValueError, struct.error):
                continue
            if spans:
                lowest = min(one.address for one in spans)
                end = max(one.address + one.memory_size for one in spans)
                return self._build.module(Module(str(place), None, 0, end, 0)), lowest, end
        return None


def _coverage(log: _Log, *, several: bool, strange: int) -> Coverage:
    troubles, notes = [], ["there is one caller to a block in a log of mtrace, and no time"]
    if not log.ended:
        notes.append(
            "the log has no end: the program did not call muntrace(), was killed, or still ran"
        )
    if log.damage:
        notes.append(f"the file is not whole: {log.damage}")
    if log.cut:
        notes.append("the last line of the log is cut, and was not read")
    if log.pending is not None:
        notes.append(
            f"a block of {log.pending[0]:,} bytes was being resized: it is held, and its size now is"
            " not known"
        )
    if not log.live and not (log.ended and log.events):
        troubles.append(NO_CHECK)
    if log.unknown_frees:
        notes.append(
            f"freed, and allocated before the log began: {plural(log.unknown_frees, 'block')}"
        )
    if log.failed:
        notes.append(f"allocations that failed, and are no blocks: {log.failed:,}")
    if log.replaced:
        notes.append(
            f"events are missing, or a forked child wrote into the log as well:"
            f" {plural(log.replaced, 'block')} came again without a free between"
        )
    if several:
        notes.append(
            "one of several processes or runs in this file, which one is not told there; after a"
            " fork each has what was in the buffer then"
        )
    if strange or log.left_out:
        notes.append(f"not read: {plural(strange + log.left_out, 'line')}")
    counts = log.counts
    return Coverage(
        mode="mtrace",
        alloc_events=sum(each[0] for each in counts),
        free_events=sum(each[2] for each in counts) + log.unknown_frees,
        max_depth=1,
        troubles=tuple(troubles),
        notes=tuple(notes),
    )
