# SPDX-License-Identifier: Apache-2.0
"""The heap of glibc's malloc, from outside: arenas, bins, tcaches, mmapped chunks.

Needs no symbols: an arena is recognised by its bins, which point at themselves when they are
empty, and by the ring that the arenas form. The layout of `malloc_state` is that of glibc 2.27
and later (malloc/malloc.c); safe-linking (2.32) is recognised by what it leads to. Works for
x86-64 and aarch64.
"""

from __future__ import annotations

import ctypes
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import LeakscopeError
from leakscope.proc.elf import read_elf
from leakscope.scan.allocators._radix import read_rows, read_words
from leakscope.scan.allocators.heap import Heap
from leakscope.target.library import READER, library

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.proc.maps import Mapping
    from leakscope.target.memory import Memory

    Words = npt.NDArray[np.uint64]
    Sizes = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
    Flags = npt.NDArray[np.bool_]

__all__ = ["walk"]

# Offsets in struct malloc_state, in bytes.
_FASTBINS, _FASTBIN_COUNT = 16, 10
_TOP = 96
_BINS, _BIN_COUNT = 112, 127
_NEXT = 2160
_SYSTEM_MEM = 2184
_STATE_BYTES = 2200

_HEAP_BYTES = 64 << 20  # HEAP_MAX_SIZE: heaps of other arenas are aligned to it
_TCACHE_CHUNK = 0x290  # of tcache_perthread_struct: 64 counts of two bytes, 64 entries
_TCACHE_BINS = 64
_MMAPPED, _NON_MAIN = 2, 4
_PIECE = 512 << 10  # bytes of heap copied at a time: they stay in the cache
_SMALLEST = 32  # bytes of a chunk
_MOST_ARENAS = 4096
_FEW_EMPTY = 4  # even a busy arena has so many empty bins
_TCACHES_AT_ONCE = 1 << 12  # blocks that may be tables of tcaches, looked at together
_MANGLING_SINCE = (2, 32)  # safe-linking
_MOST_CHUNKS = 1 << 28
_STACK_WORDS = 256  # at the top of a stack, in which malloc keeps its variables

_MORE, _END, _FENCE, _CORRUPT = range(4)
_PLAIN, _MANGLED, _UNKNOWN = 0, 1, -1
_TO_BLOCK, _TO_CHUNK, _TO_EITHER = range(3)  # what the links of a list are addresses of


@dataclass(frozen=True, slots=True)
class _Run:
    """Chunks one behind the other; with `mapped`, a single one that has a mapping to itself."""

    first: int
    end: int
    readable: int  # up to here
    where: str
    mapped: bool = False


class _Blocks:
    """Columns that are filled once, in address order; memory that is not filled costs nothing."""

    def __init__(self, room: int) -> None:
        self.starts = np.empty(room, np.uint64)
        self.sizes = np.empty(room, np.uint32)
        self.links = np.zeros(room, np.uint64)  # first words of what may wait in a list
        self.count = 0
        self._large: dict[int, int] = {}  # by position: a size of more than 32 bits

    def append(self, start: int, size: int) -> None:
        self.starts[self.count] = start
        self.sizes[self.count] = size & 0xFFFFFFFF
        if size >> 32:
            self._large[self.count] = size
        self.count += 1

    def columns(self) -> tuple[Words, Sizes, Words]:
        """Return what was filled, ascending: starts, sizes, links."""
        starts = self.starts[: self.count]
        sizes: Sizes = self.sizes[: self.count]
        links = self.links[: self.count]
        if self._large:
            sizes = sizes.astype(np.uint64)
            sizes[list(self._large)] = list(self._large.values())
        if np.any(starts[1:] <= starts[:-1]):  # regions that overlap: damage
            starts, first = np.unique(starts, return_index=True)
            sizes, links = sizes[first], links[first]
        return starts, sizes, links


@dataclass(slots=True)
class _Walk:
    memory: Memory
    runs: list[_Run] = field(default_factory=list)
    regions: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    free_bytes: int = 0
    top_bytes: int = 0
    enumerated: int = 0
    chunks: int = 0

    def word(self, address: int) -> int:
        raw = self.memory.read(address, 8)
        return int.from_bytes(raw, "little") if len(raw) == 8 else 0


def walk(memory: Memory) -> Heap | None:
    """Return the blocks in use of glibc's malloc; None when the process has no such heap."""
    libc = [m for m in memory.mappings if _is_libc(m)]
    main = _main_arena(memory, libc)
    if main is None:
        return _empty(memory, libc) if _is_untouched(memory, libc) else None
    work = _Walk(memory)
    arenas = _ring(work, main)
    _main_heap(work, main)
    for arena in arenas[1:]:
        _other_heaps(work, arena)
    _mmapped(work)
    version = _version(memory, libc)
    starts, sizes, links = _chunks(work, _mangling(version))
    follow = _Lists(work, starts, sizes, links)
    cached = _cached(work, arenas, starts, sizes, follow)
    moving = starts[_moving(work, starts, follow) & ~cached]
    if cached.any():
        work.free_bytes += int(sizes.sum(dtype=np.uint64, where=cached))
        starts, sizes = starts[~cached], sizes[~cached]
    regions = tuple(sorted(work.regions))
    return Heap(
        allocator=f"glibc {version}".strip(),
        starts=starts,
        sizes=sizes,
        regions=regions,
        mapped_bytes=sum(end - start for start, end in regions),
        enumerated_bytes=work.enumerated,
        free_bytes=work.free_bytes,
        top_bytes=work.top_bytes,
        arenas=len(arenas),
        notes=tuple(work.notes),
        # Its `top` points to where the last block ends, which may be inside that block.
        tables=((main, main + _STATE_BYTES),),
        moving=moving,
    )


def _empty(memory: Memory, libc: list[Mapping]) -> Heap:
    none = np.empty(0, np.uint64)
    return Heap(
        allocator=f"glibc {_version(memory, libc)}".strip(),
        starts=none,
        sizes=none,
        regions=(),
        mapped_bytes=0,
        enumerated_bytes=0,
        free_bytes=0,
        top_bytes=0,
        arenas=0,
        notes=("malloc was never called in it",),
    )


def _is_untouched(memory: Memory, libc: list[Mapping]) -> bool:
    """Whether malloc was never called: the main arena is as the loader left it, and the only malloc."""
    found = False
    for mapping in libc:
        if "w" not in mapping.permissions:
            continue
        raw = memory.read(mapping.start, min(mapping.end - mapping.start, 16 << 20))
        words = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64)
        addresses = mapping.start + 8 * np.arange(len(words), dtype=np.uint64)
        # `next` points to its own arena, whose bins are made at the first call.
        for at in np.flatnonzero(addresses - words == _NEXT).tolist():
            first = at - (_NEXT - _TOP) // 8
            if first >= 0 and not words[first:at].any():
                found = True
    return found and not any(
        _has_malloc(path)
        for path in {m.path for m in memory.mappings if "x" in m.permissions and not _is_libc(m)}
        if path.startswith("/")
    )


def _has_malloc(path: str) -> bool:
    """Whether an object brings a malloc of its own; when it cannot be read, it may."""
    name = path.rpartition("/")[2]
    if name.startswith(("ld-", "ld.")):
        return False
    try:
        return "malloc" in read_elf(path, ("malloc",)).exports
    except LeakscopeError:
        return True


def _is_libc(mapping: Mapping) -> bool:
    name = mapping.path.rpartition("/")[2]
    return name.startswith(("libc.so.", "libc-2."))


# Where the arena was found in a file that libc's data were mapped from. One run scans many
# processes that have the same libc, and to search it takes longer than to walk a small heap.
_arena_places: dict[tuple[tuple[int, int], int, int, int], int] = {}


def _main_arena(memory: Memory, libc: list[Mapping]) -> int | None:
    """Find the arena in libc's data, first where it was in another process with this libc."""
    for mapping in libc:
        # With its length: a file that was replaced in place has other data.
        key = (mapping.device, mapping.inode, mapping.offset, mapping.end - mapping.start)
        if not mapping.inode or "w" not in mapping.permissions:
            continue
        if key not in _arena_places:
            arena = _search_main_arena(memory, libc)
            if arena is not None and mapping.start <= arena < mapping.end:
                _arena_places[key] = arena - mapping.start
            return arena
        arena = mapping.start + _arena_places[key]
        words = read_words(memory, arena + _BINS, 2 * _BIN_COUNT).reshape(-1, 2)
        heads = arena + _BINS - 16 + 16 * np.arange(len(words), dtype=np.uint64)
        empty = np.count_nonzero((words == heads[:, None]).all(axis=1))
        if empty >= _FEW_EMPTY and _plausible(memory, arena):
            return arena
    return _search_main_arena(memory, libc)


def _search_main_arena(memory: Memory, libc: list[Mapping]) -> int | None:
    """Return the place with most empty bins and a `next` that fits."""
    best: tuple[int, int] | None = None
    for mapping in libc:
        if "w" not in mapping.permissions:
            continue
        raw = memory.read(mapping.start, min(mapping.end - mapping.start, 16 << 20))
        words = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64)
        if len(words) < _STATE_BYTES // 8:
            continue
        addresses = mapping.start + 8 * np.arange(len(words), dtype=np.uint64)
        # An empty bin's two links hold the address 16 bytes before the first of them.
        distance = addresses - words
        empty = (distance[:-1] == 16) & (distance[1:] == 24)
        for parity in (0, 1):
            # Bins lie 16 bytes apart, so only every second word can be one.
            here = empty[parity::2].astype(np.int64)
            if len(here) < _BIN_COUNT:
                continue
            total = np.concatenate([[0], np.cumsum(here)])
            inside = total[_BIN_COUNT:] - total[:-_BIN_COUNT]
            for at in np.argsort(-inside, kind="stable")[:_MOST_ARENAS]:
                if inside[at] < _FEW_EMPTY:
                    break
                first = int(parity + 2 * at)
                arena = int(addresses[first]) - _BINS
                if arena < mapping.start:
                    continue
                score = int(inside[at]) + (1000 if _plausible(memory, arena) else 0)
                if score >= 1000 and (best is None or score > best[0]):
                    best = (score, arena)
    return None if best is None else best[1]


def _plausible(memory: Memory, arena: int) -> bool:
    """Whether following `next` leads back here, through arenas at the start of heaps."""
    at = arena
    for _ in range(_MOST_ARENAS):
        raw = memory.read(at + _NEXT, 8)
        if len(raw) < 8:
            return False
        at = int.from_bytes(raw, "little")
        if at == arena:
            return True
        if at % 16 or not 16 <= at % _HEAP_BYTES <= 256:
            return False
    return False


def _ring(work: _Walk, main: int) -> list[int]:
    arenas, at = [main], work.word(main + _NEXT)
    while at != main and at and len(arenas) < _MOST_ARENAS:
        arenas.append(at)
        at = work.word(at + _NEXT)
    return arenas


def _main_heap(work: _Walk, arena: int) -> None:
    parts = [m for m in work.memory.mappings if m.path == "[heap]"]
    top = work.word(arena + _TOP)
    if not parts:
        # A core file does not name it; and a program may never have moved its break.
        parts = [m for m in work.memory.mappings if m.start <= top < m.end and not m.path][:1]
    # The program may have given some of its pages other permissions.
    start, end = (parts[0].start, parts[0].end) if parts else (0, 0)
    for part in parts[1:]:
        end = part.end if part.start == end else end
    if not start <= top < end:
        if top and top != arena + _TOP:
            work.notes.append("the main arena's top is not in the heap")
        return
    first = (start + 15) & ~15
    size = work.word(top + 8) & ~7
    work.regions.append((start, end))
    work.runs.append(_Run(first, top, end, "the main heap"))
    work.top_bytes += min(size, end - top)
    work.enumerated += min(size, end - top)


def _other_heaps(work: _Walk, arena: int) -> None:
    info_bytes = arena % _HEAP_BYTES
    top = work.word(arena + _TOP)
    heap = top & ~(_HEAP_BYTES - 1)
    seen: set[int] = set()
    while heap and heap not in seen and len(seen) < _MOST_ARENAS:
        seen.add(heap)
        if work.word(heap) != arena:
            work.notes.append(f"the heap at {heap:#x} does not belong to its arena")
            return
        size = work.word(heap + 16)
        if not 0 < size <= _HEAP_BYTES:
            work.notes.append(f"the heap at {heap:#x} has an impossible size")
            return
        begins = arena + _STATE_BYTES if heap == arena - info_bytes else heap + info_bytes
        first = (begins + 15) & ~15
        holds_top = heap <= top < heap + size
        end = heap + size
        work.regions.append((heap, end))
        work.runs.append(_Run(first, top if holds_top else end, end, "an arena"))
        if holds_top:
            left = min(work.word(top + 8) & ~7, heap + size - top)
            work.top_bytes += left
            work.enumerated += left
        work.enumerated += first - heap
        heap = work.word(heap + 8)


def _chunks(work: _Walk, mangling: int = _UNKNOWN) -> tuple[Words, Sizes, Words]:
    """Walk all runs in address order."""
    room = sum(1 if r.mapped else max(r.end - r.first, 0) // _SMALLEST + 1 for r in work.runs)
    blocks = _Blocks(room)
    for run in sorted(work.runs, key=lambda each: each.first):
        if run.mapped:
            blocks.append(run.first + 16, run.end - run.first - 16)
        else:
            _walk_run(work, run, blocks, mangling)
    return blocks.columns()


def _walk_run(work: _Walk, run: _Run, blocks: _Blocks, mangling: int) -> None:
    """Walk one run of chunks, piece by piece."""
    native = library()
    at, stop = ctypes.c_uint64(run.first), ctypes.c_int(_MORE)
    free, chunks = ctypes.c_uint64(0), ctypes.c_uint64(0)
    low = min(each.first for each in work.runs)
    high = max(each.end for each in work.runs)
    while stop.value == _MORE and at.value < run.end and work.chunks + chunks.value < _MOST_CHUNKS:
        base = at.value
        raw = work.memory.read(base, min(_PIECE, run.readable - base))
        if len(raw) < _SMALLEST:
            work.notes.append(f"{run.where} cannot be read from {base:#x} on")
            break
        blocks.count += native.lss_walk_chunks(
            raw, base, len(raw), ctypes.byref(at), run.end,
            blocks.starts[blocks.count :].ctypes.data, blocks.sizes[blocks.count :].ctypes.data,
            blocks.links[blocks.count :].ctypes.data, len(blocks.starts) - blocks.count,
            mangling, low, high,
            ctypes.byref(free), ctypes.byref(chunks), ctypes.byref(stop),
        )  # fmt: skip
        if stop.value == _MORE and at.value == base:
            # A chunk larger than the copy; its size was found possible. The next one has its state.
            size = int.from_bytes(raw[8:16], "little") & ~7
            flags = work.memory.read(base + size + 8, 8)
            if base + size < run.end and len(flags) < 8:
                work.notes.append(f"{run.where} cannot be read beyond {base:#x}")
                break
            if base + size >= run.end or flags[0] & 1:
                blocks.append(base + 16, size - 8)
            else:
                work.free_bytes += size - 8
            work.chunks += 1
            at.value = base + size
    work.free_bytes += free.value
    work.chunks += chunks.value
    work.enumerated += max(min(at.value, run.end) - run.first, 0)
    if stop.value == _CORRUPT:
        work.notes.append(
            f"{run.where} is damaged at {at.value:#x}: a chunk has an impossible size, what follows"
            f" in it was not walked"
        )


def _mmapped(work: _Walk) -> None:
    """Large blocks have mappings of their own, which the kernel may have joined."""
    owned = sorted(work.regions)
    ends = [end for _, end in owned]
    for mapping in work.memory.mappings:
        if mapping.path or mapping.permissions[:2] != "rw":
            continue
        after = bisect_right(ends, mapping.start)
        if after < len(owned) and owned[after][0] < mapping.end:
            continue
        at = mapping.start
        while at < mapping.end:
            raw = work.memory.read(at, 16)
            if len(raw) < 16:
                break
            before = int.from_bytes(raw[:8], "little")
            field_ = int.from_bytes(raw[8:], "little")
            size = field_ & ~7
            if (
                field_ & 7 != _MMAPPED
                or before
                or size % 4096
                or not 4096 <= size <= mapping.end - at
            ):
                break
            work.runs.append(_Run(_aligned(work, at, size), at + size, at + size, "", mapped=True))
            work.regions.append((at, at + size))
            work.enumerated += size
            at += size


def _aligned(work: _Walk, at: int, size: int) -> int:
    """Return where the chunk in a mapping of its own begins: not at `at` if it was aligned.

    Then the size that it leaves out is in front of it.
    """
    step = 2 * 4096
    while step < size:
        chunk = (at + 16 + step - 1) // step * step - 16
        raw = work.memory.read(chunk, 16) if chunk < at + size else b""
        before, rest = int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")
        if len(raw) == 16 and before == chunk - at and rest == (at + size - chunk) | _MMAPPED:
            return chunk
        step *= 2
    return at


class _Lists:
    """Follows lists of free chunks through the blocks that look used (native/scan/lists.c)."""

    def __init__(self, work: _Walk, starts: Words, sizes: Sizes, links: Words) -> None:
        self._starts, self._sizes, self._links = starts, sizes, links
        self._read = READER(work.word)

    def __call__(self, heads: Words, leads_to: int, found: Flags) -> None:
        """Set `found` for the blocks at `heads` and what they lead to."""
        heads = np.ascontiguousarray(heads, np.uint64)
        library().lss_follow_lists(
            self._starts.ctypes.data, self._sizes.ctypes.data, self._sizes.dtype != np.uint32,
            len(self._starts), self._links.ctypes.data, heads.ctypes.data, len(heads), leads_to,
            found.ctypes.data, self._read,
        )  # fmt: skip


def _cached(work: _Walk, arenas: list[int], starts: Words, sizes: Sizes, follow: _Lists) -> Flags:
    """Say which blocks look used but wait in a tcache or fastbin."""
    found = np.zeros(len(starts), np.bool_)
    bins = np.concatenate([read_words(work.memory, a + _FASTBINS, _FASTBIN_COUNT) for a in arenas])
    follow(bins[bins != 0] + np.uint64(16), _TO_CHUNK, found)
    tables = starts[sizes == _TCACHE_CHUNK - 8]
    for low in range(0, len(tables), _TCACHES_AT_ONCE):
        rows = read_rows(work.memory, tables[low : low + _TCACHES_AT_ONCE], _TCACHE_BINS * 10 // 8)
        counts, entries = rows.view(np.uint16)[:, :_TCACHE_BINS], rows[:, _TCACHE_BINS // 4 :]
        # Where they differ, its thread is just taking a block or giving one back.
        odd = np.count_nonzero((counts > 0) != (entries > 0), axis=1)
        entries = entries[odd <= 1]
        # A tcache has chunks of one size in each bin: else this is some other block.
        at = np.minimum(np.searchsorted(starts, entries), len(starts) - 1)
        wanted = 24 + 16 * np.arange(_TCACHE_BINS)
        fits = (entries == 0) | ((starts[at] == entries) & (sizes[at] == wanted))
        entries = entries[fits.all(axis=1)]
        follow(entries[entries != 0], _TO_BLOCK, found)
    return found


def _moving(work: _Walk, starts: Words, follow: _Lists) -> Flags:
    """Say which blocks threads may have in hand inside malloc or free.

    There a block is known by its chunk, 16 bytes before it, and what is on its way from one list
    to another one hangs together by links that are mangled (safe-linking); a program's own
    pointers are not.
    """
    moving = np.zeros(len(starts), np.bool_)
    if not len(starts):
        return moving
    words = [np.empty(0, np.uint64)]
    for thread in work.memory.threads:
        top = read_words(work.memory, thread.sp & ~7, _STACK_WORDS)
        words += [thread.words.astype(np.uint64), top]
    known = np.unique(np.concatenate(words))
    for chunk in (False, True):
        blocks = known + np.uint64(16) if chunk else known
        at = np.minimum(np.searchsorted(starts, blocks), len(starts) - 1)
        heads = np.unique(at[starts[at] == blocks])
        reached = np.zeros(len(starts), np.bool_)
        follow(starts[heads], _TO_EITHER, reached)
        if not chunk:
            # What a register points to is the program's, unless more hangs on it.
            reached[heads] = False
        moving |= reached
    return moving


def _mangling(version: str) -> int:
    if not version:
        return _UNKNOWN
    major, minor = (int(part) for part in version.split("."))
    return _MANGLED if (major, minor) >= _MANGLING_SINCE else _PLAIN


_versions: dict[tuple[tuple[int, int], int], str] = {}  # by the file of libc


def _version(memory: Memory, libc: list[Mapping]) -> str:
    file = (libc[0].device, libc[0].inode) if libc else ((0, 0), 0)
    if file not in _versions:
        found = _read_version(memory, libc)
        if not found or not file[1]:
            return found
        _versions[file] = found
    return _versions[file]


def _read_version(memory: Memory, libc: list[Mapping]) -> str:
    for mapping in libc:
        if "w" in mapping.permissions or "x" in mapping.permissions:
            continue
        raw = memory.read(mapping.start, min(mapping.end - mapping.start, 4 << 20))
        match = re.search(rb"GNU C Library .{0,80}? version (\d+\.\d+)", raw)
        if match:
            return match[1].decode()
    return ""
