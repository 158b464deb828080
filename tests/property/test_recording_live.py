# SPDX-License-Identifier: Apache-2.0
"""A live recording with anything in it is read, with its damage told, or refused."""

import os
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leakscope.errors import RecordingError
from leakscope.model.recordings import Kind, Recording
from leakscope.recording import layout, load
from unit.recording.recordings import build, environment

FIELDS = {name: offset for name, (_, offset, *_) in layout.HEADER_DTYPE.fields.items()}
NUMBERS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**63, 2**64 - 1]),
)


@pytest.fixture(scope="module")
def victim(agent, tmp_path_factory) -> Path:
    """A real live recording of a small program, to be damaged and mended again and again."""
    folder = tmp_path_factory.mktemp("live")
    program = build("mmap_leak", folder)
    subprocess.run([program], env=environment(agent, folder), stdout=subprocess.DEVNULL, check=True)
    (path,) = folder.glob("*.live")
    return path


@pytest.fixture(scope="module")
def extents(victim) -> list[int]:
    """Offsets of the pages that hold data."""
    pages = []
    with victim.open("rb") as file:
        at, end = 0, victim.stat().st_size
        while at < end:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            pages += range(start, at, 4096)
    return pages


def load_or_refuse(path: Path) -> Recording | None:
    recording, sentence = None, ""
    tracemalloc.start()
    try:
        recording = load(path)
    except RecordingError as error:
        sentence = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 30
    if recording is None:
        assert len(sentence) < 1000
        assert "\n" not in sentence
        return None
    sites = len(recording.sites)
    assert (recording.sites["node"] < len(recording.nodes)).all()
    assert (recording.sites["kind"] <= max(Kind)).all()
    assert (recording.blocks["site"] < sites).all()
    assert (recording.ranges["site"] < sites).all()
    assert (recording.nodes["parent"][1:] < np.arange(1, len(recording.nodes))).all()
    assert (recording.nodes["module"] <= len(recording.modules)).all()
    assert np.isfinite(recording.timeline.site_bytes).all()
    assert (np.diff(recording.timeline.times_ns) > 0).all()
    assert (np.diff(recording.blocks["address"].astype(np.float64)) > 0).all()
    assert 0 <= recording.duration_ns < 1 << 63
    return recording


def damaged(path: Path, changes: list[tuple[int, bytes]]) -> Recording | None:
    """Load with these bytes changed, then mend the file."""
    fd = os.open(path, os.O_RDWR)
    try:
        saved = [(at, os.pread(fd, len(new), at)) for at, new in changes]
        try:
            for at, new in changes:
                os.pwrite(fd, new, at)
            return load_or_refuse(path)
        finally:
            for at, old in reversed(saved):
                os.pwrite(fd, old, at)
    finally:
        os.close(fd)


@settings(deadline=5000, max_examples=300)
@given(data=st.data())
def test_any_header_is_read_or_refused(victim, data):
    changes = data.draw(
        st.lists(
            st.tuples(st.sampled_from(sorted(FIELDS.values())), NUMBERS), min_size=1, max_size=4
        )
    )
    inner = data.draw(st.integers(0, 3)) * 8  # into areas, shards, rows
    damaged(victim, [(at + inner, number.to_bytes(8, "little")) for at, number in changes])


@settings(deadline=5000, max_examples=300)
@given(data=st.data())
def test_any_content_is_read_or_refused(victim, extents, data):
    changes = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(extents), st.integers(0, 4088), st.binary(min_size=1, max_size=64)
            ),
            min_size=1,
            max_size=12,
        )
    )
    damaged(victim, [(page + at, new) for page, at, new in changes])


@settings(deadline=5000, max_examples=100)
@given(keep=st.integers(0, 1 << 20))
@example(keep=0)
@example(keep=16)
@example(keep=layout.HEADER_DTYPE.itemsize)
def test_any_truncation_is_refused(victim, keep):
    copy = victim.with_name("copy")
    with victim.open("rb") as file:
        copy.write_bytes(file.read(keep))
    with pytest.raises(RecordingError, match=r"truncated|is not a recording|holds nothing"):
        load(copy)


def test_the_undamaged_file_is_read(victim):
    recording = load_or_refuse(victim)
    assert recording is not None
    assert recording.coverage.notes == ()
    assert recording.sites["live_bytes"].max() == 300 * 12 * 4096
