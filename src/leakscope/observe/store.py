# SPDX-License-Identifier: Apache-2.0
"""The recording of a watch: an append-only file of passes that survives a crash at any moment.

The file is the eight bytes "LKSGAUGE", then frames: length of the payload (u32, little-endian),
CRC-32 of the payload (u32), payload. Payloads are zlib streams. The first one is a JSON object
about the machine; each later one is a pass:

    time since the pass before, in ms · suspended time since then, in ms · length and text of the
    series that are new or described anew, one JSON array a line · numbers of the series that
    ended, ascending · (number, change of value) of those that changed, ascending

as LEB128 integers, signed ones zigzag-coded. Bytes are kept as whole KiB. What did not change
takes no room. `store_reader` reads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakscope.errors import RecordingError
from leakscope.observe.measures import Measure

if TYPE_CHECKING:
    from leakscope.model.series import Subject
    from leakscope.observe.measures import Pass

__all__ = ["FRAME", "MAGIC", "MAX_FRAME", "MAX_HELD", "MAX_PAYLOAD", "MAX_ROW", "VERSION"]
__all__ += ["Gauge", "StoreWriter", "is_store"]

MAGIC = b"LKSGAUGE"
VERSION = 2
FRAME = struct.Struct("<II")
# What a reader takes is what the writer keeps to: hundreds of thousands of gauges.
MAX_FRAME = 32 << 20
MAX_PAYLOAD = 64 << 20
MAX_ROW = 128 << 10  # three paths of 4,096 bytes, each of them six characters in JSON
MAX_HELD = 128 << 20  # of all gauges alive at one moment, by `Gauge.weight`
_GAUGE_BYTES = 512
_SYNC_PASSES = 6


@dataclass(slots=True)
class Gauge:
    """One series as the last pass left it; `value` is in KiB where the unit is bytes."""

    subject: Subject
    metric: str
    unit: str
    sparse: bool
    value: int = 0
    alive: int = 0  # number of the last pass that had it
    measured: Measure | None = None  # with this value

    def measure(self) -> Measure:
        """Return what was read; the same object as long as `value` stays and `measured` is set."""
        if self.measured is None:
            value = self.value * self.scale
            self.measured = Measure(self.subject, self.metric, self.unit, value, self.sparse)
        return self.measured

    @property
    def scale(self) -> int:
        """How many of its unit one of `value` stands for."""
        return 1024 if self.unit == "bytes" else 1

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        s = self.subject
        return _GAUGE_BYTES + len(s.key) + len(s.name) + len(s.exe or "") + len(s.home or "")


class StoreWriter:
    """Appends passes to a new file that only its owner may read."""

    def __init__(self, path: str | os.PathLike[str], about: dict[str, Any]) -> None:
        self.path = os.fspath(path)
        self._gauges: dict[tuple[str, str, str], tuple[int, Gauge]] = {}
        self._live: dict[int, Gauge] = {}
        self._held = 0
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
        try:
            self._put(MAGIC)
            self._frame(json.dumps({"version": VERSION, **about}).encode())
        except RecordingError as error:  # nothing is recorded: leave nothing that is in the way
            self.close()
            Path(self.path).unlink(missing_ok=True)
            raise RecordingError(str(error), hint="Name a file where there is room.") from error

    def add(self, one: Pass, *, asleep_ns: int = 0) -> None:
        """Append one pass. Raises `RecordingError` when it cannot be written, as on a full disk.

        What was written before stays readable.
        """
        self._passes += 1
        time_ms, asleep_ms = one.time_ns // 1_000_000, asleep_ns // 1_000_000
        rows: list[str] = []
        changes: list[tuple[int, int]] = []
        for measure in one.measures:
            key = (measure.subject.kind, measure.subject.key, measure.metric)
            found = self._gauges.get(key)
            if found is None:
                number, self._count = self._count, self._count + 1
                gauge = Gauge(measure.subject, measure.metric, measure.unit, measure.sparse)
                self._gauges[key] = number, gauge
                self._live[number] = gauge
                self._held += gauge.weight
                rows.append(_row(number, gauge))
            else:
                number, gauge = found
                if measure.subject is not gauge.subject and measure.subject != gauge.subject:
                    self._held -= gauge.weight
                    gauge.subject = measure.subject  # its limit or its name is another now
                    self._held += gauge.weight
                    rows.append(_row(number, gauge))
            gauge.alive = self._passes
            value = measure.value // gauge.scale
            if value != gauge.value or gauge.sparse:
                changes.append((number, value - gauge.value))
                gauge.value = value
        ended = self._ended(one)
        if self._held > MAX_HELD:
            raise self._failed("there are more gauges than a recording holds")
        body = bytearray()
        _signed(body, time_ms - self._time_ms)
        _signed(body, asleep_ms - self._asleep_ms)
        described = "\n".join(rows).encode()
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
                raise self._failed(error.strerror) from error

    def _ended(self, one: Pass) -> list[int]:
        """Forget the gauges that this pass has no more, and return their numbers.

        A sparse one is over when its subject has no gauge at all any more.
        """
        present = {(m.subject.kind, m.subject.key) for m in one.measures}
        ended = [
            number
            for number, gauge in self._live.items()
            if gauge.alive != self._passes
            and not (gauge.sparse and (gauge.subject.kind, gauge.subject.key) in present)
        ]
        for number in ended:
            gauge = self._live.pop(number)
            self._held -= gauge.weight
            del self._gauges[gauge.subject.kind, gauge.subject.key, gauge.metric]
        return ended

    def close(self) -> None:
        """Close the file; harmless when closed already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _failed(self, why: str | None) -> RecordingError:
        return RecordingError(
            f"cannot write {self.path}: {why}",
            hint="What was recorded so far can be read: leakscope report FILE.",
        )

    def _frame(self, payload: bytes) -> None:
        data = zlib.compress(payload, 6)
        if len(payload) > MAX_PAYLOAD or len(data) > MAX_FRAME:
            raise self._failed("a pass is larger than a recording holds")
        self._put(FRAME.pack(len(data), zlib.crc32(data)) + data)

    def _put(self, data: bytes) -> None:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise self._failed(error.strerror) from error
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


def _row(number: int, gauge: Gauge) -> str:
    s = gauge.subject
    who = [s.kind, s.key, s.name, s.pid, s.exe, s.started_ns, s.limit]
    row = [number, *who, gauge.metric, gauge.unit, gauge.sparse]
    if s.home is not None:
        row.append(s.home)
    return json.dumps(row, separators=(",", ":"))


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
