# SPDX-License-Identifier: Apache-2.0
"""Chunks are as small as they can be, and those that lie are refused even when signed."""

import struct
import zlib

import numpy as np
import pytest

from leakscope.recording._columns import ROWS, ChunkError, encode, find_chunks
from leakscope.recording._source import Source

HEAD = struct.Struct("<IIQIBBH")


def chunk(rows, width, data, *, exceptions=0, base=0, shift=0, flags=0) -> bytes:
    head = HEAD.pack(rows, exceptions, base, len(data), width, shift, flags)
    return head + zlib.crc32(data, zlib.crc32(head)).to_bytes(4, "little") + data


@pytest.fixture
def decode(tmp_path):
    def run(stored: bytes, rows: int, end: int | None = None):
        (tmp_path / "f").write_bytes(stored)
        with Source(tmp_path / "f") as source:
            chunks = find_chunks(source, 0, len(stored) if end is None else end, rows)
            return [value for each in chunks for value in each.decode(source).tolist()]

    return run


def test_the_documented_encoding_means_what_the_documentation_says(decode):
    plain = bytes([1, 2, 0, 3]) + struct.pack("<IQ", 2, 1000)
    stored = chunk(4, 1, plain, exceptions=1, base=7, shift=4)
    assert decode(stored, 4) == [7 + 16, 7 + 32, 7 + 16000, 7 + 48]
    assert decode(chunk(4, 1, plain, exceptions=1, base=7, shift=4, flags=1), 4) == [
        7 + 16,
        7 + 48,
        7 + 16048,
        7 + 16096,
    ]
    ones = zlib.compress(b"\1" * 100)
    assert decode(chunk(100, 1, ones, base=5, flags=3), 100) == list(range(6, 106))
    assert decode(chunk(3, 0, b"", base=2**64 - 1), 3) == [2**64 - 1] * 3


@pytest.mark.parametrize(
    ("values", "most"),
    [
        (np.zeros(1000), 28),
        (np.full(1000, 2**63), 28),
        (np.arange(1000) * 4096 + 2**46, 70),  # even steps
        (np.random.default_rng(1).integers(0, 200, 1000) + 2**40, 28 + 1000),
        (np.random.default_rng(1).integers(0, 200, 1000) << 20, 28 + 1000),
        (np.where(np.arange(1000) == 7, 2**50, np.arange(1000) % 251), 28 + 1012),
    ],
)
def test_what_is_regular_takes_little(values, most, decode):
    stored = encode(values.astype(np.uint64))
    assert len(stored) <= most
    assert decode(stored, len(values)) == values.astype(np.uint64).tolist()


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        (chunk(4, 1, b"12345"), "not encoded in a way"),
        (chunk(4, 1, b"123"), "not as long as it says"),
        (chunk(4, 3, b"123"), "not encoded in a way"),
        (chunk(5, 1, b"12345"), "not encoded in a way"),
        (chunk(4, 1, b"1234", shift=64), "not encoded in a way"),
        (chunk(4, 1, b"1234", flags=4), "not encoded in a way"),
        (chunk(4, 1, b"1234", exceptions=5), "not encoded in a way"),
        (chunk(4, 1, b"1234" + struct.pack("<IQ", 4, 1), exceptions=1), "outside its chunk"),
        (chunk(4, 1, b"1234") + b"x", "more of it"),
        (chunk(4, 1, b"1234")[:-1], "not encoded in a way"),
        (chunk(4, 1, b"1234")[:20], "ends too early"),
        (chunk(4, 1, b"1234")[:-1] + b"5", "checksum"),
        (chunk(4, 8, zlib.compress(bytes(40)), flags=2), "does not end"),
        (chunk(4, 8, zlib.compress(bytes(1 << 20))[:32], flags=2), "does not end"),
        (chunk(4, 8, zlib.compress(bytes(32))[:-1], flags=2), "does not end"),
        (chunk(4, 8, zlib.compress(bytes(31)), flags=2), "not as long as it says"),
        (chunk(4, 8, b"no zlib stream", flags=2), "cannot be inflated"),
    ],
)
def test_a_chunk_that_lies_is_refused(stored, sentence, decode):
    with pytest.raises(ChunkError, match=sentence):
        decode(stored, 4)


def test_a_chunk_that_reaches_into_the_next_column_is_refused(decode):
    with pytest.raises(ChunkError, match="not encoded in a way"):
        decode(chunk(4, 1, b"1234"), 4, end=30)


def test_a_column_of_many_chunks_needs_all_of_them(decode):
    stored = encode(np.zeros(ROWS, np.uint64)) + encode(np.ones(5, np.uint64))
    assert decode(stored, ROWS + 5) == [0] * ROWS + [1] * 5
    with pytest.raises(ChunkError, match="ends too early"):
        decode(stored[:28], ROWS + 5)
    assert decode(b"", 0) == []
