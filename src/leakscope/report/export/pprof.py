# SPDX-License-Identifier: Apache-2.0
"""A profile in pprof's protobuf form (profile.proto), packed with gzip, as `go tool pprof` reads.

Samples have four values: blocks and bytes that are held, and of them those that nothing points to.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from leakscope.model.frames import Frame
from leakscope.report.export._samples import encoded, frame_name, samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from leakscope.report.export import Exported
    from leakscope.report.export._samples import Sample

__all__ = ["write"]

_TYPES = (
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
    ("lost_objects", "count"),
    ("lost_space", "bytes"),
)
_MODULE_BYTES = 1 << 40  # each module has so many addresses of its own
_MOST_MODULES = 1 << 20


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the profile; `root` says nothing here."""
    del root
    profile = _Profile()
    body = bytearray()
    for name, unit in _TYPES:
        body += _message(1, _number(1, profile.text(name)) + _number(2, profile.text(unit)))
    found = [sample for _, sample in samples(every)]
    profile.begin_with(next((e for one in every if (e := one.findings.process.exe)), ""), found)
    for sample in found:
        values = (sample.held_count, sample.held_bytes, sample.lost_count, sample.lost_bytes)
        stack = [profile.location(frame) for frame in sample.stack]
        body += _message(2, _packed(1, stack) + _packed(2, values))
    for mapping in profile.mappings.values():
        body += _message(3, mapping)
    for location in profile.locations.values():
        body += _message(4, location)
    for function in profile.functions.values():
        body += _message(5, function)
    period = max((one.findings.coverage.sample_bytes or 0 for one in every), default=0)
    started = [one.findings.process.started_unix_ns or 0 for one in every]
    durations = [one.findings.duration_ns or 0 for one in every]
    space = _number(1, profile.text("space")) + _number(2, profile.text("bytes"))
    tail = _number(9, max(started, default=0)) + _number(10, max(durations, default=0))
    tail += _message(11, space) + _number(12, period or 1)
    tail += _number(14, profile.text("inuse_space"))
    texts = b"".join(_message(6, encoded(text)) for text in profile.texts)
    return gzip.compress(bytes(body) + texts + tail, mtime=0)


class _Profile:
    """The tables of a profile; what is used again is written once."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {"": 0}
        self.mappings: dict[tuple[str, str], bytes] = {}
        self.locations: dict[Frame, bytes] = {}
        self.functions: dict[tuple[str, str, str], bytes] = {}
        self._numbers: dict[object, int] = {}

    def text(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))

    def begin_with(self, program: str, every: Iterable[Sample]) -> None:
        """Make the program the first mapping: readers take that one for what was profiled."""
        name = program.rsplit("/", 1)[-1]
        for sample in every if name else ():
            for frame in sample.stack:
                if frame.module_path and frame.module_path.rsplit("/", 1)[-1] == name:
                    self._mapping(frame)
                    return
        if name:
            self._mapping(Frame(None, module_path=program))

    def location(self, frame: Frame) -> int:
        known = self._numbers.get(frame)
        if known is not None:
            return known
        number = self._numbers[frame] = len(self.locations) + 1
        mapping = self._mapping(frame)
        told = _number(1, number)
        offset = frame.address.offset if frame.address is not None else 0
        if mapping:
            told += _number(2, mapping) + _number(
                3, mapping * _MODULE_BYTES + offset % _MODULE_BYTES
            )
        elif offset:
            told += _number(3, offset)
        line = _number(1, self._function(frame)) + _number(2, frame.line or 0)
        self.locations[frame] = told + _message(4, line)
        return number

    def _mapping(self, frame: Frame) -> int:
        if not frame.module_path:
            return 0
        key = (frame.module_path, frame.build_id or "")
        numbered = ("mapping", *key)
        if numbered not in self._numbers:
            number = len(self.mappings) + 1
            if number > _MOST_MODULES:
                return 0
            self._numbers[numbered] = number
            self.mappings[key] = (
                _number(1, number)
                + _number(2, number * _MODULE_BYTES)
                + _number(3, (number + 1) * _MODULE_BYTES)
                + _number(5, self.text(key[0]))
                + _number(6, self.text(key[1]))
                + b"".join(_number(field, 1) for field in (7, 8, 9, 10))  # names are resolved
            )
        return self._numbers[numbered]

    def _function(self, frame: Frame) -> int:
        key = (frame_name(frame), frame.symbol or "", frame.file or "")
        numbered = ("function", *key)
        if numbered not in self._numbers:
            number = self._numbers[numbered] = len(self.functions) + 1
            self.functions[key] = _number(1, number) + b"".join(
                _number(field, self.text(text)) for field, text in enumerate(key, 2)
            )
        return self._numbers[numbered]


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _packed(field: int, values: Iterable[int]) -> bytes:
    return _message(field, b"".join(_varint(value) for value in values))
