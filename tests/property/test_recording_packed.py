# SPDX-License-Identifier: Apache-2.0
"""Packing loses nothing, and no bytes whatever make the reader fail in a way it should not."""

import tempfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from leakscope.errors import RecordingError
from leakscope.model.recordings import Recording
from leakscope.recording import load, packed
from leakscope.recording._columns import ROWS, ChunkError, encode, find_chunks
from leakscope.recording._source import Source
from unit.recording.recordings import assert_equal, built
from unit.recording.test_packed import START

CRC_AT = 24  # in a chunk's head
WORDS = st.sampled_from([0, 1, 255, 256, 1 << 16, 1 << 20, 1 << 31, 1 << 32, 1 << 63, 2**64 - 1])


@pytest.fixture(scope="module")
def place():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "f"


@pytest.fixture(scope="module")
def original(place) -> bytes:
    packed.write(built(blocks=400), place)
    return place.read_bytes()


@settings(deadline=None, max_examples=300)
@given(
    values=st.one_of(
        hnp.arrays(np.uint64, st.integers(0, 300)),
        hnp.arrays(np.uint64, st.integers(0, 300), elements=WORDS),
        hnp.arrays(np.int64, st.integers(0, 300)),
        hnp.arrays(np.uint8, st.integers(0, 300)),
        hnp.arrays(np.uint64, st.integers(0, 300)).map(np.sort),
        hnp.arrays(np.uint16, st.integers(0, 300)).map(
            lambda a: a.astype(np.uint64) << np.uint64(7)
        ),
    )
)
def test_a_column_comes_back_as_it_was(place, values):
    place.write_bytes(encode(values))
    with Source(place) as source:
        (chunk,) = find_chunks(source, 0, source.size, len(values)) if len(values) else (None,)
        if chunk is not None:
            assert np.array_equal(chunk.decode(source).astype(values.dtype), values)
            assert source.size <= 8 * len(values) + 32


@settings(deadline=None, max_examples=200)
@given(
    values=hnp.arrays(np.uint64, st.integers(1, 100), elements=WORDS),
    head=st.binary(min_size=1, max_size=8),
    at=st.integers(0, CRC_AT - 1),
)
def test_a_chunk_of_any_head_is_decoded_or_refused(place, values, head, at):
    """Even when its checksum fits: a file may be made to hurt."""
    data = bytearray(encode(values))
    head = head[: CRC_AT - at]
    data[at : at + len(head)] = head
    stored = data[CRC_AT + 4 :]
    crc = zlib.crc32(stored, zlib.crc32(data[:CRC_AT]))
    place.write_bytes(data[:CRC_AT] + crc.to_bytes(4, "little") + stored)
    with Source(place) as source:
        try:
            for chunk in find_chunks(source, 0, source.size, len(values)):
                assert len(chunk.decode(source)) == len(values) <= ROWS
                event("decoded")
        except ChunkError as error:
            event(str(error))


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_any_recording_comes_back(place, data):
    recording = built(
        blocks=data.draw(st.integers(0, 50)),
        sites=data.draw(st.integers(1, 8)),
        nodes=data.draw(st.integers(1, 8)),
        rows=data.draw(st.integers(0, 4)),
    )

    def fill(array, *names):
        for name in names:
            array[name] = data.draw(hnp.arrays(array.dtype[name], array.shape))

    fill(recording.nodes, "flags", "offset")
    fill(recording.sites, *recording.sites.dtype.names[2:])
    fill(recording.blocks, "address", "size", "birth_ns")
    fill(recording.ranges, "start", "length", "birth_ns")
    recording.deaths[:] = data.draw(hnp.arrays(np.uint64, recording.deaths.shape))
    recording.timeline.site_counts[:] = data.draw(
        hnp.arrays(np.uint32, recording.timeline.site_counts.shape)
    )
    packed.write(recording, place)
    assert_equal(recording, load(place))


def load_or_refuse(place: Path) -> None:
    sentence = ""
    tracemalloc.start()
    try:
        assert isinstance(load(place), Recording)
    except RecordingError as error:
        sentence = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(sentence) < 1000
    assert "\n" not in sentence
    assert peak < 64 << 20


@settings(deadline=2000, max_examples=300)
@given(
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8))),
    keep=st.integers(0, 1 << 20),
    truncate=st.booleans(),
)
def test_changed_and_truncated_files_are_read_or_refused(place, original, changes, keep, truncate):
    data = bytearray(original)
    for at, new in changes:
        data[at % len(data) : at % len(data) + len(new)] = new
    place.write_bytes(data[: keep % len(data)] if truncate else data)
    load_or_refuse(place)


@settings(deadline=2000, max_examples=300)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=4)), min_size=1
    )
)
def test_changed_directories_with_right_checksums_are_read_or_refused(place, original, changes):
    """What a checksum does not catch, because whoever made the file computed it anew."""
    _, version, _, offset, stored, *_ = START.unpack_from(original)
    plain = bytearray(zlib.decompress(original[offset : offset + stored]))
    for at, new in changes:
        plain[at % len(plain) : at % len(plain) + len(new)] = new
    directory = zlib.compress(bytes(plain))
    crc, end = zlib.crc32(directory), offset + len(directory)
    start = START.pack(packed.MAGIC, version, crc, offset, len(directory), len(plain), end)
    place.write_bytes(start + original[START.size : offset] + directory)
    load_or_refuse(place)


@settings(deadline=2000, max_examples=200)
@given(content=st.binary(max_size=200), signed=st.booleans())
def test_random_bytes_are_refused(place, content, signed):
    place.write_bytes(packed.MAGIC + content if signed else content)
    with pytest.raises(RecordingError):
        load(place)
