# SPDX-License-Identifier: Apache-2.0
"""Who allocated the objects of a slab cache: /sys/kernel/debug/slab/CACHE/alloc_traces.

There where the kernel was booted with `slab_debug=U`. Before Linux 5.14 the same lines, without
stacks, are in /sys/kernel/slab/CACHE/alloc_calls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SlabTrace", "parse_traces"]

_HEAD = re.compile(
    r"\s{0,32}(\d{1,18}) (\S{1,400}(?: \[[^\]\s]{1,96}\])?)(?: waste=(\d{1,18})/\d{1,18})?"
    r" age=(\d{1,18})(?:/(\d{1,18})/(\d{1,18}))?(?: .{0,400})?"
)
_FRAME = re.compile(r"\s{4,16}(\S{1,400}(?: \[[^\]\s]{1,96}\])?)\s{0,4}")
_MOST_TRACES = 1 << 16
_MOST_FRAMES = 64


@dataclass(frozen=True, slots=True)
class SlabTrace:
    """Objects that one stack allocated, or one function where there are no stacks.

    Ages are in ticks of the kernel's clock (jiffies). Frames are as the kernel writes them.
    """

    count: int
    frames: tuple[str, ...]
    age_min: int
    age_max: int
    waste: int = 0  # bytes that were not asked for, of all objects


def parse_traces(lines: Iterable[str]) -> tuple[SlabTrace, ...]:
    """Read alloc_traces, free_traces or alloc_calls; lines that do not fit are left out."""
    found: list[SlabTrace] = []
    head: re.Match[str] | None = None
    frames: list[str] = []

    def end() -> None:
        if head is None or len(found) >= _MOST_TRACES:
            return
        low = int(head[4])
        high = int(head[6]) if head[6] is not None else low
        waste = int(head[3]) if head[3] is not None else 0
        found.append(SlabTrace(int(head[1]), tuple(frames) or (head[2],), low, high, waste))

    for line in lines:
        start = _HEAD.fullmatch(line) if " age=" in line else None  # the rest is frames
        if start is not None:
            end()
            head, frames = start, []
        elif head is not None and len(frames) < _MOST_FRAMES:
            frame = _FRAME.fullmatch(line)
            if frame is not None:
                frames.append(frame[1])
    end()
    return tuple(found)
