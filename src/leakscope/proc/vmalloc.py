# SPDX-License-Identifier: Apache-2.0
"""Large kernel buffers by the function that took them, from /proc/vmallocinfo (root alone)."""

from __future__ import annotations

from dataclasses import dataclass

from leakscope.proc.text import read_text

__all__ = ["Buffers", "parse_vmallocinfo", "read_vmallocinfo"]


@dataclass(frozen=True, slots=True)
class Buffers:
    """What one function of the kernel holds."""

    caller: str
    count: int
    bytes: int  # guard pages and mapped devices left out


def parse_vmallocinfo(text: str, page: int = 4096) -> tuple[Buffers, ...]:
    """Add up the text of /proc/vmallocinfo by caller; the heaviest first.

    Only areas with pages of their own count: ioremap and vmap show other memory.
    """
    sums: dict[str, tuple[int, int]] = {}
    for line in text.split("\n"):
        words = line.split()
        pages = next((w[6:] for w in words[3:] if w.startswith("pages=")), "")
        if len(words) < 4 or not pages.isdecimal() or "vmalloc" not in words:
            continue
        caller = words[2].partition("+")[0]
        count, size = sums.get(caller, (0, 0))
        sums[caller] = count + 1, size + int(pages) * page
    found = [Buffers(caller, count, size) for caller, (count, size) in sums.items()]
    return tuple(sorted(found, key=lambda b: (-b.bytes, b.caller)))


def read_vmallocinfo(page: int = 4096) -> tuple[Buffers, ...] | None:
    """Return the buffers of this kernel; None without permission."""
    text = read_text("/proc/vmallocinfo")
    return None if text is None else parse_vmallocinfo(text, page)
