# SPDX-License-Identifier: Apache-2.0
"""A file of massif: the course over time, and what was held at the peak and at the end, by stack.

Time is in milliseconds. The tree goes from the allocation outwards, as massif's does; what is less
than a hundredth of the whole is one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from leakscope.report.export._samples import (
    base_name,
    command_of,
    encoded,
    frame_name,
    one_line,
    samples,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leakscope.model.frames import Frame
    from leakscope.model.recordings import Timeline
    from leakscope.report.export import Exported
    from leakscope.report.export._samples import Sample

__all__ = ["write"]

_THRESHOLD = 0.01
_ROOT = "(heap allocation functions) malloc/new/new[], --alloc-fns, etc."
_DEEPEST = 200


class _Node:
    """Bytes that are held below one frame, seen from the allocation."""

    __slots__ = ("callers", "size")

    def __init__(self) -> None:
        self.size = 0
        self.callers: dict[str, _Node] = {}


class _Snapshot(NamedTuple):
    time_ms: int
    held_bytes: int
    tree: str = "empty"
    of: Callable[[Sample], int] | None = None


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the file; `root` says nothing here."""
    del root
    held = list(samples(every))
    lines = [
        "desc: --time-unit=ms (written by leakscope)",
        f"cmd: {command_of(every)}",
        "time_unit: ms",
    ]
    for number, snapshot in enumerate(_snapshots(every, [sample for _, sample in held])):
        lines += ["#-----------", f"snapshot={number}", "#-----------"]
        lines += [f"time={snapshot.time_ms}", f"mem_heap_B={snapshot.held_bytes}"]
        lines += ["mem_heap_extra_B=0", "mem_stacks_B=0", f"heap_tree={snapshot.tree}"]
        if snapshot.of is not None:
            lines += _tree(held, snapshot.of)
    return encoded("\n".join(lines) + "\n")


def _snapshots(every: Sequence[Exported], held: Sequence[Sample]) -> list[_Snapshot]:
    total = sum(sample.held_bytes for sample in held)
    end = max((one.findings.duration_ns or 0 for one in every), default=0) // 1_000_000
    last = _Snapshot(end, total, "detailed", lambda sample: sample.held_bytes)
    timeline = every[0].timeline if len(every) == 1 else None
    if timeline is None or not len(timeline.times_ns):
        return [_Snapshot(0, 0), last._replace(tree="peak")]
    found = [
        _Snapshot(min(int(time) // 1_000_000, end), int(size))
        for time, size in zip(timeline.times_ns, timeline.live_bytes, strict=True)
    ]
    top = int(np.argmax(timeline.live_bytes))
    if int(timeline.live_bytes[top]) > total:
        found[top] = found[top]._replace(tree="peak", of=_at(timeline, top))
    else:
        last = last._replace(tree="peak")
    return [_Snapshot(0, 0), *found, last]


def _at(timeline: Timeline, row: int) -> Callable[[Sample], int]:
    sizes = timeline.site_bytes[row]

    def of(sample: Sample) -> int:
        site = None if sample.finding is None else sample.finding.site
        return int(sizes[site]) if site is not None and site < len(sizes) else 0

    return of


def _tree(held: Sequence[tuple[Exported, Sample]], of: Callable[[Sample], int]) -> list[str]:
    top = _Node()
    for _, sample in held:
        size = of(sample)
        if size <= 0:
            continue
        top.size += size
        node = top
        for frame in sample.stack[:_DEEPEST]:
            node = node.callers.setdefault(_text(frame), _Node())
            node.size += size
    lines: list[str] = []
    _append(lines, _ROOT, top, 0, top.size * _THRESHOLD)
    return lines


def _append(lines: list[str], text: str, node: _Node, depth: int, least: float) -> None:
    """Add a node and its callers; deep stacks are no deeper than `_DEEPEST`."""
    ordered = sorted(node.callers.items(), key=lambda item: (-item[1].size, item[0]))
    shown = [(name, each) for name, each in ordered if each.size >= least]
    small = [each for _, each in ordered if each.size < least]
    indent = " " * depth
    lines.append(f"{indent}n{len(shown) + bool(small)}: {node.size} {text}")
    for name, each in shown:
        _append(lines, name, each, depth + 1, least)
    if small:
        size = sum(each.size for each in small)
        places = "1 place" if len(small) == 1 else f"{len(small)} places, all"
        lines.append(f"{indent} n0: {size} in {places} below massif's threshold (1.00%)")


def _text(frame: Frame) -> str:
    address = frame.address.offset if frame.address is not None else 0
    if frame.file is not None:
        where = base_name(frame.file) + (f":{frame.line}" if frame.line is not None else "")
    else:
        where = f"in {frame.module_path or '?'}"
    return f"0x{address:X}: {frame_name(frame)} ({one_line(where)})"
