# SPDX-License-Identifier: Apache-2.0
"""The machine's memory, from /proc/meminfo, in bytes."""

from __future__ import annotations

from leakscope.proc.text import read_text

__all__ = ["GAUGES", "parse_meminfo", "read_meminfo"]

GAUGES = {
    "AnonPages": "anon",
    "Shmem": "shmem",
    "SUnreclaim": "slab_unreclaimable",
    "SReclaimable": "slab_reclaimable",
    "KernelStack": "kernel_stacks",
    "PageTables": "page_tables",
    "Percpu": "percpu",
    "VmallocUsed": "vmalloc",
    "Hugetlb": "hugetlb",
}
"""Fields that are worth a course, and what that is called (`model.measures`)."""


def parse_meminfo(text: str) -> dict[str, int]:
    """Return name -> bytes; the few fields without "kB" (page counts) as they are.

    A line that does not parse is left out: fields differ from kernel to kernel.
    """
    fields: dict[str, int] = {}
    for line in text.split("\n"):
        name, _, rest = line.partition(":")
        words = rest.split()
        if not words or not words[0].isdecimal():
            continue
        fields[name.strip()] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return fields


def read_meminfo() -> dict[str, int]:
    """Return `parse_meminfo` of this machine; empty when /proc is not mounted."""
    return parse_meminfo(read_text("/proc/meminfo") or "")
