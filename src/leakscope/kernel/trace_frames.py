# SPDX-License-Identifier: Apache-2.0
"""Stacks of kernel code as they are reported: without the tracer's and the allocator's frames."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from leakscope.model.builder import BuiltFrame
from leakscope.model.frames import Address, FrameName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from leakscope.proc.kallsyms import Kallsyms, KernelSymbol

__all__ = ["KERNEL", "KernelStack", "kernel_stack", "plain"]

KERNEL = "kernel"
"""The module of what is no module."""

_TRACER = re.compile(
    r"bpf_trace_run\d+|__bpf_trace_\w+|__traceiter_\w+|bpf_prog_[0-9a-f]+_\w+|bpf_get_stack\w*|bpf_dispatcher_\w+"
    r"|(?:do_)?trace_event_raw_event_\w+|trace_event_buffer_\w+|__?event_trigger\w*|event_triggers_\w+"
    r"|trace_(?:kmalloc|kmem_cache_alloc|mm_page_alloc|percpu_alloc_percpu|alloc_vmap_area)\w*|stacktrace_\w+|__ftrace_trace_stack\w*|ftrace_\w+|__trace_stack"
)
_MOST_TRACER = 8
_ALLOCATOR = re.compile(
    r"(?:__|___|do_)?(?:k[mvz]{1,2}alloc|kcalloc|k[mz]alloc|krealloc|kvrealloc|kmem_cache_|slab_|vmalloc|vzalloc"
    r"|slab_alloc|slab_post|new_slab|pcpu_alloc|alloc_percpu|kmemdup|kstrn?dup|kvmemdup|get_free_pages"
    r"|get_zeroed_page|alloc_pages|alloc_frozen_pages|alloc_page|folio_alloc|__folio_alloc|alloc_vmap_area"
    r"|get_vm_area|vmalloc_node_range|vmalloc_node|alloc_percpu_gfp|memdup_user|vmemdup_user)\w*(?:\.\w+)*"
)
# Pages that carry what other events tell of: slabs, large blocks, per-cpu chunks, vmalloc's areas.
_CARRIER = re.compile(
    r"(?:allocate_slab|alloc_slab_page|new_slab|_*slab_alloc|___slab_alloc|__slab_alloc|refill_|__refill_"
    r"|_*kmalloc_large|__kmalloc_large|pcpu_)\w*(?:\.\w+)*"
)
# What the kernel writes down on each block: it goes with the block, and says nothing of its own.
_NOTES = re.compile(
    r"(?:__alloc_object|_*create_object|kmemleak_|alloc_slab_obj_exts|__account_obj_)\w*(?:\.\w+)*"
)
_AREA = re.compile(
    r"(?:__vmalloc_area|alloc_vmap_area|__get_vm_area|vm_area_alloc_pages|__vmalloc_node_range|vmalloc_)\w*(?:\.\w+)*"
)
_PAGE_CACHE = re.compile(
    r"(?:__filemap_|filemap_|page_cache_|pagecache_|__page_cache_|grow_dev_|shmem_(?:get|alloc)_)\w*(?:\.\w+)*"
)
_TABLES = re.compile(r"_*(?:pte|pmd|pud|p4d|pgd)_alloc\w*(?:\.\w+)*")
_TASK = re.compile(
    r"(?:copy_process|kernel_clone|do_execveat_common|bprm_execve|begin_new_exec)(?:\.\w+)*"
)
_INTERRUPT = re.compile(
    r"asm_(?:sysvec|common_interrupt|exc_nmi)\w*|handle_softirqs|__do_softirq|__irq_exit_rcu|irq_exit_rcu"
    r"|el1h?_64_irq\w*|el1_irq|do_softirq\w*|common_interrupt"
)


class KernelStack(NamedTuple):
    """A stack to report, innermost frame first; `carrier` is what its blocks only serve."""

    frames: tuple[BuiltFrame, ...]
    truncated: bool
    carrier: str | None  # "slab", "vmalloc", "notes"
    interrupt: bool
    page_cache: bool = False
    tables: bool = False  # page tables
    task: bool = False  # asked for where a task begins, or becomes another program


def kernel_stack(
    addresses: Sequence[int],
    symbols: Kallsyms,
    *,
    most: int,
    lines: Mapping[KernelSymbol, Sequence[FrameName]] = MappingProxyType({}),
) -> KernelStack:
    """Name a stack of return addresses and leave out what says nothing.

    `most` is the depth at which it was cut; `lines` has what stands at a place, inlined functions
    first, where debug information tells.
    """
    named = []
    for address in addresses:
        found = symbols.find(address)
        named.append((address, found))
    names = [None if found is None else found.name for _, found in named]
    skip = 0
    for at, name in enumerate(names[:_MOST_TRACER]):
        if name is not None and _TRACER.fullmatch(name):
            skip = at + 1
    names, named = names[skip:], named[skip:]
    carrier = None
    for at, name in enumerate(names[:16]):
        if name is not None and at < _MOST_TRACER and _NOTES.fullmatch(name):
            carrier = "notes"
            break
        if name is not None and _CARRIER.fullmatch(name):
            carrier = "slab"
        elif name is not None and _AREA.fullmatch(name):
            carrier = carrier or "vmalloc"
    page_cache = any(name is not None and _PAGE_CACHE.fullmatch(name) for name in names[:8])
    tables = any(name is not None and _TABLES.fullmatch(name) for name in names[:8])
    task = any(name is not None and _TASK.fullmatch(name) for name in names)
    inner = 0
    while (
        inner < len(names) - 1
        and names[inner] is not None
        and _ALLOCATOR.fullmatch(names[inner] or "")
    ):
        inner += 1
    end = len(names)
    interrupt = False
    for at in range(inner, len(names)):
        if names[at] is not None and _INTERRUPT.fullmatch(names[at] or ""):
            end, interrupt = at + 1, True
            break
    frames = []
    for address, found in named[inner:end]:
        if found is not None and found in lines:
            frames += [BuiltFrame(name=each) for each in lines[found]]
        elif found is None:
            frames.append(BuiltFrame(Address(None, address)))
        else:
            # Its address says nothing after the next boot: where in its function it is, does.
            symbol = f"{found.name}+{found.offset:#x}"
            module = found.module or KERNEL
            frames.append(BuiltFrame(name=FrameName(found.name, symbol=symbol, module_path=module)))
    cut = len(addresses) >= most and not interrupt
    return KernelStack(tuple(frames), cut, carrier, interrupt, page_cache, tables, task)


def plain(name: str) -> str:
    """Return a name that somebody else chose, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)
