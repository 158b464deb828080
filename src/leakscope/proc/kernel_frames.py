# SPDX-License-Identifier: Apache-2.0
"""A frame of the kernel as its files print it, and the functions that only allocate.

`sym+0xOFF/0xSIZE [module]`, with the address before it (`[<ffffffff81000000>]`) until Linux 6.7,
hashed since 4.15; with file and line behind it where a script added them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KernelFrame", "is_allocator", "parse_frame", "without_allocators"]

_FRAME = re.compile(
    r"\s{0,20}(?:\[<(?:\(_{1,8}ptrval_{1,8}\)|([0-9a-f]{1,16}))>\] ?)?"
    r"(?:0x([0-9a-f]{1,16})"
    r"|([A-Za-z_$][\w.$]{0,250})(?:\+0x([0-9a-f]{1,16})/0x([0-9a-f]{1,16}))?)"
    r"(?: \[([\w-]{1,64})(?: [0-9a-f]{4,64})?\])?(?: (\S{1,4096}):(\d{1,9}))?( \[inline\])?\s{0,20}"
)
_ALLOCATOR = re.compile(
    r"(?:kmemleak_(?:alloc|vmalloc|no_scan|update_trace|not_leak|ignore)"
    r"|(?:__|do_)*(?:k[mvz]{1,2}alloc|kcalloc|krealloc|kmem_cache_|slab_|vmalloc|vzalloc|v[mz]alloc"
    r"|___?slab|pcpu_alloc|alloc_percpu|kmemdup|kstrn?dup|kvcalloc|kvrealloc|get_free_pages"
    r"|alloc_pages|alloc_frozen_pages|get_page_from_freelist|post_alloc_hook|prep_new_page"
    r"|alloc_tag|create_object|save_stack|kasan_|register_early_stack|alloc_slab_|alloc_tagging_"
    r"|folio_alloc|set_page_owner|set_track|stack_depot|allocate_slab|new_slab|refill_objects"
    r"|alloc_from_pcs|refill_sheaf))\w*(?:\.\w{1,40})*"
)
_KINDS = (
    ("vmalloc", "vmalloc"),
    ("vzalloc", "vmalloc"),
    ("percpu", "percpu"),
    ("pcpu", "percpu"),
    ("pages", "alloc_pages"),
    ("kmem_cache", "kmem_cache_alloc"),
)


class KernelFrame(NamedTuple):
    """One frame. What was not printed is None; `address` is None where it was hashed."""

    function: str | None
    offset: int | None = None
    size: int | None = None  # of the function's code
    module: str | None = None
    address: int | None = None
    file: str | None = None
    line: int | None = None
    inlined: bool = False


def parse_frame(text: str) -> KernelFrame | None:
    """Read one line of a stack; None where it is none."""
    found = _FRAME.fullmatch(text)
    if found is None:
        return None
    return KernelFrame(
        found[3],
        None if found[4] is None else int(found[4], 16),
        None if found[5] is None else int(found[5], 16),
        found[6],
        _address(found[2] or found[1]),
        found[7],
        None if found[8] is None else int(found[8]),
        found[9] is not None,
    )


def _address(digits: str | None) -> int | None:
    """Return a kernel's address; None for a hash of one, whose upper half is zero."""
    if digits is None or (len(digits) > 8 and not digits.startswith("ff")):
        return None
    return int(digits, 16)


def is_allocator(function: str) -> bool:
    """Whether a function of the kernel only hands out memory, on behalf of its caller."""
    return _ALLOCATOR.fullmatch(function) is not None


def without_allocators(frames: Sequence[KernelFrame]) -> tuple[str, tuple[KernelFrame, ...]]:
    """Return what kind of allocation it is, and the stack from the function that asked for it.

    Frames are innermost first. A stack of nothing but allocators is returned whole.
    """
    kind = "kmalloc"
    for at, frame in enumerate(frames):
        name = frame.function
        # A module's own functions may be called so; what the kernel's headers put into them may not.
        if (
            name is None
            or not is_allocator(name)
            or (frame.module is not None and not frame.inlined)
        ):
            return kind, tuple(frames[at:])
        if kind == "kmalloc":
            kind = next((kind for part, kind in _KINDS if part in name), kind)
    return kind, tuple(frames)
