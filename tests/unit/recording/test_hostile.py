# SPDX-License-Identifier: Apache-2.0
"""Small files that would make gigabytes: what a reader takes follows the file's length."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from leakscope.errors import RecordingError
from leakscope.observe.store import FRAME
from leakscope.observe.store import MAGIC as STORE_MAGIC
from leakscope.observe.store import VERSION as STORE_VERSION
from leakscope.recording import layout, live, load, packed
from leakscope.recording._columns import ROWS, encode
from unit.recording.recordings import assert_equal, built
from unit.recording.test_packed import rewritten

FIELDS = {name: offset for name, (_, offset, *_) in layout.HEADER_DTYPE.fields.items()}
MOST_KB = 220 << 10  # beyond what a reader of a small honest file takes: 64 MiB, some times

READ = """
import resource, sys
from leakscope.errors import RecordingError
from leakscope.observe.store_reader import StoreReader
from leakscope.recording import load
try:
    if sys.argv[2] == "store":
        for one, _ in StoreReader(sys.argv[1]).passes():
            pass
    else:
        load(sys.argv[1])
    print("read", end=" ")
except RecordingError as error:
    print("refused", end=" ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(path: Path, kind: str = "recording") -> tuple[str, int]:
    """Read a file in a process of its own; returns how that ended, and its peak in KiB."""
    done = subprocess.run(
        [sys.executable, "-c", READ, path, kind],
        env=os.environ | {"PYTHONPATH": str(Path(packed.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    word, kilobytes = done.stdout.split()
    return word, int(kilobytes)


@pytest.fixture
def honest(tmp_path: Path) -> Path:
    path = tmp_path / "app.42.leakscope"
    packed.write(built(), path)
    return path


def swollen(path: Path, tables: tuple[str, ...], chunks: int) -> None:
    """Make each column of some tables out of so many chunks that hold one value throughout."""
    data = path.read_bytes()
    chunk = encode(np.zeros(ROWS, np.uint64))
    at = int.from_bytes(data[16:24], "little")
    body = data[:at] + chunk * chunks
    head = bytearray(body)
    head[16:24] = len(body).to_bytes(8, "little")

    def change(facts):
        for name, column in facts["columns"].items():
            if name.startswith(tables):
                column |= {"rows": chunks * ROWS, "offset": at, "bytes": len(chunk) * chunks}

    path.write_bytes(rewritten(bytes(head) + data[at:], change))


@pytest.mark.parametrize(
    "tables", [("blocks.",), ("nodes.",), ("timeline.",), ("deaths", "sites.")]
)
def test_a_packed_file_of_equal_values(tables, honest):
    _, usual = peak(honest)
    swollen(honest, tables, 1000)
    assert honest.stat().st_size < 48 << 10
    word, most = peak(honest)
    assert word == "refused"
    assert most < usual + MOST_KB


def test_a_packed_file_whose_directory_inflates(honest):
    _, usual = peak(honest)
    honest.write_bytes(
        rewritten(honest.read_bytes(), lambda facts: facts.update(modules=[[]] * (12 << 20)))
    )
    assert honest.stat().st_size < 100 << 10
    word, most = peak(honest)
    assert word == "refused"
    assert most < usual + MOST_KB


def test_an_honest_recording_of_equal_blocks_is_long_enough(tmp_path, monkeypatch):
    recording = built(blocks=1000)
    many = np.zeros(3_000_000, recording.blocks.dtype)
    many["address"] = np.arange(len(many), dtype=np.uint64) * 32 + (1 << 40)
    many["size"] = 24
    object.__setattr__(recording, "blocks", many)
    object.__setattr__(recording, "reachability", None)
    path = tmp_path / "equal.leakscope"
    packed.write(recording, path)
    assert_equal(load(path), recording)
    # An earlier leakscope wrote it without the hole: who trusts it can still read it.
    monkeypatch.setattr(packed, "_ANYWHERE", 1 << 40)
    packed.write(recording, path)
    monkeypatch.undo()
    with pytest.raises(RecordingError, match="claims to hold") as caught:
        load(path)
    name, _, value = str(caught.value.hint).rpartition(" ")[2].partition("=")
    monkeypatch.setenv(name, value)
    assert_equal(load(path), recording)


def test_a_live_file_of_holes(trace):
    (path,) = trace("mmap_leak")
    _, usual = peak(path)
    header = np.fromfile(path, layout.HEADER_DTYPE, 1)[0]
    with path.open("r+b") as file:
        for area, count, size, most in (
            ("nodes", "node_count", 16, layout.MAX_NODES),
            ("sites", "site_count", 16, layout.MAX_SITES),
        ):
            os.pwrite(file.fileno(), struct.pack("<Q", most * size), FIELDS[area] + 16)
            os.pwrite(file.fileno(), struct.pack("<I", most), FIELDS[count])
        row = layout.TIMELINE_ROW_DTYPE
        for number in range(layout.TIMELINE_ROWS):
            at = FIELDS["rows"] + number * row.itemsize
            offset = int(header["bump"]) + number * (8 << 20)
            for name, form, value in (
                ("tick", "I", number),
                ("sites", "I", layout.MAX_SITES),
                ("room", "I", layout.MAX_SITES),
                ("offset", "Q", offset),
            ):
                place = at + row.fields[name][1]
                os.pwrite(file.fileno(), struct.pack("<" + form, value), place)
    assert path.stat().st_blocks * 512 < 1 << 20
    word, most = peak(path)
    assert word == "refused"
    assert most < usual + MOST_KB


def test_rows_at_one_place_are_read_once(trace):
    (path,) = trace("mmap_leak")
    rows = len(live.read(path).timeline.times_ns)
    shown = np.fromfile(path, layout.HEADER_DTYPE, 1)[0]["rows"]
    (used, *others) = np.flatnonzero(shown["sites"])
    (place, *_) = [*np.flatnonzero(shown["sites"] == 0), *others]
    size = layout.TIMELINE_ROW_DTYPE.itemsize
    with path.open("r+b") as file:
        file.seek(FIELDS["rows"] + int(place) * size)
        file.write(shown[used].tobytes())
    found = live.read(path)
    assert len(found.timeline.times_ns) == rows - (place in others)
    assert found.coverage.notes == ("1 row of the timeline held impossible sizes or claims",)


def test_the_recording_of_a_watch_that_inflates(tmp_path):
    path = tmp_path / "watch.leakscope"

    def frame(payload: bytes) -> bytes:
        data = zlib.compress(payload, 9)
        return FRAME.pack(len(data), zlib.crc32(data)) + data

    def number(value: int) -> bytes:
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    begin = STORE_MAGIC + frame(json.dumps({"version": STORE_VERSION}).encode())
    row = '[%d,"process","k","n",1,"/x",1,null,"rss","bytes",false]\n'
    few = "".join(row % n for n in range(3)).encode()
    path.write_bytes(begin + frame(b"\0\0" + number(len(few)) + few + b"\0\0"))
    word, usual = peak(path, "store")
    assert word == "read"
    many = "".join(row % (n % 7) for n in range(900_000)).encode()
    path.write_bytes(begin + frame(b"\0\0" + number(len(many)) + many + b"\0\0"))
    assert path.stat().st_size < 400 << 10
    word, most = peak(path, "store")
    assert word == "refused"
    assert most < usual + MOST_KB
