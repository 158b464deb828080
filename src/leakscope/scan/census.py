# SPDX-License-Identifier: Apache-2.0
"""Two walks of one heap: which sizes and contents grow between them, and who holds what grew.

A `Census` is what is kept of a walk: counts by size and content, and where the blocks were. The
second walk compares itself with the first while its image is there, so that blocks which came
can be looked at, and the pointers that lead to them followed.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import TargetError
from leakscope.model.census import Grown, HeapGrowth, HeldBy, Spaces, Tally
from leakscope.model.reachability import Reachability
from leakscope.proc.modules import mapped_module
from leakscope.scan.content import classify
from leakscope.scan.graph import Graph
from leakscope.scan.holders import Holders
from leakscope.scan.join import places_in
from leakscope.scan.spaces import find_spaces
from leakscope.scan.untraced import scan_untraced
from leakscope.target.image import MAX_PAUSE_S
from leakscope.target.resident import Resident

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from leakscope.model.frames import Module
    from leakscope.model.heap import HeapScan
    from leakscope.scan.holders import Way
    from leakscope.scan.untraced import Walked

    Words = npt.NDArray[np.uint64]
    Cells = dict[tuple[str, int], Tally]

__all__ = ["Census", "count_heap", "grow_between"]

_MOST_GROWN = 12
_MOST_HOLDERS = 4
_EXAMINED = 300  # blocks of each row whose holders are looked for
_READ = 4_000_000  # blocks whose content is read; of more, every n-th
_RARE = 1000  # blocks of one size that are all read
_CHIEF = 0.6  # one size stands for itself when it has this share of what grew among its like
_LEAST = 0.005  # of all that grew, for a row of its own
_LEAST_BYTES = 256


@dataclass(frozen=True, slots=True)
class Census:
    """One walk of the heap of a process."""

    pid: int
    taken_ns: int  # CLOCK_MONOTONIC, just after the process went on
    scan: HeapScan
    cells: Cells  # by content and usable size
    starts: Words  # of all blocks, ascending
    lost: Words  # addresses of those that were lost, ascending
    spaces: Spaces
    sizes: npt.NDArray[np.unsignedinteger]  # usable bytes of all blocks, as `starts`


@dataclass(slots=True)
class _Look:
    """What one walk leaves; filled while the image is there."""

    before: Census | None = None
    cells: Cells = field(default_factory=dict)
    starts: Words = field(default_factory=lambda: np.empty(0, np.uint64))
    lost: Words = field(default_factory=lambda: np.empty(0, np.uint64))
    spaces: Spaces = field(default_factory=lambda: Spaces((), ()))
    sizes: npt.NDArray[np.unsignedinteger] = field(default_factory=lambda: np.empty(0, np.uint64))
    taken_ns: int = 0
    grown: list[Grown] = field(default_factory=list)
    lost_gone: int = 0

    def __call__(self, walked: Walked) -> None:
        """Count, and compare. Called again when the heap had to be walked again."""
        self.taken_ns = time.monotonic_ns()
        heap, memory = walked.heap, walked.memory
        lost = walked.kinds == Reachability.DEFINITELY_LOST
        lost |= walked.kinds == Reachability.INDIRECTLY_LOST
        chosen, weights = _chosen(heap.sizes)
        codes, names = classify(memory, heap.starts[chosen], heap.sizes[chosen], pid=walked.pid)
        self.cells = _count(heap.sizes[chosen], codes, lost[chosen], weights, names)
        self.starts, self.lost = heap.starts, heap.starts[lost]
        self.sizes = heap.sizes
        spans = memory.spans if isinstance(memory, Resident) else None
        self.spaces = find_spaces(memory, heap, spans)
        if self.before is not None:
            self.lost_gone = int((places_in(self.before.lost, heap.starts) < 0).sum())
            self.grown = _grown(self.before.cells, self.cells)
            blocks = _Blocks(walked, self.before, chosen, codes, names, lost)
            self.grown = [replace(row, holders=blocks.holders(row)) for row in self.grown]


def count_heap(pid: int, *, max_pause_s: float = MAX_PAUSE_S) -> Census:
    """Walk the heap of a process that nobody traces, and count what is in it.

    Raises `TargetError` as `scan_untraced` does.
    """
    look = _Look()
    scan = scan_untraced(pid, max_pause_s=max_pause_s, examine=look)
    return Census(
        pid, look.taken_ns, scan, look.cells, look.starts, look.lost, look.spaces, look.sizes
    )


def grow_between(before: Census, *, max_pause_s: float = MAX_PAUSE_S) -> HeapGrowth:
    """Walk the same heap again, and say what grew.

    Raises `TargetError` as `scan_untraced` does, and when the heap is another one by now.
    """
    look = _Look(before)
    scan = scan_untraced(before.pid, max_pause_s=max_pause_s, examine=look, keep=True)
    if scan.allocator != before.scan.allocator:
        raise TargetError(f"process {before.pid} has been replaced by another program")
    unknown = scan.counts[Reachability.UNKNOWN] or before.scan.counts[Reachability.UNKNOWN]
    notes = list(dict.fromkeys((*before.scan.facts.notes, *scan.facts.notes)))
    if unknown:
        notes.append("what is lost could not be told in both walks")
    if look.lost_gone:
        notes.append(
            f"{look.lost_gone:,} blocks that were called lost were freed later: the program has"
            " pointers that are not recognised"
        )
    return HeapGrowth(
        pid=before.pid,
        allocator=scan.allocator,
        seconds=(look.taken_ns - before.taken_ns) / 1e9,
        then=_total(before.scan),
        now=_total(scan),
        account_then=before.scan.account,
        account=scan.account,
        grown=tuple(look.grown),
        spaces=look.spaces,
        facts_then=before.scan.facts,
        facts=scan.facts,
        lost_gone=look.lost_gone,
        share=min(before.scan.share, scan.share),
        notes=tuple(notes),
    )


def _total(scan: HeapScan) -> Tally:
    lost = (Reachability.DEFINITELY_LOST, Reachability.INDIRECTLY_LOST)
    return Tally(
        scan.blocks,
        sum(scan.bytes.values()),
        sum(scan.counts[kind] for kind in lost),
        sum(scan.bytes[kind] for kind in lost),
    )


def _chosen(
    sizes: npt.NDArray[np.unsignedinteger],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the positions of blocks that are read, and how many blocks each of them stands for."""
    if len(sizes) <= _READ:
        return np.arange(len(sizes)), np.ones(len(sizes))
    step = -(-len(sizes) // _READ)
    _, where, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    wanted = (np.arange(len(sizes)) % step == 0) | (counts[where] <= _RARE)
    chosen = np.flatnonzero(wanted)
    read = np.bincount(where[chosen], minlength=len(counts))
    return chosen, (counts / np.maximum(read, 1))[where[chosen]]


def _count(
    sizes: npt.NDArray[np.unsignedinteger],
    codes: npt.NDArray[np.int32],
    lost: npt.NDArray[np.bool_],
    weights: npt.NDArray[np.float64],
    names: Sequence[str],
) -> Cells:
    key = sizes.astype(np.uint64) * np.uint64(len(names)) + codes.astype(np.uint64)
    cells, where = np.unique(key, return_inverse=True)
    blocks = np.rint(np.bincount(where, weights, len(cells))).astype(np.int64).tolist()
    gone = np.rint(np.bincount(where, weights * lost, len(cells))).astype(np.int64).tolist()
    found: Cells = {}
    for cell, count, some in zip(cells.tolist(), blocks, gone, strict=True):
        size, code = divmod(cell, len(names))
        found[names[code], size] = Tally(count, count * size, some, some * size)
    return found


def _grown(then: Cells, now: Cells) -> list[Grown]:
    """Return what there is more of; like sizes together, unless one of them stands out."""
    groups: dict[tuple[str, int], list[int]] = {}
    for what, size in {**then, **now}:
        groups.setdefault((what, size.bit_length()), []).append(size)
    nothing = Tally()
    rows: list[Grown] = []
    for (what, _), sizes in groups.items():
        came = {
            size: now.get((what, size), nothing).bytes - then.get((what, size), nothing).bytes
            for size in sizes
        }
        chief = max(came, key=lambda size: came[size])
        total = sum(max(each, 0) for each in came.values())
        apart = [chief] if came[chief] > 0 and came[chief] >= _CHIEF * total else []
        for some in (apart, [size for size in sizes if size not in apart]):
            if not some:
                continue
            before = sum((then.get((what, size), nothing) for size in some), nothing)
            after = sum((now.get((what, size), nothing) for size in some), nothing)
            rows.append(Grown(min(some), max(some), what, before, after))
    rows = [row for row in rows if max(row.bytes, row.lost_bytes) > 0]
    least = max(_LEAST * sum(row.bytes for row in rows), _LEAST_BYTES)
    rows = [row for row in rows if max(row.bytes, row.lost_bytes) >= least]
    rows.sort(key=lambda row: (-max(row.lost_bytes, 0), -row.bytes))
    lost = [row for row in rows if row.lost_bytes > 0][: _MOST_GROWN // 2]
    held = [row for row in rows if row.lost_bytes <= 0]
    return lost + held[: _MOST_GROWN - len(lost)]


class _Blocks:
    """The blocks of the second walk, and who holds them."""

    def __init__(
        self,
        walked: Walked,
        before: Census,
        chosen: npt.NDArray[np.int64],
        codes: npt.NDArray[np.int32],
        names: Sequence[str],
        lost: npt.NDArray[np.bool_],
    ) -> None:
        self._walked, self._before = walked, before
        self._chosen, self._codes, self._names, self._lost = chosen, codes, names, lost
        self._modules = _modules(walked)
        heap, where = walked.heap, walked.places
        assert where is not None
        graph = Graph(heap.starts, heap.sizes, np.empty(0, np.int64))
        self._holders = Holders(graph, where.addresses, where.roots, where.threads)

    def holders(self, row: Grown) -> tuple[HeldBy, ...]:
        """Return through which roots the blocks of a row are alive that were not there before."""
        heap, chosen = self._walked.heap, self._chosen
        sizes = heap.sizes[chosen]
        mine = self._codes == self._names.index(row.what)
        at = chosen[mine & (sizes >= row.low) & (sizes <= row.high)]
        at = at[~self._lost[at]]
        new = at[places_in(heap.starts[at], self._before.starts) < 0]
        at = new if len(new) else at
        if len(at) > _EXAMINED:
            at = at[np.linspace(0, len(at) - 1, _EXAMINED).astype(np.int64)]
        ways = self._holders.ways(at.tolist(), self._modules, self._walked.pid)
        found = []
        for root, count in Counter(way.root for way in ways).most_common(_MOST_HOLDERS):
            some = [way for way in ways if way.root == root]
            example = min(some, key=lambda way: way.depth)
            path = self._holders.path(example)
            direct = _direct(self._walked, some)
            found.append(HeldBy(root, count / len(ways), direct, example.depth, path))
        return tuple(found)


def _direct(walked: Walked, ways: Sequence[Way]) -> str:
    """Say what most of the blocks are pointed to by."""
    inner = Counter(way.direct for way in ways)
    if inner[None] * 2 > len(ways):
        return ""
    blocks = np.array(sorted(each for each in inner if each is not None), np.int64)
    sizes = walked.heap.sizes[blocks]
    codes, names = classify(walked.memory, walked.heap.starts[blocks], sizes, pid=walked.pid)
    kinds: Counter[tuple[str, int]] = Counter()
    for block, size, code in zip(blocks.tolist(), sizes.tolist(), codes.tolist(), strict=True):
        kinds[names[code], size] += inner[block]
    (what, size), _ = kinds.most_common(1)[0]
    if len(blocks) == 1:
        return f"one block of {size:,} bytes ({what})"
    return f"blocks of {size:,} bytes ({what})"


def _modules(walked: Walked) -> list[Module]:
    """Return the files whose variables may hold something."""
    maps = walked.memory.mappings
    paths = dict.fromkeys(m.path for m in maps if m.path.startswith("/") and "w" in m.permissions)
    found = (mapped_module(path, maps, walked.pid) for path in paths)
    return [module for module in found if module is not None]
