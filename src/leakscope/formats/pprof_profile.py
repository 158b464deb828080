# SPDX-License-Identifier: Apache-2.0
"""Heap profiles in pprof's protobuf form (profile.proto), as recordings.

Read without a protobuf library: a message is a row of fields, each a number, a wire type (0 varint,
1 and 5 fixed, 2 bytes) and a value. Values of samples are final: the producer scaled them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, NO_CHECK
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import Address, FrameName, Module
from leakscope.model.recordings import Coverage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakscope.formats._file import ForeignFile
    from leakscope.model.recordings import Recording

__all__ = ["read", "recognises"]

_MOST = 64 << 20  # bytes, unpacked: all of it is in memory
_MOST_LINE = 1 << 31
_MOST_MODULES = 60_000
_MOST_VALUE = 1 << 60
# Fields of a profile, with the wire types that they may have.
_FIELDS = {
    **dict.fromkeys((1, 2, 3, 4, 5, 6, 11), (2,)),
    **dict.fromkeys((7, 8, 9, 10, 12, 14, 15), (0,)),
    13: (0, 2),
}
_BYTES = {"bytes", "byte", "B"}
# What is held, and what was ever allocated, by the names that producers give it.
_HELD = ("inuse_space", "space", "Unreleased malloc size")
_HELD_COUNT = ("inuse_objects", "objects", "Unreleased malloc count")
_ALLOCATED = ("alloc_space", "Total malloc size")
_ALLOCATED_COUNT = ("alloc_objects", "Total malloc count")

_Field = tuple[int, int, int, int]  # number, wire type, value or start, end


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is a profile: all its fields are those of one."""
    typed = fields = 0
    try:
        for number, wire, start, end in _fields(head, 0, len(head)):
            if wire not in _FIELDS.get(number, ()):
                return False
            fields += 1
            if number == 1:
                inner = list(_fields(head, start, end))
                if not inner or any(n not in {1, 2} or w != 0 for n, w, _, _ in inner):
                    return False
                typed += 1
    except ValueError:
        # Whether it is cut here, or goes on, does not matter behind a few good fields.
        return typed > 0 and fields > 4
    return typed > 0


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
        shift += 7
    raise ValueError("a number does not end")


def _fields(data: bytes, at: int, end: int) -> Iterator[_Field]:
    """Yield the fields of a message. Raises `ValueError` for what is none."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at, end)
            yield number, wire, value, 0
            continue
        if wire == 2:
            size, at = _varint(data, at, end)
        else:
            size = {1: 8, 5: 4}.get(wire, end + 1)
        if size > end - at:
            raise ValueError("a field is longer than what it is in")
        yield number, wire, at, at + size
        at += size


def _numbers(data: bytes, part: _Field) -> list[int]:
    """The values of a repeated field, packed or one of them."""
    _, wire, start, end = part
    if wire == 0:
        return [start]
    found = []
    while start < end:
        value, start = _varint(data, start, end)
        found.append(value)
    return found


def _table(data: bytes, start: int, end: int) -> dict[int, int]:
    """The plain numbers of a message."""
    return {number: value for number, wire, value, _ in _fields(data, start, end) if wire == 0}


@dataclass(slots=True)
class _Location:
    mapping: int
    address: int
    lines: list[tuple[int, int]]  # function, line


@dataclass(slots=True)
class _Profile:
    """What is in the file; indices are those of the string table."""

    types: list[tuple[int, int]] = field(default_factory=list)
    samples: list[tuple[list[int], list[int]]] = field(default_factory=list)
    mappings: dict[int, dict[int, int]] = field(default_factory=dict)
    locations: dict[int, _Location] = field(default_factory=dict)
    functions: dict[int, dict[int, int]] = field(default_factory=dict)
    strings: list[str] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)

    def read(self, data: bytes) -> None:
        for part in _fields(data, 0, len(data)):
            number, wire, start, end = part
            if wire == 0:
                self.numbers[number] = start
            elif number == 1:
                table = _table(data, start, end)
                self.types.append((table.get(1, 0), table.get(2, 0)))
            elif number == 2:
                self._sample(data, start, end)
            elif number == 3:
                table = _table(data, start, end)
                self.mappings[table.get(1, 0)] = table
            elif number == 4:
                self._location(data, start, end)
            elif number == 5:
                table = _table(data, start, end)
                self.functions[table.get(1, 0)] = table
            elif number == 6:
                self.strings.append(data[start : min(end, start + 4096)].decode("utf-8", "replace"))

    def _sample(self, data: bytes, start: int, end: int) -> None:
        stack: list[int] = []
        values: list[int] = []
        for part in _fields(data, start, end):
            if part[0] == 1:
                stack += _numbers(data, part)
            elif part[0] == 2:
                values += _numbers(data, part)
        self.samples.append((stack, values))

    def _location(self, data: bytes, start: int, end: int) -> None:
        lines = []
        for number, wire, at, until in _fields(data, start, end):
            if number == 4 and wire == 2:
                line = _table(data, at, until)
                lines.append((line.get(1, 0), line.get(2, 0)))
        table = _table(data, start, end)
        self.locations[table.get(1, 0)] = _Location(table.get(2, 0), table.get(3, 0), lines)

    def text(self, index: int) -> str:
        """Return a string of the table, "" where there is none."""
        return self.strings[index] if index < len(self.strings) else ""

    def column(self, names: tuple[str, ...], *, size: bool) -> int | None:
        """Return which value of the samples is of one of these types."""
        for wanted in names:
            for at, (name, unit) in enumerate(self.types):
                if self.text(name) == wanted and (not size or self.text(unit) in _BYTES):
                    return at
        return None


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording in the file. Raises `RecordingError`."""
    data, profile = b"".join(file.pieces(_MOST)), _Profile()
    try:
        profile.read(data)
    except ValueError as error:
        raise RecordingError(
            f"{file.path} is a pprof profile that is not whole: {file.cut or error}"
        ) from None
    if file.cut or not profile.strings:
        why = file.cut or "it has no texts"
        raise RecordingError(f"{file.path} is a pprof profile that is not whole: {why}")
    columns = {
        "live_bytes": profile.column(_HELD, size=True),
        "live_count": profile.column(_HELD_COUNT, size=False),
        "alloc_bytes": profile.column(_ALLOCATED, size=True),
        "allocs": profile.column(_ALLOCATED_COUNT, size=False),
    }
    if columns["live_bytes"] is None and columns["alloc_bytes"] is None:
        names = ", ".join(dict.fromkeys(profile.text(name) or "?" for name, _ in profile.types))
        raise RecordingError(
            f"{file.path} is a pprof profile of {names[:200]}, which tells nothing of memory",
            hint="Take a heap profile; for Go: curl -o heap.pb.gz HOST/debug/pprof/heap",
        )
    return (_recording(profile, {n: at for n, at in columns.items() if at is not None}),)


def _recording(profile: _Profile, columns: dict[str, int]) -> Recording:
    duration = profile.numbers.get(10, 0)
    build = RecordingBuilder(duration_ns=duration if 0 < duration < 1 << 62 else None)
    stacks = _Stacks(profile, build)
    negative = short = 0
    for stack, values in profile.samples:
        told = {}
        for name, at in columns.items():
            value = values[at] if at < len(values) else None
            short += value is None
            negative += value is not None and value >= 1 << 63
            told[name] = value if value is not None and value < _MOST_VALUE else 0
        frames = stacks.frames(stack)
        node = build.stack(frames[:MOST_FRAMES], truncated=len(frames) > MOST_FRAMES)
        build.site(node, "malloc", **told)
    if not profile.samples:
        build.site(0, "malloc", **dict.fromkeys(columns, 0))
    period = profile.numbers.get(12, 0)
    sampled = 1 < period < 1 << 40
    if "live_bytes" in columns:
        notes = [
            "it is what was held when the profile was taken; nobody looked whether it is in use"
        ]
    else:
        notes = ["it is what was allocated; how much of it is held is not told"]
    if sampled:
        notes.append(
            f"one block in about {period:,} allocated bytes was looked at: the numbers are estimates"
        )
    if negative:
        notes.append(
            f"{negative:,} values are negative, and were taken for 0: a difference of profiles"
        )
    if short:
        notes.append(f"{short:,} values are missing, and were taken for 0")
    build.coverage = Coverage(
        mode="a pprof profile",
        sample_bytes=period if sampled else None,
        troubles=(NO_CHECK,),
        notes=tuple(notes),
    )
    return build.build()


class _Stacks:
    """Frames of locations; each is made once."""

    def __init__(self, profile: _Profile, build: RecordingBuilder) -> None:
        self._profile, self._build = profile, build
        self._known: dict[int, list[BuiltFrame]] = {}
        self._modules: dict[int, tuple[int | None, int]] = {}

    def frames(self, stack: list[int]) -> list[BuiltFrame]:
        """Return the frames of locations, innermost first, more than enough of them."""
        found: list[BuiltFrame] = []
        for location in stack:
            if location not in self._known:
                self._known[location] = self._of(location)
            found += self._known[location]
            if len(found) > MOST_FRAMES:
                break
        return found

    def _of(self, number: int) -> list[BuiltFrame]:
        profile = self._profile
        location = profile.locations.get(number)
        if location is None:
            return []
        path = profile.text(profile.mappings.get(location.mapping, {}).get(5, 0)) or None
        names = []
        for at, (function, line) in enumerate(location.lines[:MOST_FRAMES], 1):
            table = profile.functions.get(function, {})
            names.append(
                FrameName(
                    function=profile.text(table.get(2, 0)) or None,
                    symbol=profile.text(table.get(3, 0)) or None,
                    file=profile.text(table.get(4, 0)) or None,
                    line=line if 0 < line < _MOST_LINE else None,
                    module_path=path,
                    inlined=at < len(location.lines),
                )
            )
        if not names:
            return [BuiltFrame(self._address(location))]
        where = Address(None, location.address, exact=True) if location.address else None
        return [BuiltFrame(where, name) for name in names if where or name.function or name.file]

    def _address(self, location: _Location) -> Address:
        if location.mapping not in self._modules:
            self._modules[location.mapping] = self._module(location.mapping)
        module, bias = self._modules[location.mapping]
        if module is None or location.address < bias:
            return Address(None, location.address, exact=True)
        return Address(module, location.address - bias, exact=True)

    def _module(self, number: int) -> tuple[int | None, int]:
        table = self._profile.mappings.get(number, {})
        path, start, end = self._profile.text(table.get(5, 0)), table.get(2, 0), table.get(3, 0)
        if not path.startswith("/") or start >= end or len(self._modules) >= _MOST_MODULES:
            return None, 0
        bias = max(start - table.get(4, 0), 0)
        build_id = self._profile.text(table.get(6, 0)) or None
        return self._build.module(Module(path, build_id, start, end, bias)), bias
