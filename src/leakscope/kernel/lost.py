# SPDX-License-Identifier: Apache-2.0
"""What kmemleak saw twice, as a recording: the same model, verdicts and reports as of a process."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from leakscope.formats.kmemleak import built_frames, task_note
from leakscope.model.builder import RecordingBuilder
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import Coverage, Process, Recording
from leakscope.proc.kernel_frames import without_allocators
from leakscope.words import plural, seconds_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from leakscope.kernel.clock import Ticks
    from leakscope.kernel.kmemleak import Group, Seen
    from leakscope.proc.kernel_frames import KernelFrame

__all__ = ["record_lost"]

_SHOWN = 4
# A path of the system's, so that a module's own code has precedence over the kernel's helpers.
_CORE = "/lib/modules/vmlinux"


def record_lost(
    seen: Seen,
    ticks: Ticks | None = None,
    lines: Mapping[KernelFrame, tuple[KernelFrame, ...]] | None = None,
    notes: Sequence[str] = (),
) -> Recording:
    """Return the recording of a double scan. `lines` tells what frames stand for."""
    build = RecordingBuilder(
        Process(exe=f"Linux {os.uname().release}", arch=os.uname().machine, ended="running"),
        Coverage(mode="kmemleak", notes=(*_notes(seen), *notes)),
    )
    for group in seen.groups:
        frames = [one for frame in group.frames for one in (lines or {}).get(frame, (frame,))]
        _, rest = without_allocators(frames)  # of what was inlined
        frames = [one if one.module else one._replace(module=_CORE) for one in rest]
        node = build.stack(built_frames(frames), truncated=group.cut)
        site = build.site(node, group.kind, live_bytes=group.bytes, live_count=group.count)
        build.reach(site, Reachability.DEFINITELY_LOST, group.count, group.bytes)
    build.reach_is_known()
    note = _ages(seen.groups, ticks)
    if note:
        build.coverage = Coverage(mode="kmemleak", notes=(*build.coverage.notes, note))
    return build.build()


def _notes(seen: Seen) -> Iterable[str]:
    """Say how the objects were told from those that only looked lost."""
    how = "the same checksum" if seen.checked else "the same time of allocation"
    yield (
        f"two reports of kmemleak, {seconds_text(seen.apart_s)} apart, have"
        f" {plural(seen.kept, 'object')} with {how} in common; an address that is kept in another"
        " form, or in pages, is not seen by kmemleak"
    )
    dropped = [
        f"{number:,} {what}"
        for number, what in (
            (seen.gone, "were found again"),
            (seen.changed, "changed meanwhile"),
            (seen.new, "are reported only since the second scan"),
        )
        if number
    ]
    if dropped:
        yield f"not counted, because only one of two reports has them so: {', '.join(dropped)}"
    if seen.known:
        yield f"left out: {plural(seen.known, 'object')} that kmemleak had reported before"
    if seen.unkept:
        yield f"{plural(seen.unkept, 'object')} more could not be compared: there are too many"
    tasks: Counter[str] = Counter()
    for group in seen.groups:
        tasks.update(group.tasks)
    if tasks:
        yield task_note(tasks)
    bare = sum(g.count for g in seen.groups if any(f.function is None for f in g.frames[:2]))
    if bare:
        yield (
            f"{plural(bare, 'object')} of a module that was unloaded before its functions were"
            " known: run `leakscope kernel` once while it is loaded"
        )


def _ages(groups: Sequence[Group], ticks: Ticks | None) -> str | None:
    """Say how old the objects of the heaviest stacks are."""
    told = []
    for group in groups[:_SHOWN]:
        old, young = group.oldest_s, group.youngest_s
        if ticks is not None and group.first is not None and group.last is not None:
            old, young = ticks.age_s(group.first), ticks.age_s(group.last)
        if old is None or young is None:
            continue
        name = next((f.function for f in group.frames if f.function is not None), "unknown")
        span = seconds_text(old)
        if old - young > 1.0:
            span = f"{seconds_text(young)} to {span}"
        told.append(f"{name} {span}")
    return f"ages: {', '.join(told)}" if told else None
