# SPDX-License-Identifier: Apache-2.0
"""What the kernel holds at one moment as a recording: a source line is a site, so is a stack.

Lines come first: they count everything once. Where the kernel has none, stacks of pages and of
objects stand in, and what a cache or a buffer's caller holds besides.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from leakscope.formats.kmemleak import built_frames
from leakscope.kernel.mounts import open_debug_files
from leakscope.kernel.places import Purpose, purpose_of
from leakscope.kernel.stacks import read_pages
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Coverage, Process, Recording
from leakscope.proc.allocinfo import read_allocinfo, read_profiling
from leakscope.proc.kernel_frames import KernelFrame, parse_frame, without_allocators
from leakscope.proc.slabinfo import read_slabinfo
from leakscope.proc.vmalloc import read_vmallocinfo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakscope.proc.allocinfo import AllocLine

__all__ = ["add_lines", "record_held"]

_PAGE = os.sysconf("SC_PAGE_SIZE")


def record_held() -> Recording:
    """Return what this kernel holds now, as finely as it tells."""
    process = Process(exe=f"Linux {os.uname().release}", arch=os.uname().machine, ended="running")
    build = RecordingBuilder(process)
    notes = []
    lines = read_allocinfo() if read_profiling() else None
    if lines:
        add_lines(build, lines)
        mode = "allocinfo"
        notes.append("memory of programs and pages behind counted objects are left out")
    else:
        mode = "slabinfo"
        pages = read_pages(open_debug_files())
        for one in pages.stacks.values():
            if one.slab or any("slab" in text for text in one.frames):
                continue  # counted as a cache
            frames = [frame for text in one.frames if (frame := parse_frame(text)) is not None]
            _, rest = without_allocators(frames)
            node = build.stack(built_frames(rest))
            build.site(node, "alloc_pages", live_bytes=one.pages * _PAGE, live_count=one.pages)
        for slab in read_slabinfo() or ():
            if slab.bytes:
                node = build.stack(built_frames([KernelFrame(slab.name)]))
                build.site(node, "cache", live_bytes=slab.bytes, live_count=slab.active)
        for buffer in read_vmallocinfo(_PAGE) or ():
            node = build.stack(built_frames([KernelFrame(buffer.caller, module=buffer.module)]))
            build.site(node, "vmalloc", live_bytes=buffer.bytes, live_count=buffer.count)
        notes.append("this kernel tells no source lines: caches by name, buffers by function")
    build.coverage = Coverage(mode=mode, notes=tuple(notes))
    return build.build()


def add_lines(build: RecordingBuilder, lines: Iterable[AllocLine]) -> None:
    """Add the lines of /proc/allocinfo that hold something as sites."""
    for line in lines:
        place = line.place
        if not line.bytes or purpose_of(place) in (Purpose.SLAB, Purpose.PROGRAM):
            continue
        frame = KernelFrame(place.function, module=place.module, file=place.file, line=place.line)
        node = build.stack(built_frames([frame]))
        build.site(node, "kmalloc", live_bytes=line.bytes, live_count=line.calls)
