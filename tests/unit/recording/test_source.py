# SPDX-License-Identifier: Apache-2.0
"""Reading stays inside the file, whatever length is asked for."""

import numpy as np

from leakscope.recording._source import Source

WORD = np.dtype("<u8")


def test_nothing_is_made_for_what_the_file_does_not_hold(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(bytes(range(100)))
    with Source(path) as source:
        assert len(source.array(WORD, 0, 1 << 60)) == 12
        assert len(source.array(WORD, 96, 1)) == 0
        assert len(source.array(WORD, 1 << 60, 1)) == 0
        assert source.read(90, 1 << 60) == bytes(range(90, 100))
        assert source.read(200, 5) == b""


def test_a_file_that_shrinks_meanwhile_ends_early(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(bytes(80))
    with Source(path) as source:
        with path.open("r+b") as file:
            file.truncate(20)
        assert len(source.array(WORD, 0, 10)) == 2


def test_holes_are_left_out_and_the_rest_is_found(tmp_path):
    path = tmp_path / "f"
    with path.open("wb") as file:
        for offset in (1 << 20, 3 << 20):
            file.seek(offset)
            file.write(b"\1" * 8)
        file.truncate(1 << 33)
    with Source(path) as source:
        pieces = list(source.pieces(WORD, 0, 1 << 30))
        assert sum(len(piece) for _, piece in pieces) < 1 << 14
        found = {at + int(i) for at, piece in pieces for i in np.flatnonzero(piece)}
        assert found == {1 << 17, 3 << 17}
        assert source.stored < 1 << 20


def test_pieces_into_one_room_are_the_same_as_in_rooms_of_their_own(tmp_path):
    path = tmp_path / "f"
    values = np.arange(1000, dtype=WORD) + 1
    path.write_bytes(bytes(16) + values.tobytes())
    with Source(path) as source:
        room = np.empty(64, WORD)
        found = []
        for at, piece in source.pieces(WORD, 16, 5000, 64, into=room, dense=True):
            assert at == len(found)
            assert np.shares_memory(piece, room)
            found += piece.tolist()
        assert found == values.tolist()
        assert list(source.pieces(WORD, 1 << 40, 8, dense=True)) == []
