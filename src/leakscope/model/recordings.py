# SPDX-License-Identifier: Apache-2.0
"""A recording: everything one source learnt about one process (or kernel).

Times are nanoseconds since the recording started unless a name says otherwise; sizes are bytes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from leakscope.model.columns import Column
from leakscope.model.earlier import Earlier
from leakscope.model.frames import Address, FrameName, Module
from leakscope.model.free_errors import RecordedFreeError
from leakscope.model.reachability import ScanFacts
from leakscope.model.tool_errors import RecordedError

__all__ = [
    "AGE_BUCKETS",
    "BLOCK_DTYPE",
    "KIND_NAMES",
    "MOMENT_NS",
    "NODE_DTYPE",
    "NODE_EXACT",
    "NODE_STOPPED",
    "NODE_TRUNCATED",
    "NODE_UNADDRESSED",
    "RANGE_DTYPE",
    "REACH_DTYPE",
    "SITE_DTYPE",
    "Coverage",
    "Kind",
    "Mark",
    "Process",
    "Recording",
    "Timeline",
]


class Kind(enum.IntEnum):
    """How the memory was asked for: the kinds that every recording knows, by number.

    The set is open: `Recording.kinds` names those that a source adds.
    """

    MALLOC = 0
    CALLOC = 1
    REALLOC = 2
    MEMALIGN = 3
    NEW = 4
    NEW_ARRAY = 5
    MMAP = 6
    BRK = 7


KIND_NAMES = ("malloc", "calloc", "realloc", "memalign", "new", "new[]", "mmap", "brk")
"""The names of `Kind`, by number. `Recording.kinds` begins with them."""

MOMENT_NS = 200_000_000
"""A run shorter than this shows no course over time."""

_DEEPEST = 512  # frames of a stack; the agent keeps 256

AGE_BUCKETS = 33
"""Number of log2 age buckets: bucket 0 is younger than one tick, bucket k spans
[2**(k-1), 2**k) ticks of `Recording.tick_ns`."""

NODE_DTYPE = np.dtype(
    [
        ("parent", "<u4"),
        ("module", "<u2"),
        ("flags", "<u2"),
        ("offset", "<u8"),
        ("name", "<u4"),
    ]
)
"""A frame in its context. `parent` indexes the node table, node 0 is the root.
`module` is 0 for none (offset is then absolute) or the module's index + 1.
`name` is 0 where only symbols can name it, or the index in `Recording.names` + 1."""

NODE_EXACT, NODE_TRUNCATED, NODE_STOPPED, NODE_UNADDRESSED = 1, 2, 4, 8
"""Flags of a node: exact address, outer frames cut off, unwinding stopped here, and no address
at all (`module` and `offset` are zero)."""

SITE_DTYPE = np.dtype(
    [
        ("node", "<u4"),
        ("kind", "u1"),
        ("depth", "<u2"),
        ("allocs", "<u8"),
        ("alloc_bytes", "<u8"),
        ("frees", "<u8"),
        ("freed_bytes", "<u8"),
        ("live_count", "<u8"),
        ("live_bytes", "<u8"),
        ("peak_bytes", "<u8"),
        ("first_birth_ns", "<i8"),
        ("last_birth_ns", "<i8"),
    ]
)
"""One allocation site: a call stack and an allocation kind. Site 0 stands for unknown.
In sampled recordings counts and bytes are unbiased estimates. `live_*` come from the
blocks; `peak_bytes` is the highest value seen at a timeline row (or live now)."""

REACH_DTYPE = np.dtype(
    [
        (f"{kind}_{what}", "<u8")
        for kind in ("definite", "indirect", "possible", "reachable")
        for what in ("count", "bytes")
    ]
)
"""What points to the blocks of a site, from a source that tells it of sites, not of blocks.
Each kind has its own blocks: what definitely lost blocks own is not counted with them."""

BLOCK_DTYPE = np.dtype([("address", "<u8"), ("size", "<u8"), ("site", "<u4"), ("birth_ns", "<i8")])
"""A live block."""

RANGE_DTYPE = np.dtype([("start", "<u8"), ("length", "<u8"), ("site", "<u4"), ("birth_ns", "<i8")])
"""A mapping that the program made itself and that still exists."""


@dataclass(frozen=True, slots=True)
class Process:
    """Who was traced. Fields that the source cannot know are None."""

    pid: int | None = None
    ppid: int | None = None
    exe: str | None = None
    arch: str | None = None  # "x86_64", "aarch64"
    uid: int | None = None
    forked_from: int | None = None
    boot_id: str | None = None
    started_unix_ns: int | None = None
    duration_ns: int | None = None
    ended: str | None = None
    """"exited", "killed by SIGKILL", "running", "replaced by exec", None when unknown."""
    exit_status: int | None = None
    allocator: str | None = None  # path of the object whose malloc was wrapped

    @property
    def is_kernel(self) -> bool:
        """Whether it is no process but a kernel, whose `exe` is "Linux RELEASE"."""
        return self.pid is None and self.exe is not None and self.exe.startswith("Linux ")


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of the recording that somebody gave a name."""

    name: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much was seen, and what was not. A report prints this next to every verdict."""

    mode: str = "exact"  # "exact", "sampled", or the foreign tool's name
    sample_bytes: int | None = None  # mean bytes between samples
    alloc_events: int | None = None
    free_events: int | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    """Losses by reason: names of `enum lsr_drop` in lower case without prefix."""
    troubles: tuple[str, ...] = ()
    min_size: int | None = None
    max_size: int | None = None
    max_depth: int | None = None
    notes: tuple[str, ...] = ()
    """Sentences for people about what this recording cannot tell."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Snapshots of live memory, rows ascending in time.

    `site_bytes` and `site_counts` have shape (rows, sites); sites born after a row are 0 there.
    """

    times_ns: npt.NDArray[np.int64]
    live_bytes: npt.NDArray[np.int64]
    live_counts: npt.NDArray[np.int64]
    site_bytes: npt.NDArray[np.float32]
    site_counts: npt.NDArray[np.uint32]
    rss_bytes: npt.NDArray[np.int64] | None = None

    @classmethod
    def empty(cls, sites: int) -> Timeline:
        """Return a timeline without any row, of so many sites."""
        none = np.zeros(0, np.int64)
        return cls(
            times_ns=none,
            live_bytes=none,
            live_counts=none,
            site_bytes=np.zeros((0, sites), np.float32),
            site_counts=np.zeros((0, sites), np.uint32),
        )


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything one source learnt about one process. Treat the arrays as read-only."""

    process: Process
    modules: tuple[Module, ...]
    nodes: npt.NDArray[np.void]  # NODE_DTYPE
    sites: npt.NDArray[np.void]  # SITE_DTYPE
    blocks: npt.NDArray[np.void]  # BLOCK_DTYPE, empty when the source keeps none
    ranges: npt.NDArray[np.void]  # RANGE_DTYPE
    deaths: npt.NDArray[np.uint64]  # (sites, AGE_BUCKETS), by age at death
    timeline: Timeline
    coverage: Coverage
    tick_ns: float  # length of one age tick
    duration_ns: int
    reachability: npt.NDArray[np.uint8] | None = None  # of each block, a `Reachability`
    scan: ScanFacts | None = None
    free_errors: tuple[RecordedFreeError, ...] = ()
    names: tuple[FrameName, ...] = ()  # of frames that the source named itself
    kinds: tuple[str, ...] = KIND_NAMES  # names of `sites["kind"]`
    absent: frozenset[Column] = frozenset()
    """What the source cannot tell: these columns are zero, or empty, and mean nothing."""
    site_reach: npt.NDArray[np.void] | None = None  # REACH_DTYPE, a row a site
    marks: tuple[Mark, ...] = ()  # in the order of time
    errors: tuple[RecordedError, ...] = ()
    """What another tool found that is no leak."""
    earlier: Earlier | None = None  # what was there before an attach; None: nobody looked
    author: int | None = field(default=None, compare=False)
    """The user whose file it was read from; not kept in files."""

    def knows(self, *columns: Column) -> bool:
        """Whether the source filled all of `columns`."""
        return self.absent.isdisjoint(columns)

    def total(self, column: Column) -> int | None:
        """Return the sum of a column of the sites, None when the source does not know it."""
        field_name = column.site_field
        if field_name is None or column in self.absent:
            return None
        return int(self.sites[field_name].sum())

    def stack(self, site: int) -> tuple[Address, ...]:
        """Return the addresses on the call stack of `site`, innermost first. Empty when unknown."""
        nodes = self.nodes
        node = int(self.sites["node"][site])
        found: list[Address] = []
        # A parent always has a smaller index than its child; anything else is damage.
        while node > 0 and len(found) < _DEEPEST:
            module, flags = int(nodes["module"][node]), int(nodes["flags"][node])
            if not flags & NODE_UNADDRESSED:
                found.append(
                    Address(
                        module=module - 1 if 0 < module <= len(self.modules) else None,
                        offset=int(nodes["offset"][node]),
                        exact=bool(flags & NODE_EXACT),
                    )
                )
            parent = int(nodes["parent"][node])
            if parent >= node:
                break
            node = parent
        return tuple(found)
