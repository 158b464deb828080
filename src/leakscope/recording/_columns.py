# SPDX-License-Identifier: Apache-2.0
"""Columns of integers in a packed recording: chunks that each know how they are encoded.

A chunk holds up to `ROWS` values. Ascending values are stored as differences; what all values
share at their low end is shifted out; the rest takes 0, 1, 2, 4 or 8 bytes, whichever is
smallest with the few that do not fit kept aside (as in "Super-Scalar RAM-CPU Cache
Compression", Zukowski et al., 2006). deflate goes over the result where it gains something. A
chunk is decoded on its own, so columns are read by several threads, and no chunk can make the
reader allocate more than `ROWS` values.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.recording._source import Source

    Words = npt.NDArray[np.uint64]

__all__ = ["ROWS", "Chunk", "ChunkError", "encode", "find_chunks"]

ROWS = 1 << 17
"""Values in each chunk of a column but the last."""

# rows, exceptions, base, stored bytes, width, shift, flags, CRC-32 of all this and of the data.
_HEAD = struct.Struct("<IIQIBBHI")
_CRC_AT = _HEAD.size - 4
_DELTA, _DEFLATED = 1, 2
_EXCEPTION_BYTES = 12  # index and value
_WIDTHS: dict[int, np.dtype[np.unsignedinteger[Any]]] = {
    1: np.dtype("<u1"),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    8: np.dtype("<u8"),
}


class ChunkError(ValueError):
    """A chunk makes no sense; the text tells why."""


def encode(values: npt.NDArray[np.integer]) -> bytes:
    """Return up to `ROWS` integers of any type as one chunk; negative ones wrap to 64 bits."""
    words = values.astype(np.uint64)
    flags, base = 0, np.uint64(0)
    if len(words) > 1 and bool(np.all(words[1:] >= words[:-1])):
        flags, base = _DELTA, words[0]
        words[1:] -= words[:-1].copy()
        words[0] = 0
    elif len(words):
        base = words.min()
        words -= base
    bits = int(np.bitwise_or.reduce(words))
    shift = (bits & -bits).bit_length() - 1 if bits else 0
    words >>= np.uint64(shift)

    costs = {8: 8 * len(words)}
    for width in (0, 1, 2, 4):
        outside = int(np.count_nonzero(words >> np.uint64(8 * width)))
        costs[width] = width * len(words) + _EXCEPTION_BYTES * outside
    width = min(costs, key=lambda w: (costs[w], w))
    outside_at = np.flatnonzero(words >> np.uint64(8 * width)) if width < 8 else np.empty(0, int)
    data = words.astype(_WIDTHS[width]).tobytes() if width else b""
    data += outside_at.astype("<u4").tobytes() + words[outside_at].astype("<u8").tobytes()
    deflated = zlib.compress(data, 1)
    if len(deflated) < len(data) * 9 // 10:
        data = deflated
        flags |= _DEFLATED
    head = _HEAD.pack(len(words), len(outside_at), int(base), len(data), width, shift, flags, 0)[
        :_CRC_AT
    ]
    return head + zlib.crc32(data, zlib.crc32(head)).to_bytes(4, "little") + data


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where one chunk is and how it is encoded; checked, so that `decode` is bounded."""

    head: bytes
    offset: int  # of the data behind the head
    rows: int
    exceptions: int
    base: int
    stored: int
    width: int
    shift: int
    flags: int

    @property
    def end(self) -> int:
        """Where the next chunk starts."""
        return self.offset + self.stored

    def decode(self, source: Source) -> Words:
        """Return the values as 64-bit words. Raises `ChunkError` when they cannot be had."""
        data = source.read(self.offset, self.stored)
        crc = int.from_bytes(self.head[_CRC_AT:], "little")
        if len(data) != self.stored or zlib.crc32(data, zlib.crc32(self.head[:_CRC_AT])) != crc:
            raise ChunkError("a checksum is wrong")
        plain = self.rows * self.width
        whole = plain + self.exceptions * _EXCEPTION_BYTES
        if self.flags & _DEFLATED:
            inflater = zlib.decompressobj()
            try:
                data = inflater.decompress(data, whole + 1)
            except zlib.error as error:
                raise ChunkError(f"its data cannot be inflated ({error})") from error
            if not inflater.eof:
                raise ChunkError("its data does not end where it says")
        if len(data) != whole:
            raise ChunkError("its data is not as long as it says")
        if self.width:
            words = np.frombuffer(data, _WIDTHS[self.width], self.rows).astype(np.uint64)
        else:
            words = np.zeros(self.rows, np.uint64)
        if self.exceptions:
            at = np.frombuffer(data, "<u4", self.exceptions, plain)
            if int(at.max()) >= self.rows:
                raise ChunkError("a value lies outside its chunk")
            words[at] = np.frombuffer(data, "<u8", self.exceptions, plain + 4 * self.exceptions)
        words <<= np.uint64(self.shift)
        if self.flags & _DELTA:
            np.cumsum(words, out=words)
        words += np.uint64(self.base)
        return words


def find_chunks(source: Source, offset: int, end: int, rows: int) -> list[Chunk]:
    """Return the chunks of a column of `rows` values that fills [offset, end) of the file.

    Raises `ChunkError` when it does not.
    """
    chunks = []
    for first in range(0, rows, ROWS):
        head = source.read(offset, _HEAD.size)
        if len(head) != _HEAD.size or offset + _HEAD.size > end:
            raise ChunkError("it ends too early")
        count, exceptions, base, stored, width, shift, flags, _ = _HEAD.unpack(head)
        chunk = Chunk(
            head, offset + _HEAD.size, count, exceptions, base, stored, width, shift, flags
        )
        if (
            count != min(ROWS, rows - first)
            or exceptions > count
            or width not in (0, *_WIDTHS)
            or shift > 63
            or flags & ~(_DELTA | _DEFLATED)
            or stored > count * width + exceptions * _EXCEPTION_BYTES
            or chunk.end > end
        ):
            raise ChunkError("it is not encoded in a way that leakscope knows")
        chunks.append(chunk)
        offset = chunk.end
    if offset != end:
        raise ChunkError("there is more of it than it says")
    return chunks
