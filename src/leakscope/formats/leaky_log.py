# SPDX-License-Identifier: Apache-2.0
"""Mozilla's Leaky: the log of its malloc (binary), and what the tool prints of it (text).

The log is records of unsigned longs in the byte order and width of the machine:

    type, address, size, old address, number of pcs, pcs …

type 0 malloc, 1 realloc, 2 free, 3 new, 4 delete, 5 and 6 reference counts (size and old address
are those). There is no magic number: a file is one where record follows record. The text has
`malloc  7f1200  size  64  00000000 --> f g main` (-d) and sums. No file of it is public: this was
written from its source.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, NO_CHECK
from leakscope.formats._replay import EventReplay
from leakscope.formats._tables import MOST_BYTES
from leakscope.formats._text import LogLines
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import Address, FrameName
from leakscope.model.recordings import Coverage, Recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_TEXT = re.compile(
    rb"(?:^|\n)Total bytes (?:allocated|leaked) = \d|(?:^|\n)# of (?:mallocs|frees) = \d|A total of \d{1,12} symbols were loaded"
    rb"|(?:^|\n)(?:malloc|realloc|free|new|delete) {1,10}(?:type )? *[0-9a-f]{8,16} (?:size|count|addr) "
)
_LINE = re.compile(
    r"\s*(malloc|realloc|free|new|delete|addref|release)\s+(?:type\s+)?([0-9a-f]{1,16})\s+(?:addr\s+)?"
    r"(?:size\s+)?(?:count\s+)?(-?\d{1,18})\s+(?:old\s+)?([0-9a-f]{1,16})\s*-->\s?(.*)"
)
_SUM = re.compile(
    r"(Total bytes (?:allocated|leaked)|# of (?:mallocs|reallocs|frees|errors)) = (\d{1,18})"
)
_TREE = re.compile(r"( {0,400})(\S.{0,1000}?) bytesLeaked=(\d{1,18}) \((\d{1,18}) from kids\)")
_FORMS = (("<", 8), (">", 8), ("<", 4), (">", 4))
_TYPES = ("malloc", "realloc", "free", "new", "delete", "addref", "release")
_MOST_PCS = 256
_SURE = 3  # records, before a file without a magic number is taken for a log
_Stack = tuple[str, tuple[object, ...]]


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is of Leaky."""
    return _TEXT.search(head) is not None or _form(head) is not None


def _form(head: bytes) -> tuple[str, int] | None:
    """Return byte order and width of a log; None for everything else."""
    if len(head) < 120 or b"\0\0" not in head[:64]:
        return None
    for order, width in _FORMS:
        unit = struct.Struct(f"{order}{5}{'Q' if width == 8 else 'I'}")
        at = seen = 0
        while at + unit.size <= len(head):
            kind, address, size, _, count = unit.unpack_from(head, at)
            # No log of its allocator begins with the zeros that pad other files.
            if kind >= len(_TYPES) or not 0 < count <= _MOST_PCS or address < 4096:
                break
            if kind < 5 and not size < 1 << 40:
                break
            following = unit.size + count * width
            pcs = struct.unpack_from(
                f"{order}{count}{'Q' if width == 8 else 'I'}",
                head.ljust(at + following, b"\xff"), at + unit.size,
            )  # fmt: skip
            if any(pc < 4096 for pc in pcs):
                break
            at += following
            seen += 1
        else:
            if seen >= _SURE:
                return order, width
    return None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording of the log or of the report. Raises `RecordingError`."""
    head = file.head(1 << 16)
    form = None if _TEXT.search(head) is not None else _form(head)
    return (_read_text(file),) if form is None else (_read_log(file, *form),)


class _Events:
    """What was done, whatever the form it was told in."""

    def __init__(self) -> None:
        self.replay: EventReplay[_Stack] = EventReplay()
        self.count = 0

    def take(self, kind: str, address: int, size: int, old: int, stack: tuple[object, ...]) -> None:
        self.count += 1
        if kind in {"free", "delete"}:
            self.replay.free(address)
        elif kind in {"malloc", "new"}:
            self.replay.allocate(address, size, (kind, stack))
        elif kind == "realloc":
            if old:
                self.replay.free(old)
            self.replay.allocate(address, size, (kind, stack))


def _read_log(file: ForeignFile, order: str, width: int) -> Recording:
    letter = "Q" if width == 8 else "I"
    unit = struct.Struct(f"{order}5{letter}")
    events = _Events()
    data, wrong = b"", False
    for piece in file.pieces(MOST_BYTES):
        data += piece
        at = 0
        while at + unit.size <= len(data):
            kind, address, size, old, count = unit.unpack_from(data, at)
            if kind >= len(_TYPES) or count > _MOST_PCS:
                wrong = True
                break
            if at + unit.size + count * width > len(data):
                break
            pcs = struct.unpack_from(f"{order}{count}{letter}", data, at + unit.size)
            events.take(_TYPES[kind], address, size, old, pcs)
            at += unit.size + count * width
        data = data[at:]
        if wrong:
            break
    cut = file.cut or ("a record makes no sense" if wrong else None)
    cut = cut or ("its last record is cut" if data else None)
    return _recording(events, {}, cut)


def _read_text(file: ForeignFile) -> Recording:
    lines = LogLines(file)
    events = _Events()
    sums: dict[str, int] = {}
    tree: list[tuple[int, str, int]] = []
    for line in lines:
        if lines.cut:
            break
        if (found := _LINE.match(line)) is not None:
            stack = tuple(found[5].split()[:MOST_FRAMES])
            size = max(int(found[3]), 0)
            events.take(found[1], int(found[2], 16), size, int(found[4], 16), stack)
        elif (found := _SUM.search(line)) is not None:
            sums[found[1]] = int(found[2])
        elif (found := _TREE.match(line)) is not None and len(tree) < 1 << 20:
            own = max(int(found[3]) - int(found[4]), 0)
            tree.append((len(found[1]), found[2], own))
    if not (events.count or sums or tree):
        raise RecordingError(f"{file.path} has a line of Leaky in it, and no report")
    cut = file.cut or ("its last line has no end" if lines.cut else None)
    return _recording(events, sums, cut, tree)


def _recording(
    events: _Events,
    sums: dict[str, int],
    cut: str | None,
    tree: list[tuple[int, str, int]] | None = None,
) -> Recording:
    build = RecordingBuilder()

    def site(place: _Stack) -> tuple[int, str]:
        frames = [frame for each in place[1] if (frame := _frame(each)) is not None]
        return build.stack(frames), place[0]

    replay = events.replay
    if events.count:
        replay.build(build, site)
    leaked = sums.get("Total bytes leaked")
    held = sum(size for size, _ in replay.live.values())
    if not events.count and tree:
        for frames, size in _paths(tree):
            build.site(build.stack(frames), live_bytes=size)
        held = sum(size for _, _, size in tree)
    if not events.count and not tree:
        build.site(0, live_bytes=leaked or 0)
        held = leaked or 0
    notes = ["it is what was not freed at the end; nobody looked whether it was in use"]
    notes += replay.notes()
    if leaked is not None and leaked != held:
        notes.append(f"its sum is {leaked:,} bytes, and {held:,} are listed")
    if cut:
        notes.append(f"the file is not whole: {cut}")
    freed_all = bool(events.count and replay.frees) and not replay.live and not cut
    build.coverage = Coverage(
        mode="Leaky",
        alloc_events=replay.allocs if events.count else sums.get("# of mallocs"),
        free_events=replay.frees if events.count else sums.get("# of frees"),
        troubles=() if freed_all else (NO_CHECK,),
        notes=tuple(notes),
    )
    return build.build()


def _frame(one: object) -> BuiltFrame | None:
    if isinstance(one, int):
        return BuiltFrame(Address(None, one))
    text = str(one)
    if text.startswith("<0x") and text.endswith(">"):
        try:
            return BuiltFrame(Address(None, int(text[3:-1], 16) & (1 << 64) - 1))
        except ValueError:
            return None
    return BuiltFrame(None, FrameName(function=text)) if text else None


def _paths(tree: list[tuple[int, str, int]]) -> Iterator[tuple[list[BuiltFrame], int]]:
    """Yield of each line of the tree its stack, innermost first, and its own bytes."""
    above: list[tuple[int, str]] = []
    for depth, name, own in tree:
        while above and above[-1][0] >= depth:
            above.pop()
        above.append((depth, name))
        if own:
            inner = reversed(above[-MOST_FRAMES:])
            yield [BuiltFrame(None, FrameName(function=each)) for _, each in inner], own
