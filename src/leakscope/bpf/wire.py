# SPDX-License-Identifier: Apache-2.0
"""The frames that leakscope-bpf writes, as `native/bpf/kmem.h` lays them out.

Times are CLOCK_MONOTONIC nanoseconds, sizes bytes. What does not have this shape is refused.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from leakscope.errors import LeakscopeError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = [
    "AGES",
    "BLOCK",
    "CACHE",
    "COUNTERS",
    "DROPS",
    "KINDS",
    "MOVABLE",
    "RECLAIMABLE",
    "SITE",
    "STACK",
    "TASK",
    "TICK_NS",
    "Collected",
    "Hello",
    "Moment",
    "read_answer",
    "read_hello",
]

KINDS = ("kmalloc", "kmem_cache", "page", "percpu", "vmalloc")
DROPS = (
    "blocks_full",
    "sites_full",
    "stacks_full",
    "processes_full",
    "caches_full",
    "no_stack",
    "table_locked",
    "nested_event",
    "long_bulk_free",
)
"""Why something was not recorded, in the order of `enum lsb_drop`."""
MOVABLE, RECLAIMABLE = 1, 2
"""Flags of a site: pages that can move (page cache, memory of programs), reclaimable by request."""
AGES = 33
TICK_NS = 1 << 20

_VERSION = 1
_DEPTH = 48
_MAGIC = 0x4D4B534C
_HEADER = struct.Struct("<IHHII")
_HELLO = struct.Struct("<4IQQ4I")
_MOST_BYTES = 1 << 28  # of one frame

_KEY = [("stack", "<u8"), ("cache", "<u8"), ("size", "<u4"), ("kind", "<u2"), ("flags", "<u2")]
_COUNTS = [
    *((name, "<u8") for name in ("allocs", "alloc_bytes", "frees", "freed_bytes", "first", "last")),
    ("ages", "<u4", (AGES,)),
    ("reused", "<u4"),
]
SITE = np.dtype([*_KEY, *_COUNTS])
STACK = np.dtype([("hash", "<u8"), ("frames", "<u4"), ("zero", "<u4"), ("ip", "<u8", (_DEPTH,))])
CACHE = np.dtype(
    [
        ("cache", "<u8"),
        ("name", "S32"),
        ("size", "<u4"),
        ("object_size", "<u4"),
        ("flags", "<u4"),
        ("wanted", "<u4"),
    ]
)
TASK = np.dtype([("tgid", "<u4"), ("zero", "<u4"), ("comm", "S16"), ("first", "<u8")])
BLOCK = np.dtype(
    [
        ("address", "<u8"),
        *_KEY,
        ("birth", "<u8"),
        ("bytes", "<u8"),
        ("tgid", "<u4"),
        ("zero", "<u4"),
    ]
)
COUNTERS = np.dtype(
    [
        ("now", "<u8"),
        *((name, "<u8", (len(KINDS),)) for name in ("allocs", "alloc_bytes", "frees", "matched")),
        ("samples", "<u8"),
        ("drops", "<u8", (len(DROPS),)),
        ("left", "<i8"),
        ("runs", "<u8"),
        ("run_ns", "<u8"),
    ]
)


class _Frame(enum.IntEnum):
    HELLO = 1
    MOMENT = 2
    SITES = 3
    STACKS = 4
    CACHES = 5
    TASKS = 6
    BLOCKS = 7
    NOTE = 8
    DONE = 9


_FRAMES = frozenset(int(frame) for frame in _Frame)
_TABLES = {
    _Frame.SITES: SITE,
    _Frame.STACKS: STACK,
    _Frame.CACHES: CACHE,
    _Frame.TASKS: TASK,
    _Frame.BLOCKS: BLOCK,
}


class Hello(NamedTuple):
    """What the helper tells when everything is attached."""

    version: int
    kinds: int  # bits, by number in `KINDS`
    bulk: int  # ways in which objects are freed without an event, that are seen
    processors: int
    start_ns: int
    memory: int  # bytes of its tables in the kernel
    most_blocks: int
    most_sites: int
    most_stacks: int
    sample_bytes: int


@dataclass(frozen=True, slots=True)
class Moment:
    """The counters of all processors, added up: events that passed the filters, sampled or not."""

    now_ns: int
    allocs: tuple[int, ...]  # by kind
    alloc_bytes: tuple[int, ...]
    frees: tuple[int, ...]
    matched: tuple[int, ...]  # frees of blocks that were recorded
    samples: int
    drops: dict[str, int]  # those that are not zero
    runs: int  # of the programs, while the kernel measured them …
    run_ns: int  # … and the time they took

    @property
    def events(self) -> int:
        """Events that were looked at."""
        return sum(self.allocs) + sum(self.frees)


@dataclass(frozen=True, slots=True)
class Collected:
    """One answer of the helper. Tables that were not asked for are empty."""

    moment: Moment
    sites: npt.NDArray[np.void]
    stacks: npt.NDArray[np.void]
    caches: npt.NDArray[np.void]
    tasks: npt.NDArray[np.void]
    blocks: npt.NDArray[np.void]
    notes: tuple[str, ...]


def read_hello(read: Callable[[int], bytes]) -> tuple[Hello, tuple[str, ...]]:
    """Read up to and with the greeting; `read(n)` returns `n` bytes or raises."""
    notes: list[str] = []
    while True:
        frame, size, count, data = _frame(read)
        if frame is _Frame.NOTE:
            notes.append(data.decode("utf-8", "replace"))
            continue
        if frame is not _Frame.HELLO or size != _HELLO.size or count != 1:
            raise _wrong("something else came before its greeting")
        hello = Hello(*_HELLO.unpack(data))
        if hello.version != _VERSION:
            raise _wrong(f"it speaks version {hello.version}, and {_VERSION} is wanted")
        return hello, tuple(notes)


def read_answer(read: Callable[[int], bytes]) -> Collected:
    """Read one answer; `read(n)` returns `n` bytes or raises."""
    parts: dict[_Frame, list[npt.NDArray[np.void]]] = {frame: [] for frame in _TABLES}
    moment: Moment | None = None
    notes: list[str] = []
    while True:
        frame, size, count, data = _frame(read)
        if frame is _Frame.DONE:
            break
        if frame is _Frame.NOTE:
            notes.append(data.decode("utf-8", "replace"))
        elif frame is _Frame.MOMENT and size == COUNTERS.itemsize and count == 1:
            moment = _moment(data)
        elif frame in _TABLES and size == _TABLES[frame].itemsize:
            parts[frame].append(np.frombuffer(data, _TABLES[frame]))
        else:
            raise _wrong(f"a frame {int(frame)} of {count} x {size} bytes came")
    if moment is None:
        raise _wrong("its counters are missing")
    sites, stacks, caches, tasks, blocks = (
        np.concatenate([np.zeros(0, _TABLES[frame]), *parts[frame]]) for frame in _TABLES
    )
    if len(sites) and int(sites["kind"].max()) >= len(KINDS):
        raise _wrong("a site has no known kind")
    return Collected(moment, sites, stacks, caches, tasks, blocks, tuple(notes))


def _frame(read: Callable[[int], bytes]) -> tuple[_Frame, int, int, bytes]:
    magic, frame, size, count, _zero = _HEADER.unpack(read(_HEADER.size))
    if magic != _MAGIC or frame not in _FRAMES or size * count > _MOST_BYTES:
        raise _wrong("it wrote what is no frame")
    return _Frame(frame), size, count, read(size * count) if size * count else b""


def _moment(data: bytes) -> Moment:
    row = np.frombuffer(data, COUNTERS)[0]

    def of(name: str) -> tuple[int, ...]:
        return tuple(int(each) for each in row[name])

    drops = {name: number for name, number in zip(DROPS, of("drops"), strict=True) if number}
    return Moment(
        now_ns=int(row["now"]),
        allocs=of("allocs"),
        alloc_bytes=of("alloc_bytes"),
        frees=of("frees"),
        matched=of("matched"),
        samples=int(row["samples"]),
        drops=drops,
        runs=int(row["runs"]),
        run_ns=int(row["run_ns"]),
    )


def _wrong(why: str) -> LeakscopeError:
    return LeakscopeError(
        f"leakscope-bpf cannot be understood: {why}",
        hint="Its version and that of leakscope differ: install leakscope again.",
    )
