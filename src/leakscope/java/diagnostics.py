# SPDX-License-Identifier: Apache-2.0
"""What jcmd prints: class histograms and native memory, as numbers."""

from __future__ import annotations

import re

from leakscope.formats.jmap_histogram import class_row
from leakscope.formats.nmt import committed_in

__all__ = ["heap_estimate", "parse_histogram", "parse_native_memory", "parse_string_table"]

_ENTRIES = re.compile(r"^Number of entries\s*:\s*(\d{1,15})", re.MULTILINE)


def parse_histogram(text: str) -> dict[str, tuple[int, int]]:
    """Return objects and bytes of each class of `GC.class_histogram`; several loaders' together."""
    found: dict[str, tuple[int, int]] = {}
    for name, count, size in filter(None, map(class_row, text.splitlines())):
        before = found.get(name, (0, 0))
        found[name] = (before[0] + count, before[1] + size)
    return found


def parse_native_memory(text: str) -> dict[str, int] | None:
    """Return committed bytes by category of `VM.native_memory summary scale=KB`, "Total" as well.

    None where native memory is not tracked.
    """
    return committed_in(text.splitlines())


def parse_string_table(text: str) -> int | None:
    """Return how many strings are interned, from `VM.stringtable`."""
    found = _ENTRIES.search(text)
    return None if found is None else int(found[1])


def heap_estimate(histogram: dict[str, tuple[int, int]]) -> int:
    """Return about how large a dump will be: the bytes that live, and the head of each object."""
    count = sum(one[0] for one in histogram.values())
    size = sum(one[1] for one in histogram.values())
    return int(1.4 * size) + 26 * count + (2 << 20)
