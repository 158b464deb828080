# SPDX-License-Identifier: Apache-2.0
"""A process's memory with shared pages divided fairly, from smaps_rollup or the sum of smaps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.proc.text import read_lines, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["MappedArea", "Rollup", "parse_areas", "parse_mappings", "parse_smaps", "read_areas"]
__all__ += ["read_rollup"]

_HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S{4} [0-9a-f]+ \S+ \d+ *(.*)")
_KEYS = (
    "Rss",
    "Pss",
    "Pss_Anon",
    "Pss_File",
    "Pss_Shmem",
    "Private_Clean",
    "Private_Dirty",
    "Private_Hugetlb",
    "Swap",
    "SwapPss",
    "AnonHugePages",
)


@dataclass(frozen=True, slots=True)
class Rollup:
    """Sizes in bytes."""

    rss: int
    pss: int  # shared pages divided by the number of processes that map them
    pss_anon: int
    pss_file: int
    pss_shmem: int
    uss: int  # given back if the process ended: private clean, dirty and hugetlb
    swap: int
    swap_pss: int
    anon_huge: int


def parse_smaps(lines: Iterable[str]) -> Rollup | None:
    """Add up the lines of smaps_rollup or of smaps; None when they hold no mapping.

    Kernels before 5.9 do not tell the kinds of PSS apart: those fields are 0.
    """
    sums = dict.fromkeys(_KEYS, 0)
    seen = False
    for line in lines:
        key, _, rest = line.partition(":")
        if key in sums:
            words = rest.split()
            if words and words[0].isdecimal():
                sums[key] += int(words[0]) * 1024
                seen = True
    if not seen:
        return None
    return Rollup(
        rss=sums["Rss"],
        pss=sums["Pss"],
        pss_anon=sums["Pss_Anon"],
        pss_file=sums["Pss_File"],
        pss_shmem=sums["Pss_Shmem"],
        uss=sums["Private_Clean"] + sums["Private_Dirty"] + sums["Private_Hugetlb"],
        swap=sums["Swap"],
        swap_pss=sums["SwapPss"],
        anon_huge=sums["AnonHugePages"],
    )


@dataclass(frozen=True, slots=True)
class MappedArea:
    """One mapping and what of it is in memory, in bytes."""

    start: int
    end: int
    path: str  # "" for anonymous memory, "[heap]", "[stack]", a file's path
    rss: int
    anonymous: int  # private pages, those copied from a file included


def parse_mappings(
    lines: Iterable[str], keys: Sequence[str]
) -> Iterator[tuple[str, dict[str, int], frozenset[str]]]:
    """Yield of each mapping in smaps its line as in maps, bytes by key, and VmFlags.

    What does not fit its form is left out; a key that is not there is 0.
    """
    header = ""
    sizes, flags = dict.fromkeys(keys, 0), frozenset[str]()
    for line in lines:
        key, colon, rest = line.partition(":")
        if colon and key in sizes:
            words = rest.split()
            if words and words[0].isdecimal():
                sizes[key] = int(words[0]) * 1024
        elif key == "VmFlags":
            flags = frozenset(rest.split())
        elif _HEADER.match(line):
            if header:
                yield header, sizes, flags
            header, sizes, flags = line.rstrip("\n"), dict.fromkeys(keys, 0), frozenset()
    if header:
        yield header, sizes, flags


def parse_areas(lines: Iterable[str]) -> tuple[MappedArea, ...]:
    """Read the lines of /proc/PID/smaps; what does not fit its form is left out."""
    areas: list[MappedArea] = []
    for header, sizes, _ in parse_mappings(lines, ("Rss", "Anonymous")):
        match = _HEADER.match(header)
        assert match is not None
        start, end = int(match[1], 16), int(match[2], 16)
        areas.append(MappedArea(start, end, match[3], sizes["Rss"], sizes["Anonymous"]))
    return tuple(areas)


def read_areas(pid: int | str) -> tuple[MappedArea, ...] | None:
    """Return the mappings of `pid` or "PID/task/TID"; None without permission, or when gone."""
    return parse_areas(read_lines(f"/proc/{pid}/smaps")) or None


def read_rollup(pid: int | str) -> Rollup | None:
    """Return the sums of `pid`; None without permission, or when it is gone or has no memory.

    Other users' processes need CAP_SYS_PTRACE. Kernels before 4.14 have no smaps_rollup;
    smaps is read instead.
    """
    text = read_text(f"/proc/{pid}/smaps_rollup")
    lines = read_lines(f"/proc/{pid}/smaps") if text is None else text.split("\n")
    return parse_smaps(lines)
