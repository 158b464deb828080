# SPDX-License-Identifier: Apache-2.0
"""The account of the machine: every byte of MemTotal in one named line, and the rest in the open."""

from __future__ import annotations

from leakscope.model.triage import AccountLine

__all__ = ["account", "unexplained"]


def account(fields: dict[str, int], per_cpu_free: int = 0) -> tuple[AccountLine, ...]:
    """Divide MemTotal of /proc/meminfo (bytes) into lines that add up to it exactly.

    `per_cpu_free` is what free pages in the lists of single CPUs take: MemFree leaves them out.

    The last line is the remainder: pages that drivers and the kernel took straight from the
    page allocator and that no counter shows. It is negative when counters overlap.
    """
    get = fields.get
    anon, cached, buffers = get("AnonPages", 0), get("Cached", 0), get("Buffers", 0)
    shmem = min(get("Shmem", 0), cached)
    lru = get("Active", 0) + get("Inactive", 0) + get("Unevictable", 0)
    # Pages of the swap cache that are mapped again count as AnonPages already.
    swap_cache = max(0, min(get("SwapCached", 0), lru - anon - cached - buffers))
    reclaimable = get("SReclaimable", 0)
    misc = max(0, get("KReclaimable", reclaimable) - reclaimable)
    stacks = get("KernelStack", 0)
    lines = [
        AccountLine("free", get("MemFree", 0) + per_cpu_free, "used by nobody"),
        AccountLine("programs", anon, "private memory: heaps and stacks"),
        AccountLine("page cache", cached - shmem + buffers, "files; given back on demand"),
        AccountLine("shared memory and tmpfs", shmem, "stays until it is deleted or swapped"),
        AccountLine("swap cache", swap_cache, "on its way to or from swap"),
        AccountLine("compressed swap", get("Zswap", 0), "swapped pages kept in memory by zswap"),
        AccountLine("balloon", get("Balloon", 0), "taken back by the hypervisor"),
        AccountLine("huge pages", get("Hugetlb", 0), "reserved for hugetlb"),
        AccountLine(
            "kernel caches, reclaimable",
            reclaimable + misc,
            "names, inodes; given back on demand",
        ),
        AccountLine("kernel caches, unreclaimable", get("SUnreclaim", 0), "kernel objects in use"),
        AccountLine(
            "page tables", get("PageTables", 0) + get("SecPageTables", 0), "maps of address spaces"
        ),
        AccountLine("kernel stacks", stacks, "one per thread"),
        # Stacks are mapped with vmalloc on today's kernels and would be counted twice.
        AccountLine(
            "vmalloc", max(0, get("VmallocUsed", 0) - stacks), "modules, large kernel buffers"
        ),
        AccountLine("per-CPU", get("Percpu", 0), "kernel counters and cgroups"),
    ]
    rest = get("MemTotal", 0) - sum(line.bytes for line in lines)
    lines.append(AccountLine("unexplained", rest, "kernel pages that no counter shows"))
    return tuple(lines)


def unexplained(fields: dict[str, int], per_cpu_free: int = 0) -> int:
    """Return the remainder of the account in bytes."""
    return account(fields, per_cpu_free)[-1].bytes
