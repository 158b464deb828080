# SPDX-License-Identifier: Apache-2.0
"""Reading the recording of a watch, whoever wrote it: bounded, and as far as it is whole."""

from __future__ import annotations

import json
import os
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from leakscope.errors import RecordingError
from leakscope.model.series import Subject
from leakscope.observe.measures import Pass
from leakscope.observe.store import (
    FRAME,
    MAGIC,
    MAX_FRAME,
    MAX_HELD,
    MAX_PAYLOAD,
    MAX_ROW,
    VERSION,
    Gauge,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["StoreReader"]

_MAX_ABOUT = 64 << 10
_MAX_SERIES = 1 << 40
_MAX_STEP = 1 << 62
_MAX_TIME_MS = 1 << 43  # 278 years after boot
_WORD = re.compile(r"[a-z_]{1,40}")
_STREAM = b"\x78\x9c"  # how every frame of the writer begins
_SEARCHED = 64 << 20
_TRIED = 256 << 20
# A file may not make more of itself than this many bytes for each of its own, beyond a few
# megabytes: what its frames hold becomes objects many times as large.
_RATIO = 64
_ANYWHERE = 4 << 20


@dataclass(slots=True)
class StoreReader:
    """Reads a recording; `about` is what its first frame says of the machine.

    Raises `RecordingError` when the file is no recording or cannot be read. What a crash leaves
    at the end of the file, a frame that is cut off or was never written, is no error.
    """

    path: Path
    about: dict[str, Any] = field(default_factory=dict)
    frames: int = 0
    truncated: bool = False
    began_ns: int = 0  # CLOCK_BOOTTIME of the first pass
    gauges: int = 0  # in the first pass

    def __post_init__(self) -> None:
        first = next(self._payloads(), None)
        if first is None:
            raise RecordingError(f"{self.path} ends before it says what it is")
        try:
            about = json.loads(first) if len(first) <= _MAX_ABOUT else None
        except (ValueError, RecursionError):
            raise self._damaged("its first frame is no JSON") from None
        if not isinstance(about, dict) or about.get("version") != VERSION:
            raise RecordingError(
                f"{self.path} is of a version of the format that this leakscope does not know",
                hint="Read it with the version that wrote it.",
            )
        self.about = about
        self.frames = self._count_frames() - 1
        for one, _ in self.passes():
            self.began_ns, self.gauges = one.time_ns, len(one.measures)
            break

    def passes(
        self, *, stride: int = 1, since_ns: int = 0, until_ns: int | None = None
    ) -> Iterator[tuple[Pass, int]]:
        """Yield (pass, suspended ns): every `stride`-th one between two times.

        Raises `RecordingError` at the first damaged pass, after all before it were yielded.
        """
        state = _State()
        touched: set[int] = set()
        time_ms = asleep_ms = 0
        payloads = self._payloads()
        next(payloads)
        for index, payload in enumerate(payloads):
            try:
                step, asleep, changed = state.apply(payload)
            except (ValueError, IndexError, KeyError, TypeError, RecursionError) as error:
                why = "a series that nothing described" if type(error) is KeyError else error
                raise self._damaged(f"pass {index + 1} makes no sense ({why})") from error
            time_ms, asleep_ms = time_ms + step, asleep_ms + asleep
            if step < 0 or time_ms >= _MAX_TIME_MS:
                raise self._damaged(f"pass {index + 1} is out of order")
            touched.update(n for n in changed if state.gauges[n].sparse)
            now = time_ms * 1_000_000
            if index % stride or now < since_ns or (until_ns is not None and now > until_ns):
                continue
            measures = tuple(
                gauge.measure()
                for number, gauge in state.gauges.items()
                if not gauge.sparse or number in touched
            )
            touched.clear()
            processes = len({m.subject.key for m in measures if m.subject.kind == "process"})
            yield Pass(now, measures, processes, 0.0, 0.0), asleep_ms * 1_000_000

    def _damaged(self, what: str) -> RecordingError:
        return RecordingError(
            f"{self.path} is damaged: {what}",
            hint="What comes later cannot be read: each pass holds only what changed.",
        )

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise RecordingError(f"cannot read {self.path}: {error.strerror}") from error

    def _count_frames(self) -> int:
        """Count without reading them."""
        fd, count = self._open(), 0
        try:
            size, at = os.fstat(fd).st_size, len(MAGIC)
            while (length := _length(fd, at, size)) is not None:
                at += FRAME.size + length
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
            at, unpacked = len(MAGIC), 0
            while (data := _frame(fd, at, size)) is not None:
                payload = self._unpacked(data, at)
                at += FRAME.size + len(data)
                unpacked += len(payload)
                if unpacked > _RATIO * at + _ANYWHERE:
                    raise self._damaged(f"its first {at:,} bytes unpack to {unpacked:,}")
                yield payload
            self.truncated = at != size
            if self.truncated and _is_whole_after(fd, at, size):
                raise self._damaged(f"the frame at byte {at:,} is broken")
        except OSError as error:
            raise RecordingError(f"cannot read {self.path}: {error.strerror}") from error
        finally:
            os.close(fd)

    def _unpacked(self, data: bytes, at: int) -> bytes:
        stream = zlib.decompressobj()
        try:
            payload = stream.decompress(data, MAX_PAYLOAD)
        except zlib.error:
            raise self._damaged(f"the frame at byte {at:,} cannot be unpacked") from None
        if not stream.eof:
            raise self._damaged(f"the frame at byte {at:,} unpacks to too much")
        return payload


def _length(fd: int, at: int, size: int) -> int | None:
    """Return the length of the payload of the frame at `at`; None where no frame can be."""
    header = os.pread(fd, FRAME.size, at)
    if len(header) < FRAME.size:
        return None
    length = int(FRAME.unpack(header)[0])
    # No frame is empty: those are blocks that were never written before a power cut.
    return length if 0 < length <= min(MAX_FRAME, size - at - FRAME.size) else None


def _frame(fd: int, at: int, size: int) -> bytes | None:
    """Return the payload of the frame at `at`, packed; None when it is not whole."""
    length = _length(fd, at, size)
    if length is None:
        return None
    data = os.pread(fd, FRAME.size + length, at)
    check = FRAME.unpack_from(data)[1]
    payload = data[FRAME.size :]
    return payload if len(payload) == length and zlib.crc32(payload) == check else None


def _is_whole_after(fd: int, at: int, size: int) -> bool:
    """Whether there is a whole frame behind the broken one at `at`: then no crash cut it off."""
    data = os.pread(fd, min(_SEARCHED, size - at), at)
    left, hit = _TRIED, data.find(_STREAM, FRAME.size + 1)
    while hit >= 0 and left > 0:
        place = at + hit - FRAME.size
        left -= _length(fd, place, size) or 0
        if _frame(fd, place, size) is not None:
            return True
        hit = data.find(_STREAM, hit + 1)
    return False


@dataclass(slots=True)
class _State:
    """All gauges as the passes so far left them."""

    gauges: dict[int, Gauge] = field(default_factory=dict)
    held: int = 0

    def apply(self, payload: bytes) -> tuple[int, int, list[int]]:
        """Bring the gauges up to date; return ms passed, ms suspended and what changed."""
        cursor = _Cursor(payload)
        step, asleep = cursor.signed(), cursor.signed()
        for row in cursor.rows():
            self._describe(*row)
        for number in cursor.ascending(len(self.gauges)):
            self.held -= self.gauges.pop(number).weight
        changed = cursor.ascending(len(self.gauges))
        for number in changed:
            gauge = self.gauges[number]
            gauge.value += cursor.signed()
            gauge.measured = None
            if not 0 <= gauge.value < _MAX_STEP:
                raise ValueError("an impossible value")
        return step, asleep, changed

    def _describe(self, number: object, *row: Any) -> None:
        """Take in a new gauge, or one whose limit or name is another now."""
        if type(number) is not int or not 0 <= number < _MAX_SERIES:
            raise ValueError("a series with an impossible number")
        gauge, before = _gauge(*row), self.gauges.get(number)
        if before is not None:
            if _identity(gauge) != _identity(before):
                raise ValueError("a number that belongs to another series")
            self.held -= before.weight
            gauge.value = before.value
        self.gauges[number] = gauge
        self.held += gauge.weight
        if self.held > MAX_HELD:
            raise ValueError("more gauges than a recording holds")


def _identity(gauge: Gauge) -> tuple[str, str, str, str]:
    return gauge.subject.kind, gauge.subject.key, gauge.metric, gauge.unit


def _gauge(
    kind: Any,
    key: Any,
    name: Any,
    pid: Any,
    exe: Any,
    started: Any,
    limit: Any,
    metric: Any,
    unit: Any,
    sparse: Any,
    home: Any = None,
) -> Gauge:
    texts = (kind, key, name, metric, *(each for each in (exe, home) if each is not None))
    numbers = (0 if pid is None else pid, 0 if started is None else started)
    if not all(isinstance(t, str) for t in texts) or unit not in {"bytes", "count"}:
        raise ValueError("a gauge without a name")
    if not _WORD.fullmatch(kind) or not _WORD.fullmatch(metric):
        raise ValueError("a gauge of an impossible kind")
    if not all(type(n) is int and 0 <= n < _MAX_STEP for n in numbers):
        raise ValueError("a gauge with a wrong number")
    if limit is not None and (type(limit) not in {int, float} or not 0 <= limit < _MAX_STEP):
        raise ValueError("a gauge with a wrong limit")
    subject = Subject(kind, key, name, pid, exe, started, limit, home=home)
    return Gauge(subject, metric, unit, bool(sparse))


class _Cursor:
    """Takes one value after the other out of a payload."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def unsigned(self) -> int:
        data, at = self._data, self._at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                self._at = at
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def signed(self) -> int:
        value = self.unsigned()
        return value >> 1 ^ -(value & 1)

    def ascending(self, most: int) -> list[int]:
        """Return a list of different numbers, of which there are `most`."""
        count, last, out = self.unsigned(), 0, list[int]()
        if count > most:
            raise ValueError("a list of more series than there are")
        for place in range(count):
            step = self.unsigned()
            if place and not step:
                raise ValueError("a series named twice")
            last += step
            out.append(last)
        return out

    def rows(self) -> Iterator[list[Any]]:
        """Yield the lines of JSON arrays that come next."""
        length = self.unsigned()
        at, end = self._at, self._at + length
        if end > len(self._data):
            raise ValueError("a text longer than its frame")
        self._at = end
        while at < end:
            stop = self._data.find(b"\n", at, end)
            stop = end if stop < 0 else stop
            if stop - at > MAX_ROW:
                raise ValueError("a gauge with an endless name")
            row = json.loads(self._data[at:stop])
            if not isinstance(row, list):
                raise TypeError("a gauge that is no list")
            yield row
            at = stop + 1
