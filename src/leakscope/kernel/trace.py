# SPDX-License-Identifier: Apache-2.0
"""Trace the kernel's allocations for a while, by BPF where it can be had, else by ftrace."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from leakscope.bpf.helper import KernelAllocations
from leakscope.bpf.wire import KINDS
from leakscope.kernel.trace_recording import KernelCounts, Traced
from leakscope.proc.meminfo import read_meminfo
from leakscope.proc.slabinfo import read_slabinfo
from leakscope.proc.text import read_text
from leakscope.words import bytes_text, count_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from leakscope.bpf.helper import KernelFilter
    from leakscope.bpf.wire import Moment

    Look = tuple[Moment, npt.NDArray[np.void]]

_MOST_LOOKS = 64  # that are kept, however long it takes

__all__ = ["kernel_counts", "thinned", "trace_by_bpf"]


def trace_by_bpf(
    which: KernelFilter,
    seconds: float,
    every: float,
    wait: Callable[[float], bool],
    attached: Callable[[], None] = lambda: None,
) -> Traced:
    """Trace for `seconds`, with a look every so many.

    `wait` sleeps until a moment of time.monotonic() and says whether to go on. Raises
    `BpfUnavailableError` before anything began, `LeakscopeError` when it broke off.
    """
    before = kernel_counts()
    with KernelAllocations(which) as helper:
        attached()
        start = time.monotonic()
        looks: list[Look] = []
        at = start
        while at < start + seconds:
            at = min(at + every, start + seconds)
            if not wait(at) or at >= start + seconds:
                break
            answer = helper.look()
            looks.append((answer.moment, answer.sites))
            every = thinned(looks, every)
        final = helper.finish()
        hello = helper.hello
        notes = list(helper.notes)
    lacking = [kind for number, kind in enumerate(KINDS) if not hello.kinds >> number & 1]
    lacking = [kind for kind in lacking if kind in which.kinds]
    if lacking:
        notes.append(f"this kernel tells nothing of: {', '.join(lacking)}")
    notes.append(
        f"its tables took {bytes_text(hello.memory)} in the kernel, with room for"
        f" {count_text(hello.most_blocks)} blocks, {count_text(hello.most_sites)} sites and"
        f" {count_text(hello.most_stacks)} stacks"
    )
    return Traced(
        start_ns=hello.start_ns,
        sample_bytes=hello.sample_bytes,
        final=final,
        looks=looks,
        notes=tuple(notes),
        before=before,
        after=kernel_counts(),
        whole=which.whole,
        pid=which.pid,
        min_size=which.min_size,
        max_size=which.max_size,
        movable=which.movable,
    )


def thinned(looks: list[Look], every: float) -> float:
    """Drop every other look when there are many; return the time to the next one."""
    if len(looks) < _MOST_LOOKS:
        return every
    looks[:] = looks[1::2]
    return 2 * every


def kernel_counts() -> KernelCounts | None:
    """Return the kernel's own counts of its memory; None without permission."""
    slabs = read_slabinfo()
    if slabs is None:
        return None
    told = read_meminfo()
    others = ("MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "Slab")
    other = None
    if "MemTotal" in told and all(name in told for name in others):
        other = told["MemTotal"] - sum(told[name] for name in others)
    load = (read_text("/proc/loadavg", 256) or "").split()
    tasks = load[3].partition("/")[2] if len(load) > 3 else ""
    return KernelCounts(
        {slab.name: slab.active for slab in slabs}, other, int(tasks) if tasks.isdecimal() else 0
    )
