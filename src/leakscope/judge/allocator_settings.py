# SPDX-License-Identifier: Apache-2.0
"""Which setting makes an allocator give back what it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.words import bytes_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.census import HeapGrowth, Space

__all__ = ["keeps_much", "settings_for"]

_LEAST = 16 << 20  # bytes that are worth a setting
_MANY_ARENAS = 3
_MAIN = 0.7  # of what is free: then arenas are not what keeps it


def keeps_much(heap: HeapGrowth) -> bool:
    """Whether more is free in memory than in use, and worth to be told."""
    return heap.spaces.free > max(heap.now.bytes, _LEAST)


def settings_for(heap: HeapGrowth) -> tuple[str, ...]:
    """Return what to set, the most promising first; nothing when little is kept."""
    if heap.spaces.free < _LEAST:
        return ()
    name = heap.allocator
    found: list[str] = []
    if "jemalloc" in name:
        found.append(
            "MALLOC_CONF=background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0 gives free"
            " pages back within seconds"
        )
        found.append("MALLOC_CONF=narenas:2 keeps fewer arenas, at the cost of contention")
    if "tcmalloc" in name:
        found.append(
            "TCMALLOC_RELEASE_RATE=10 gives free pages back sooner;"
            " MallocExtension::instance()->ReleaseFreeMemory() at once"
        )
    if "glibc" in name:
        found += _glibc(heap)
    return tuple(found)


def _glibc(heap: HeapGrowth) -> list[str]:
    spaces = heap.spaces
    arenas = [part for part in spaces.parts if part.name.startswith("arena ")]
    found = []
    if len(arenas) >= _MANY_ARENAS and _free(arenas) > (1 - _MAIN) * spaces.free:
        found.append(
            f"MALLOC_ARENA_MAX=2: {bytes_text(_free(arenas))} of it are spread over"
            f" {len(arenas)} arenas of threads"
        )
    top = heap.account.top if heap.account is not None else 0
    if spaces.whole_pages > spaces.free // 2:
        found.append(
            f"malloc_trim(0) in the program, now and then: {bytes_text(spaces.whole_pages)} are whole"
            " pages that it gives back"
        )
        if top > spaces.free // 2:
            found.append(
                "MALLOC_TRIM_THRESHOLD_=131072 gives the free end of the heap back at each free()"
            )
        found.append(
            "MALLOC_MMAP_THRESHOLD_=131072 keeps large blocks out of the heap: each is given back"
            " when it is freed"
        )
    else:
        size = f" of {spaces.beside[0][0]:,} bytes" if spaces.beside else ""
        found.append(
            f"no setting gives it back: it lies between blocks{size} that are in use; allocate"
            " what lives long apart from what lives briefly, or try jemalloc"
        )
    return found


def _free(parts: Sequence[Space]) -> int:
    return sum(part.free for part in parts)
