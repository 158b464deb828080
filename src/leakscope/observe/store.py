# SPDX-License-Identifier: Apache-2.0
"""The recording of a watch: an append-only file of passes that survives a crash at any moment.

The file is the eight bytes "LKSGAUGE", then frames: length of the payload (u32, little-endian),
CRC-32 of the payload (u32), payload. Payloads are zlib streams. The first one is a JSON object
about the machine; each later one is a pass:

    time since the pass before, in ms · suspended time since then, in ms · series that are new,
    as JSON · numbers of the series that ended · (number, change of value) of those that changed

as LEB128 integers, signed ones zigzag-coded. Bytes are kept as whole KiB. What did not change
takes no room. A frame that is cut off at the end of the file is what a crash leaves and is
ignored; damage anywhere else raises `RecordingError`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from leakscope.errors import RecordingError
from leakscope.model.series import Subject
from leakscope.observe.measures import Measure, Pass

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["MAGIC", "StoreReader", "StoreWriter", "is_store"]

MAGIC = b"LKSGAUGE"
_VERSION = 1
_FRAME = struct.Struct("<II")
_MAX_FRAME = 32 << 20
_MAX_PAYLOAD = 128 << 20
_MAX_SERIES = 1 << 40
_MAX_GAUGES = 500_000  # alive at one moment
_MAX_STEP = 1 << 62
_WORD = re.compile(r"[a-z_]{1,40}")
_SYNC_PASSES = 6


@dataclass(slots=True)
class _Gauge:
    subject: Subject
    metric: str
    unit: str
    sparse: bool
    value: int = 0
    alive: int = 0  # number of the last pass that had it

    @property
    def scale(self) -> int:
        return 1024 if self.unit == "bytes" else 1


class StoreWriter:
    """Appends passes to a new file that only its owner may read."""

    def __init__(self, path: str | os.PathLike[str], about: dict[str, Any]) -> None:
        self.path = os.fspath(path)
        self._gauges: dict[tuple[str, str, str], tuple[int, _Gauge]] = {}
        self._live: dict[int, _Gauge] = {}
        self._count = 0
        self._passes = 0
        self._time_ms = 0
        self._asleep_ms = 0
        self._size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(self.path, flags, 0o600)
        except FileExistsError:
            raise RecordingError(
                f"{self.path} exists already", hint="Name a new file; nothing is overwritten."
            ) from None
        except OSError as error:
            raise RecordingError(f"cannot create {self.path}: {error.strerror}") from error
        self._put(MAGIC)
        self._frame(json.dumps({"version": _VERSION, **about}).encode())

    def add(self, one: Pass, *, asleep_ns: int = 0) -> None:
        """Append one pass. Raises `RecordingError` when it cannot be written, as on a full disk.

        What was written before stays readable.
        """
        self._passes += 1
        time_ms, asleep_ms = one.time_ns // 1_000_000, asleep_ns // 1_000_000
        new: list[list[Any]] = []
        changes: list[tuple[int, int]] = []
        for measure in one.measures:
            key = (measure.subject.kind, measure.subject.key, measure.metric)
            found = self._gauges.get(key)
            if found is None:
                number, self._count = self._count, self._count + 1
                gauge = _Gauge(measure.subject, measure.metric, measure.unit, measure.sparse)
                self._gauges[key] = number, gauge
                self._live[number] = gauge
                new.append([number, *_described(measure)])
            else:
                number, gauge = found
            gauge.alive = self._passes
            value = measure.value // gauge.scale
            if value != gauge.value or gauge.sparse:
                changes.append((number, value - gauge.value))
                gauge.value = value
        present = {(m.subject.kind, m.subject.key) for m in one.measures}
        ended = [
            number
            for number, gauge in self._live.items()
            if gauge.alive != self._passes
            and not (gauge.sparse and (gauge.subject.kind, gauge.subject.key) in present)
        ]
        for number in ended:
            gauge = self._live.pop(number)
            del self._gauges[gauge.subject.kind, gauge.subject.key, gauge.metric]
        body = bytearray()
        _signed(body, time_ms - self._time_ms)
        _signed(body, asleep_ms - self._asleep_ms)
        described = json.dumps(new, separators=(",", ":")).encode() if new else b""
        _unsigned(body, len(described))
        body += described
        _numbers(body, sorted(ended))
        changes.sort()
        _numbers(body, [number for number, _ in changes])
        for _, change in changes:
            _signed(body, change)
        self._time_ms, self._asleep_ms = time_ms, asleep_ms
        self._frame(bytes(body))
        if self._passes % _SYNC_PASSES == 0:
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                raise RecordingError(
                    f"cannot write {self.path}: {error.strerror}",
                    hint="What was recorded so far can be read: leakscope report FILE.",
                ) from error

    def close(self) -> None:
        """Close the file; harmless when closed already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _frame(self, payload: bytes) -> None:
        data = zlib.compress(payload, 6)
        self._put(_FRAME.pack(len(data), zlib.crc32(data)) + data)

    def _put(self, data: bytes) -> None:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise RecordingError(
                f"cannot write {self.path}: {error.strerror}",
                hint="What was recorded so far can be read: leakscope report FILE.",
            ) from error
        self._size += len(data)


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether the file is a recording of a watch."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.read(fd, len(MAGIC)) == MAGIC
    except OSError:
        return False
    finally:
        os.close(fd)


@dataclass(slots=True)
class StoreReader:
    """Reads a recording; `about` is what its first frame says of the machine."""

    path: Path
    about: dict[str, Any] = field(default_factory=dict)
    frames: int = 0
    truncated: bool = False
    began_ns: int = 0  # CLOCK_BOOTTIME of the first pass

    def __post_init__(self) -> None:
        first = next(self._payloads(), None)
        if first is None:
            raise RecordingError(f"{self.path} ends before it says what it is")
        try:
            about = json.loads(first)
        except (ValueError, RecursionError):
            raise self._damaged("its first frame is no JSON") from None
        if not isinstance(about, dict) or about.get("version") != _VERSION:
            raise RecordingError(
                f"{self.path} is of a version of the format that this leakscope does not know",
                hint="Read it with the version that wrote it.",
            )
        self.about = about
        self.frames = self._count_frames() - 1
        self.began_ns = next((one.time_ns for one, _ in self.passes()), 0)

    def passes(
        self, *, stride: int = 1, since_ns: int = 0, until_ns: int | None = None
    ) -> Iterator[tuple[Pass, int]]:
        """Yield (pass, suspended ns): every `stride`-th one between two times."""
        gauges: dict[int, _Gauge] = {}
        touched: set[int] = set()
        time_ms = asleep_ms = 0
        payloads = self._payloads()
        next(payloads)
        for index, payload in enumerate(payloads):
            try:
                step, asleep, changed = _apply(payload, gauges)
            except (ValueError, IndexError, KeyError, TypeError, RecursionError) as error:
                raise self._damaged(f"pass {index + 1} makes no sense ({error})") from error
            time_ms, asleep_ms = time_ms + step, asleep_ms + asleep
            if step < 0 or time_ms >= 1 << 43:  # 278 years after boot
                raise self._damaged(f"pass {index + 1} is out of order")
            touched.update(n for n in changed if gauges[n].sparse)
            now = time_ms * 1_000_000
            if index % stride or now < since_ns or (until_ns is not None and now > until_ns):
                continue
            measures = tuple(
                Measure(g.subject, g.metric, g.unit, g.value * g.scale, g.sparse)
                for number, g in gauges.items()
                if not g.sparse or number in touched
            )
            touched.clear()
            processes = len({m.subject.key for m in measures if m.subject.kind == "process"})
            yield Pass(now, measures, processes, 0.0, 0.0), asleep_ms * 1_000_000

    def _damaged(self, what: str) -> RecordingError:
        return RecordingError(
            f"{self.path} is damaged: {what}", hint="Watch again with --record and a new file."
        )

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise RecordingError(f"cannot read {self.path}: {error.strerror}") from error

    def _count_frames(self) -> int:
        fd, count = self._open(), 0
        try:
            size, at = os.fstat(fd).st_size, len(MAGIC)
            while at + _FRAME.size <= size:
                length, _ = _FRAME.unpack(os.pread(fd, _FRAME.size, at))
                if not length:
                    break
                at += _FRAME.size + length
                if at > size:
                    break
                count += 1
            self.truncated = at != size
        finally:
            os.close(fd)
        return count

    def _payloads(self) -> Iterator[bytes]:
        fd = self._open()
        try:
            size = os.fstat(fd).st_size
            if os.pread(fd, len(MAGIC), 0) != MAGIC:
                raise RecordingError(f"{self.path} is no recording of leakscope watch")
            at = len(MAGIC)
            while at + _FRAME.size <= size:
                length, check = _FRAME.unpack(os.pread(fd, _FRAME.size, at))
                if not length:
                    break  # no frame is empty: blocks that were never written before a power cut
                end = at + _FRAME.size + length
                if end > size:
                    break  # cut off by a crash
                if length > _MAX_FRAME:
                    raise self._damaged(f"a frame claims {length:,} bytes")
                data = os.pread(fd, length, at + _FRAME.size)
                if len(data) != length or zlib.crc32(data) != check:
                    if end == size:
                        break  # written, but not to the disk, before the crash
                    raise self._damaged(f"the frame at byte {at:,} has a wrong checksum")
                yield self._unpacked(data, at)
                at = end
            self.truncated = at != size
        finally:
            os.close(fd)

    def _unpacked(self, data: bytes, at: int) -> bytes:
        stream = zlib.decompressobj()
        try:
            payload = stream.decompress(data, _MAX_PAYLOAD)
        except zlib.error:
            raise self._damaged(f"the frame at byte {at:,} cannot be unpacked") from None
        if not stream.eof:
            raise self._damaged(f"the frame at byte {at:,} unpacks to too much")
        return payload


def _described(measure: Measure) -> list[Any]:
    s = measure.subject
    who = [s.kind, s.key, s.name, s.pid, s.exe, s.started_ns, s.limit]
    return [*who, measure.metric, measure.unit, measure.sparse]


def _gauge(row: list[Any]) -> _Gauge:
    kind, key, name, pid, exe, started, limit, metric, unit, sparse = row
    texts = (kind, key, name, metric, "" if exe is None else exe)
    numbers = (0 if pid is None else pid, 0 if started is None else started)
    if not all(isinstance(t, str) for t in texts) or unit not in {"bytes", "count"}:
        raise ValueError("a gauge without a name")
    if not _WORD.fullmatch(kind) or not _WORD.fullmatch(metric):
        raise ValueError("a gauge of an impossible kind")
    if not all(type(n) is int and 0 <= n < _MAX_STEP for n in numbers):
        raise ValueError("a gauge with a wrong number")
    if limit is not None and (type(limit) not in {int, float} or not 0 <= limit < _MAX_STEP):
        raise ValueError("a gauge with a wrong limit")
    return _Gauge(Subject(kind, key, name, pid, exe, started, limit), metric, unit, bool(sparse))


def _apply(payload: bytes, gauges: dict[int, _Gauge]) -> tuple[int, int, list[int]]:
    """Bring the gauges up to date; return ms passed, ms suspended and what changed."""
    at = 0

    def unsigned() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = payload[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def signed() -> int:
        value = unsigned()
        return value >> 1 ^ -(value & 1)

    def numbers() -> list[int]:
        count, last, out = unsigned(), 0, []
        if count > len(payload) - at:
            raise ValueError("a list longer than its frame")
        for _ in range(count):
            last += unsigned()
            out.append(last)
        return out

    step, asleep, described = signed(), signed(), unsigned()
    if described:
        if described > len(payload) - at:
            raise ValueError("a text longer than its frame")
        for number, *row in json.loads(payload[at : at + described]):
            if not isinstance(number, int) or not 0 <= number < _MAX_SERIES:
                raise ValueError("a series with an impossible number")
            gauges[number] = _gauge(row)
            if len(gauges) > _MAX_GAUGES:
                raise ValueError(f"more than {_MAX_GAUGES:,} gauges at once")
        at += described
    for number in numbers():
        del gauges[number]
    changed = numbers()
    for number in changed:
        gauge = gauges[number]
        gauge.value += signed()
        if not 0 <= gauge.value < _MAX_STEP:
            raise ValueError("an impossible value")
    return step, asleep, changed


def _unsigned(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _signed(out: bytearray, value: int) -> None:
    _unsigned(out, value << 1 if value >= 0 else (-value << 1) - 1)


def _numbers(out: bytearray, ascending: list[int]) -> None:
    _unsigned(out, len(ascending))
    last = 0
    for number in ascending:
        _unsigned(out, number - last)
        last = number
