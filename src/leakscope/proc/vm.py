# SPDX-License-Identifier: Apache-2.0
"""The state of the page allocator: pressure, fragmentation, swapping and pages kept per CPU."""

from __future__ import annotations

from leakscope.proc.text import read_number, read_text

__all__ = [
    "fragmentation",
    "parse_buddyinfo",
    "parse_numbers",
    "parse_per_cpu_pages",
    "parse_pressure",
    "read_buddyinfo",
    "read_max_mappings",
    "read_per_cpu_pages",
    "read_pressure",
    "read_vmstat",
]


def parse_numbers(text: str) -> dict[str, int]:
    """Read the "name number" lines of /proc/vmstat, memory.stat and memory.events."""
    pairs = (line.split() for line in text.split("\n"))
    return {p[0]: int(p[1]) for p in pairs if len(p) == 2 and p[1].isdecimal()}


def read_vmstat() -> dict[str, int]:
    """Return the counters since boot; empty without /proc."""
    return parse_numbers(read_text("/proc/vmstat") or "")


def read_max_mappings() -> int:
    """Return how many mappings a process may have, the kernel's default when it cannot be read."""
    return read_number("/proc/sys/vm/max_map_count") or 65_530


def parse_buddyinfo(text: str) -> tuple[int, ...]:
    """Return the number of free blocks of 2**n pages, all nodes and zones together."""
    total: list[int] = []
    for line in text.split("\n"):
        counts = [int(word) for word in line.partition("zone")[2].split()[1:] if word.isdecimal()]
        total += [0] * (len(counts) - len(total))
        for order, count in enumerate(counts):
            total[order] += count
    return tuple(total)


def read_buddyinfo() -> tuple[int, ...]:
    """Return `parse_buddyinfo` of this machine; empty without permission."""
    return parse_buddyinfo(read_text("/proc/buddyinfo") or "")


def fragmentation(blocks: tuple[int, ...], order: int = 9) -> float | None:
    """Return the share of free memory that lies in blocks too small for 2**order pages.

    0: all of it could serve a huge page (order 9 on x86-64); 1: none of it. None: nothing is
    free. This is the kernel's unusable free space index (Gorman, 2005).
    """
    pages = [count << each for each, count in enumerate(blocks)]
    return sum(pages[:order]) / sum(pages) if sum(pages) else None


def parse_per_cpu_pages(text: str) -> int:
    """Return how many free pages wait in the lists of single CPUs, from /proc/zoneinfo."""
    total, inside = 0, False
    for line in text.split("\n"):
        words = line.split()
        if words[:1] == ["pagesets"]:
            inside = True
        elif words[:1] == ["Node"]:
            inside = False
        elif inside and len(words) == 2 and words[0] == "count:" and words[1].isdecimal():
            total += int(words[1])
    return total


def read_per_cpu_pages() -> int:
    """Return `parse_per_cpu_pages` of this machine; 0 without permission."""
    return parse_per_cpu_pages(read_text("/proc/zoneinfo") or "")


def parse_pressure(text: str) -> dict[str, float]:
    """Return the shares of time (0..100) in a text of /proc/pressure: "some avg10" and so on."""
    found: dict[str, float] = {}
    for line in text.split("\n"):
        kind, *pairs = line.split() or [""]
        for pair in pairs:
            name, _, value = pair.partition("=")
            if name.startswith("avg"):
                try:
                    found[f"{kind} {name}"] = float(value)
                except ValueError:
                    continue
    return found


def read_pressure() -> dict[str, float] | None:
    """Return how long tasks waited for memory; None: a kernel without PSI."""
    text = read_text("/proc/pressure/memory", 4096)
    return None if text is None else parse_pressure(text)
