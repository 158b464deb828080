# SPDX-License-Identifier: Apache-2.0
"""Pages that are there are listed, by one reader for images and for scans."""

import ctypes
import mmap
import os
import time

import numpy as np
import pytest

from leakscope.target.pages import list_pages

PAGE = 4096
PAGES = 64
GUARD = 102  # MADV_GUARD_INSTALL, Linux 6.13
GUARD_TOLD = (6, 15)  # since then the kernel tells these pages apart


def spans(ranges) -> np.ndarray:
    return np.array(ranges, np.uint64).reshape(-1, 2)


@pytest.fixture
def pagemap():
    fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def memory():
    """An anonymous mapping, and its address."""
    mapped = mmap.mmap(-1, PAGES * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapped.madvise(mmap.MADV_NOHUGEPAGE)
    held = ctypes.c_char.from_buffer(mapped)
    yield mapped, ctypes.addressof(held)
    del held
    mapped.close()


def listed(pagemap, ranges, room=100, **options) -> tuple[list[list[int]], int]:
    out, cursor = np.empty((room, 2), np.uint64), np.zeros(2, np.uint64)
    count = list_pages(pagemap, spans(ranges), out, cursor=cursor, **options)
    return out[:count].tolist(), int(cursor[0])


def test_pages_that_were_touched_are_there_and_neighbours_are_one(pagemap, memory):
    mapped, start = memory
    for page in (3, 4, 5, 20):
        mapped[page * PAGE] = 1
    assert mapped[40 * PAGE] == 0  # read only: the page of zeros that is everybody's
    wanted = [[start + 3 * PAGE, start + 6 * PAGE], [start + 20 * PAGE, start + 21 * PAGE]]
    whole = (start, start + PAGES * PAGE)
    assert listed(pagemap, [whole]) == (wanted, 1)
    assert listed(pagemap, [whole], without_files=True) == (wanted, 1)
    # Two ranges, of which one has nothing.
    assert listed(pagemap, [(start, start + PAGE), (start + 4 * PAGE, start + 5 * PAGE)]) == (
        [[start + 4 * PAGE, start + 5 * PAGE]],
        2,
    )


def test_it_goes_on_where_there_was_no_room(pagemap, memory):
    mapped, start = memory
    for page in range(0, PAGES, 2):
        mapped[page * PAGE] = 1
    ranges, cursor = spans([(start, start + PAGES * PAGE)]), np.zeros(2, np.uint64)
    found = []
    while int(cursor[0]) < 1:
        out = np.empty((5, 2), np.uint64)
        count = list_pages(pagemap, ranges, out, cursor=cursor)
        found += out[:count].tolist()
    assert [low for low, _ in found] == [start + page * PAGE for page in range(0, PAGES, 2)]


def test_a_deadline_that_has_passed_ends_it_early(pagemap, memory):
    _, start = memory
    ranges = [(start + at * PAGE, start + (at + 1) * PAGE) for at in range(PAGES)]
    past = time.monotonic_ns() - 1
    assert listed(pagemap, ranges, deadline=past)[1] < len(ranges)


def test_pages_of_a_file_can_be_left_out(pagemap, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4 * PAGE)
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE)
    held = ctypes.c_char.from_buffer(mapped)
    start = ctypes.addressof(held)
    assert sum(mapped[at * PAGE] for at in range(4)) == 4 * ord("x")
    mapped[2 * PAGE] = 0  # its own now
    whole = [(start, start + 4 * PAGE)]
    assert listed(pagemap, whole) == ([[start, start + 4 * PAGE]], 1)
    assert listed(pagemap, whole, without_files=True) == (
        [[start + 2 * PAGE, start + 3 * PAGE]],
        1,
    )
    del held
    mapped.close()


@pytest.mark.parametrize("without_files", [False, True])
def test_guard_pages_are_no_memory(pagemap, memory, without_files):
    """An image that lists them would try to copy them, and count them as unread."""
    mapped, start = memory
    for page in range(8):
        mapped[page * PAGE] = 1
    wanted = [[start, start + 8 * PAGE]]
    version = tuple(int(part) for part in os.uname().release.split(".")[:2])
    libc = ctypes.CDLL(None, use_errno=True)
    place, size = ctypes.c_void_p(start + 4 * PAGE), ctypes.c_size_t(2 * PAGE)
    if version >= GUARD_TOLD and libc.madvise(place, size, GUARD) == 0:
        wanted = [[start, start + 4 * PAGE], [start + 6 * PAGE, start + 8 * PAGE]]
    whole = [(start, start + 8 * PAGE)]
    assert listed(pagemap, whole, without_files=without_files) == (wanted, 1)
