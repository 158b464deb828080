# SPDX-License-Identifier: Apache-2.0
"""Memory that each source line of the kernel holds, from /proc/allocinfo (Linux 6.10 and newer)."""

from __future__ import annotations

import re
from typing import NamedTuple

from leakscope.proc.text import read_text

__all__ = ["AllocLine", "AllocPlace", "parse_allocinfo", "read_allocinfo", "read_profiling"]

# lib/alloc_tag.c: bytes are signed, calls below zero are printed as what is missing to 2⁶⁴, and
# every line ends in a space. Version 2 appends words such
# as "accurate:no" to a line.
_LINE = re.compile(
    r"[ \t]{0,32}(-?\d{1,18})[ \t]{1,32}(-?\d{1,20})[ \t](\S{1,4096}):(\d{1,9})"
    r"(?:[ \t]\[([^\]\s]{1,64})\])?[ \t]func:(\S{1,512})((?:[ \t]\S{1,64}){0,8})[ \t]{0,8}"
)
_MOST = 64 << 20  # bytes of text; a large kernel has 1 MB of it
_SWITCH = "/proc/sys/vm/mem_profiling"


class AllocPlace(NamedTuple):
    """A place in the kernel's sources that allocates. `module` is None for the kernel itself."""

    file: str
    line: int
    module: str | None
    function: str


class AllocLine(NamedTuple):
    """What one place holds now, from so many calls that were not freed yet. `exact` is False where the kernel says that it lost count."""

    place: AllocPlace
    bytes: int
    calls: int
    exact: bool = True


def parse_allocinfo(text: str) -> tuple[AllocLine, ...]:
    """Read the text of /proc/allocinfo; lines that do not fit are left out.

    A place that stands there more than once, as an inlined function does, is added up. A counter
    below zero, which is one of memory that was counted elsewhere or before, counts as nothing.
    """
    sums: dict[AllocPlace, tuple[int, int, bool]] = {}
    for line in text.split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        place = AllocPlace(match[3], int(match[4]), match[5], match[6])
        size, count, exact = sums.get(place, (0, 0, True))
        exact = exact and "accurate:no" not in match[7]
        sums[place] = size + int(match[1]), count + _signed(int(match[2])), exact
    return tuple(
        AllocLine(place, max(0, size), max(0, count), exact)
        for place, (size, count, exact) in sums.items()
    )


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def read_allocinfo(path: str = "/proc/allocinfo") -> tuple[AllocLine, ...] | None:
    """Return what this kernel's lines hold; None where it does not tell, or not to us."""
    text = read_text(path, _MOST)
    return None if text is None else parse_allocinfo(text)


def read_profiling() -> bool | None:
    """Return whether the kernel counts now (vm.mem_profiling); None: it cannot."""
    text = read_text(_SWITCH, 16)
    return None if text is None else text.strip() == "1"
