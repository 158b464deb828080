# SPDX-License-Identifier: Apache-2.0
"""The live-block table of a live recording: 1024 hash tables that change while they are read.

A table that its writer replaces meanwhile is read again; one that stays in the middle of a
change (its writer was killed there) is taken as it is. A block in two slots, which a
deletion leaves for a moment, counts once.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from functools import partial
from os import cpu_count
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.recordings import BLOCK_DTYPE
from leakscope.recording import layout
from leakscope.recording._workers import Workers

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.recording._source import Source

    Words = npt.NDArray[np.uint64]

__all__ = ["Blocks", "Table", "Weigher", "decode", "read_table"]

_TRIES = 10
_PAUSE = 0.00025  # seconds, twice as long each time; replacing a table is a few stores
_SMALL = 64 << 20  # bytes
_SMALL_TABLE = 4 << 20  # bytes that are read sooner than a thread starts
_PIECE = 1 << 15  # slots read at once
_rooms = threading.local()
_SLAB = 1 << 17  # rows decoded at once: what fits in the cache

_ADDRESS_BITS = layout.BLOCK_ADDRESS_BITS
_SITE_BITS = 64 - _ADDRESS_BITS
_SITE_MASK = np.uint64((1 << _SITE_BITS) - 1)
_SIZE_BITS = layout.BLOCK_SIZE_BITS
_SHARDS_OFFSET = int(layout.HEADER_DTYPE.fields["shards"][1])  # type: ignore[index]


@dataclass(slots=True)
class Table:
    """All blocks as they were found, in parts that are sorted and have no address twice.

    `keys` hold address >> 3 above the site, so that sorting them sorts by address.
    """

    keys: list[Words] = field(default_factory=list)
    whats: list[Words] = field(default_factory=list)
    doubles: int = 0
    broken: int = 0  # shards whose place in the file makes no sense
    unsettled: int = 0  # shards that were being replaced whenever we looked


@dataclass(frozen=True, slots=True)
class Weigher:
    """How many blocks a recorded one stands for: 1 / (1 - exp(-size / sample_bytes)).

    Unbiased when each byte is a sample point with probability 1 / sample_bytes and a block is
    recorded when it has one (jemalloc's PROFILING_INTERNALS). `sample_bytes` 0: exactly one.
    """

    sample_bytes: int

    def weights(self, sizes: Words) -> npt.NDArray[np.float64] | None:
        """Return the weights, at least 1; None when all are 1."""
        if not self.sample_bytes:
            return None
        # A block of no bytes is never a sample point; the agent gives it weight 1.
        probability = -np.expm1(sizes / -float(self.sample_bytes))
        return np.divide(1.0, probability, out=np.ones(len(sizes)), where=probability > 0)


@dataclass(frozen=True, slots=True)
class Blocks:
    """The decoded blocks, sorted by address, and what lives of each site (estimates if sampled)."""

    blocks: npt.NDArray[np.void]
    counts: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]
    last_tick: int
    unknown_sites: int
    no_address: int = 0
    doubles: int = 0


def read_table(source: Source, heap_start: int, heap_end: int) -> Table:
    """Read all shards that lie in [heap_start, heap_end)."""
    table = Table()
    found: dict[int, tuple[Words, Words, int]] = {}
    pending = np.arange(layout.SHARDS)
    shards = _shards(source)
    with Workers(min(8, cpu_count() or 1)) as pool:
        for attempt in range(_TRIES):
            sound = _sound(shards, heap_start, heap_end)
            wanted = [int(i) for i in pending if sound[i]]
            # Longest first: the last one to finish is a short one.
            wanted.sort(key=lambda i: -int(shards["capacity"][i]))
            jobs = [(i, int(shards["offset"][i]), int(shards["capacity"][i])) for i in wanted]
            # Tables are backed whole. A file whose tables are mostly holes is none of ours, and
            # may claim any length.
            claimed = sum(job[2] for job in jobs) * layout.BLOCK_DTYPE.itemsize
            read = partial(_read_shard, source, dense=claimed <= 4 * source.stored + _SMALL)
            # Threads help with large tables only: to start one takes longer than to read a small one.
            alone = claimed <= _SMALL_TABLE
            places = (job[1] for job in jobs), (job[2] for job in jobs)
            parts = pool.map(read, *places, alone=alone)
            found.update(zip(wanted, parts, strict=True))
            before, shards = shards, _shards(source)
            same = (shards["sequence"] == before["sequence"]) & (shards["sequence"] % 2 == 0)
            # What was read whole stays: a table that is replaced later held the same blocks.
            pending = pending[~same[pending]]
            if len(pending) == 0 or attempt == _TRIES - 1:
                break
            time.sleep(_PAUSE * (1 << attempt) if attempt else 0)
    used = before["capacity"] > 0
    table.unsettled = len(pending)
    table.broken = int(np.count_nonzero(used & ~sound))
    for keys, whats, doubles in found.values():
        if len(keys):
            table.keys.append(keys)
            table.whats.append(whats)
        table.doubles += doubles
    return table


def _shards(source: Source) -> npt.NDArray[np.void]:
    shards = np.zeros(layout.SHARDS, layout.SHARD_DTYPE)
    read = source.array(layout.SHARD_DTYPE, _SHARDS_OFFSET, layout.SHARDS)
    shards[: len(read)] = read
    return shards


def _sound(shards: npt.NDArray[np.void], start: int, end: int) -> npt.NDArray[np.bool_]:
    # In use, inside the heap, and in no other shard's place: bounds what can be read in total.
    sizes = shards["capacity"].astype(np.uint64) * np.uint64(layout.BLOCK_DTYPE.itemsize)
    offsets = shards["offset"]
    sound = (sizes > 0) & (offsets >= start) & (offsets <= end) & (offsets % 8 == 0)
    sound[sound] = sizes[sound] <= np.uint64(end) - offsets[sound]
    order = np.flatnonzero(sound)
    order = order[np.argsort(offsets[order], kind="stable")]
    reach = np.maximum.accumulate(offsets[order] + sizes[order])
    sound[order[1:][offsets[order[1:]] < reach[:-1]]] = False
    result: npt.NDArray[np.bool_] = sound
    return result


def _room() -> npt.NDArray[np.void]:
    # Pages that are given back and asked for again for each shard took half of the time.
    try:
        room: npt.NDArray[np.void] = _rooms.array
    except AttributeError:
        room = _rooms.array = np.empty(_PIECE, layout.BLOCK_DTYPE)
    return room


def _read_shard(
    source: Source, offset: int, capacity: int, *, dense: bool
) -> tuple[Words, Words, int]:
    """Return sorted keys, their sizes and births, and how many were there twice."""
    parts = []
    for _, raw in source.pieces(
        layout.BLOCK_DTYPE, offset, capacity, _PIECE, into=_room(), dense=dense
    ):
        full = np.flatnonzero(raw["where"])
        parts.append((raw["where"][full], raw["what"][full]))
    if not parts:
        return np.empty(0, np.uint64), np.empty(0, np.uint64), 0
    where = np.concatenate([part[0] for part in parts]) if len(parts) > 1 else parts[0][0]
    what = np.concatenate([part[1] for part in parts]) if len(parts) > 1 else parts[0][1]
    keys = (where << np.uint64(_SITE_BITS)) | (where >> np.uint64(_ADDRESS_BITS))
    order = np.argsort(keys)
    return _without_doubles(keys[order], what[order])


def _without_doubles(keys: Words, whats: Words) -> tuple[Words, Words, int]:
    address = keys >> np.uint64(_SITE_BITS)
    if not np.any(address[1:] == address[:-1]):
        return keys, whats, 0
    # Of two blocks at one address the younger is the one that is still there.
    order = np.lexsort((whats >> np.uint64(32), address))
    keys, whats, address = keys[order], whats[order], address[order]
    keep = np.append(address[1:] != address[:-1], True)
    return keys[keep], whats[keep], int(len(keep) - np.count_nonzero(keep))


def _by_megabyte(keys: Words) -> list[slice]:
    """Return the runs that, in this order, sort parts which are sorted already.

    The agent keeps each megabyte of address space in one shard, so whole megabytes move; that is
    many times faster than sorting ten million blocks.
    """
    megabyte = keys >> np.uint64(_SITE_BITS + 17)
    starts = np.flatnonzero(megabyte[1:] != megabyte[:-1]) + 1
    starts = np.concatenate([np.zeros(1, np.int64), starts])[: len(keys)]
    ends = np.append(starts[1:], len(keys))[: len(starts)]
    order = np.argsort(megabyte[starts], kind="stable")
    return [slice(a, b) for a, b in zip(starts[order].tolist(), ends[order].tolist(), strict=True)]


def _joined(column: Words, runs: list[slice]) -> Words:
    return np.concatenate([column[run] for run in runs]) if len(runs) > 1 else column


def decode(table: Table, sites: int, tick_ns: float, weigher: Weigher) -> Blocks:
    """Turn the table into blocks, and empty it. Blocks of an unknown site go to site 0."""
    keys = np.concatenate([*table.keys, np.empty(0, np.uint64)])
    whats = np.concatenate([*table.whats, np.empty(0, np.uint64)])
    table.keys.clear()  # hundreds of megabytes when there are many blocks
    table.whats.clear()
    runs = _by_megabyte(keys)
    keys, whats = _joined(keys, runs), _joined(whats, runs)
    found = _decode(keys, whats, sites, tick_ns, weigher)
    if found is not None:
        return replace(found, doubles=table.doubles)
    # Only in a damaged file: blocks in the wrong shard, or at address 0.
    order = np.argsort(keys)
    keys, whats, doubles = _without_doubles(keys[order], whats[order])
    there = keys >> np.uint64(_SITE_BITS) != 0
    keys, whats = keys[there], whats[there]
    found = _decode(keys, whats, sites, tick_ns, weigher)
    assert found is not None
    no_address = int(len(there) - np.count_nonzero(there))
    return replace(found, doubles=table.doubles + doubles, no_address=no_address)


def _decode(
    keys: Words,
    whats: Words,
    sites: int,
    tick_ns: float,
    weigher: Weigher,
) -> Blocks | None:
    """Decode; None when that does not give ascending addresses above 0."""
    total = len(keys)
    blocks = np.empty(total, BLOCK_DTYPE)
    counts, sizes = np.zeros(sites), np.zeros(sites)
    adding = threading.Lock()

    def slab(start: int) -> tuple[bool, int, int]:
        key = keys[start : start + _SLAB + 1]  # one more, to compare with the next slab
        what = whats[start : start + _SLAB]
        address = key >> np.uint64(_SITE_BITS)
        ascending = bool(address[0] > 0 and np.all(address[1:] > address[:-1]))
        key = key[:_SLAB]
        site = (key & _SITE_MASK).astype(np.int64)
        unknown = site >= sites
        site[unknown] = 0
        size = what & np.uint64((1 << _SIZE_BITS) - 1)
        size <<= (what >> np.uint64(_SIZE_BITS) & np.uint64(1)) * np.uint64(12)
        tick = what >> np.uint64(32)
        out = blocks[start : start + _SLAB]
        out["address"] = address[:_SLAB] << np.uint64(3)
        out["size"] = size
        out["site"] = site
        out["birth_ns"] = tick * tick_ns
        weight = weigher.weights(size)
        count_of = np.bincount(site, weight, minlength=sites)
        size_of = np.bincount(site, size if weight is None else weight * size, minlength=sites)
        with adding:
            np.add(counts, count_of, out=counts)
            np.add(sizes, size_of, out=sizes)
        return ascending, int(tick.max()), int(np.count_nonzero(unknown))

    with Workers(min(8, cpu_count() or 1)) as pool:
        done = list(pool.map(slab, range(0, total, _SLAB), alone=total <= _SLAB))
    if not all(ascending for ascending, _, _ in done):
        return None
    return Blocks(
        blocks=blocks,
        counts=counts,
        sizes=sizes,
        last_tick=max((tick for _, tick, _ in done), default=0),
        unknown_sites=sum(unknown for _, _, unknown in done),
    )
