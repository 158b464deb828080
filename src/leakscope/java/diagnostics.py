# SPDX-License-Identifier: Apache-2.0
"""What jcmd prints: class histograms and native memory, as numbers."""

from __future__ import annotations

import re

from leakscope.java._names import plain_name

__all__ = ["heap_estimate", "parse_histogram", "parse_native_memory", "parse_string_table"]

_ROW = re.compile(r"^\s*\d+:\s+(\d{1,18})\s+(\d{1,18})\s+(\S+)", re.MULTILINE)
_CATEGORY = re.compile(
    r"^-\s+(.+?) \(reserved=(\d{1,15})KB, committed=(\d{1,15})KB\)", re.MULTILINE
)
_TOTAL = re.compile(r"^Total: reserved=(\d{1,15})KB, committed=(\d{1,15})KB", re.MULTILINE)
_ENTRIES = re.compile(r"^Number of entries\s*:\s*(\d{1,15})", re.MULTILINE)


def parse_histogram(text: str) -> dict[str, tuple[int, int]]:
    """Return objects and bytes of each class of `GC.class_histogram`; several loaders' together."""
    found: dict[str, tuple[int, int]] = {}
    for count, size, name in _ROW.findall(text):
        plain = plain_name(name)
        before = found.get(plain, (0, 0))
        found[plain] = (before[0] + int(count), before[1] + int(size))
    return found


def parse_native_memory(text: str) -> dict[str, int] | None:
    """Return committed bytes by category of `VM.native_memory summary scale=KB`, "Total" as well.

    None where native memory is not tracked.
    """
    total = _TOTAL.search(text)
    if total is None:
        return None
    found = {name.strip(): int(committed) * 1024 for name, _, committed in _CATEGORY.findall(text)}
    found["Total"] = int(total[2]) * 1024
    return found


def parse_string_table(text: str) -> int | None:
    """Return how many strings are interned, from `VM.stringtable`."""
    found = _ENTRIES.search(text)
    return None if found is None else int(found[1])


def heap_estimate(histogram: dict[str, tuple[int, int]]) -> int:
    """Return about how large a dump will be: the bytes that live, and the head of each object."""
    count = sum(one[0] for one in histogram.values())
    size = sum(one[1] for one in histogram.values())
    return int(1.4 * size) + 26 * count + (2 << 20)
