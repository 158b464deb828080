# SPDX-License-Identifier: Apache-2.0
"""What a source line of the kernel allocates for: itself, a cache that it gives back, or a program.

/proc/allocinfo counts everything: pages of programs and of files, and objects of caches that go
under pressure, stand there like what a driver forgot. A line of the first two kinds is no leak of
the kernel's, however it grows.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leakscope.proc.allocinfo import AllocPlace

__all__ = ["Purpose", "place_name", "purpose_of"]


class Purpose(StrEnum):
    """For whom a line allocates."""

    KERNEL = "kernel"
    CACHE = "cache"  # given back when memory is short
    PROGRAM = "program"  # the memory of a process, which its own gauges show
    SLAB = "slab"  # pages behind objects that are counted at their own lines


# File, function. The kernel's own caches of files, names and pages.
_CACHES = (
    (r"mm/(?:filemap|readahead|truncate|workingset)\.c", r".*"),
    (r"mm/(?:swap_state|zswap|zsmalloc|page_io)\.c", r".*"),
    (r"fs/(?:dcache|inode|buffer|mbcache|mpage)\.c", r".*"),
    (r"fs/[\w./-]*", r"\w*(?:alloc_inode|inode_alloc|i_alloc|alloc_folio|grab_folio)\w*"),
    (r"fs/(?:btrfs/extent_io|btrfs/extent_map|ext4/extents_status|xfs/xfs_buf)\.c", r".*"),
    (r"lib/(?:xarray|radix-tree)\.c", r".*"),
    (r"fs/(?:proc|sysfs|kernfs|overlayfs)/inode\.c", r".*"),
    (r"security/[\w./-]*", r"\w*inode\w*"),
)
# Pages of programs: anonymous, shared, huge, and the tables that map them.
_PROGRAMS = (
    (
        r"mm/(?:memory|huge_memory|khugepaged|shmem|mempolicy|migrate|hugetlb|ksm|userfaultfd)\.c",
        r".*",
    ),
    (r"include/linux/(?:highmem|pagemap|mm)\.h", r".*"),
    (r"include/asm-generic/pgalloc\.h", r".*"),
    (r"arch/[\w-]+/mm/[\w-]*(?:pgtable|pgd)\w*\.c", r".*"),
)
_SLABS = (
    (
        r"mm/(?:slub|slab)\.c",
        r"(?:alloc_slab_page|allocate_slab|kmem_getpages|alloc_slab_obj_exts)",
    ),
)
_KINDS = (
    (Purpose.SLAB, _SLABS),
    (Purpose.PROGRAM, _PROGRAMS),
    (Purpose.CACHE, _CACHES),
)
_RULES = [
    (purpose, re.compile(file), re.compile(function))
    for purpose, rules in _KINDS
    for file, function in rules
]


def purpose_of(place: AllocPlace) -> Purpose:
    """Return for whom a line allocates; what is not known allocates for the kernel itself."""
    if place.module is None or place.file.startswith("fs/"):
        for purpose, file, function in _RULES:
            if file.fullmatch(place.file) and function.fullmatch(place.function):
                return purpose
    return Purpose.KERNEL


def place_name(place: AllocPlace) -> str:
    """Return such as "foo_open at drivers/net/foo.c:12 [foo]"."""
    module = f" [{place.module}]" if place.module is not None else ""
    return f"{place.function} at {place.file}:{place.line}{module}"
