# SPDX-License-Identifier: Apache-2.0
"""Large kernel buffers by the function that took them, from /proc/vmallocinfo (root alone)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from leakscope.proc.text import read_text

__all__ = ["Buffers", "parse_vmallocinfo", "read_vmallocinfo"]

_PAGES = re.compile(r"pages=([0-9]{1,15})")
_MODULE = re.compile(r"\[([\w-]{1,64})\]")


@dataclass(frozen=True, slots=True)
class Buffers:
    """What one function of the kernel holds."""

    caller: str
    count: int
    bytes: int  # guard pages and mapped devices left out
    module: str | None = None  # None: the kernel itself

    @property
    def name(self) -> str:
        """Such as "drv_open [drv]"."""
        return self.caller if self.module is None else f"{self.caller} [{self.module}]"


def parse_vmallocinfo(text: str, page: int = 4096) -> tuple[Buffers, ...]:
    """Add up the text of /proc/vmallocinfo by caller; the heaviest first.

    Only areas with pages of their own count: ioremap and vmap show other memory.
    """
    sums: dict[tuple[str, str | None], tuple[int, int]] = {}
    for line in text.split("\n"):
        words = line.split()
        pages = next((m for w in words[3:] if (m := _PAGES.fullmatch(w)) is not None), None)
        if pages is None or "vmalloc" not in words:
            continue
        module = _MODULE.fullmatch(words[3])
        key = words[2].partition("+")[0], None if module is None else module[1]
        count, size = sums.get(key, (0, 0))
        sums[key] = count + 1, size + int(pages[1]) * page
    found = [Buffers(name, count, size, mod) for (name, mod), (count, size) in sums.items()]
    return tuple(sorted(found, key=lambda b: (-b.bytes, b.name)))


def read_vmallocinfo(page: int = 4096) -> tuple[Buffers, ...] | None:
    """Return the buffers of this kernel; None without permission."""
    text = read_text("/proc/vmallocinfo")
    return None if text is None else parse_vmallocinfo(text, page)
