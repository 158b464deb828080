# SPDX-License-Identifier: Apache-2.0
"""How much of a heap is in use and how much is free inside the allocator, without a scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.errors import TargetError
from leakscope.model.heap import Account, HeapAccount
from leakscope.proc.process import read_resident
from leakscope.scan.allocators import KNOWN, walk
from leakscope.target.image import open_image
from leakscope.target.resident import Resident

if TYPE_CHECKING:
    from leakscope.scan.allocators import Heap

__all__ = ["account_heap", "account_of"]


def account_of(heap: Heap, resident: int) -> Account:
    """Return where the memory of a walked heap is; `resident` is that of the whole process."""
    return Account(
        resident=resident,
        heap_mapped=heap.mapped_bytes,
        live=heap.live_bytes,
        free_in_allocator=heap.free_bytes,
        top=heap.top_bytes,
        overhead=heap.overhead_bytes,
    )


def account_heap(pid: int) -> HeapAccount:
    """Take an image of the process, and walk the heap in it.

    Raises `TargetError` when the process may not be stopped, ends meanwhile, or uses an
    allocator that is not known.
    """
    with open_image(pid) as image:
        heap = walk(Resident(image))
        image.check()
        resident = read_resident(pid)
        paused_ns = image.paused_ns
    if heap is None:
        raise TargetError(
            f"process {pid} has no heap of an allocator that can be walked from outside",
            hint=f"{KNOWN} are known.",
        )
    return HeapAccount(
        allocator=heap.allocator,
        blocks=len(heap.sizes),
        account=account_of(heap, resident),
        share=heap.enumerated_share,
        pause_ms=paused_ns / 1e6,
    )
