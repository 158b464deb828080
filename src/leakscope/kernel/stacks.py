# SPDX-License-Identifier: Apache-2.0
"""The stacks behind what grows, where the kernel keeps stacks: of caches, and of pages.

slab_debug=U keeps those of objects, page_owner=on those of pages. A source line is in the stacks
of one of them, under the name of its function.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

from leakscope.model.series import TrendVerdict
from leakscope.proc.kernel_frames import parse_frame, without_allocators
from leakscope.proc.page_owner import sum_pages, sum_stacks
from leakscope.proc.slab_traces import parse_traces
from leakscope.proc.text import read_lines, read_text
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from leakscope.kernel.mounts import DebugFiles
    from leakscope.model.series import Trend
    from leakscope.proc.page_owner import PageSums

__all__ = ["read_pages", "stacks_behind"]

_TOLD = (TrendVerdict.LEAK, TrendVerdict.GROWING)
_MOST = 6  # subjects
_STACKS = 2  # of each
_FRAMES = 8
_MOST_TEXT = 64 << 20
_MOST_LINES = 4_000_000  # of page_owner, which reaches gigabytes
_PAGE = os.sysconf("SC_PAGE_SIZE")


def stacks_behind(trends: Sequence[Trend], debug: DebugFiles) -> dict[str, list[str]]:
    """Return, for what leaks or grows fast, the stacks that allocated it, by the subject's key."""
    found: dict[str, list[str]] = {}
    pages: PageSums | None = None
    for trend in trends:
        subject = trend.series.subject
        if trend.verdict not in _TOLD or len(found) >= _MOST:
            continue
        lines: list[str] = []
        if subject.kind == "slab":
            lines = _of_cache(subject.key.split(" ")[0], debug)
        elif subject.kind in {"allocinfo", "page_stack"}:
            function = subject.name.split(" ")[0]
            lines = _of_function(function, debug) if subject.kind == "allocinfo" else []
            if not lines:
                pages = read_pages(debug) if pages is None else pages
                lines = _of_pages(function, pages)
        if lines:
            found[subject.key] = lines
    return found


def read_pages(debug: DebugFiles) -> PageSums:
    """Return the pages of each stack: the kernel's own sums where it has them, else ours."""
    path = debug.path("page_owner_stacks/show_stacks")
    if path is not None:
        return sum_stacks(read_lines(path))
    path = debug.path("page_owner")
    return sum_pages(itertools.islice(read_lines(path), _MOST_LINES) if path is not None else ())


def _of_cache(cache: str, debug: DebugFiles) -> list[str]:
    path = debug.path(f"slab/{cache}/alloc_traces") if "/" not in cache else None
    if path is None:
        return []
    traces = sorted(parse_traces(read_lines(path)), key=lambda t: -t.count)[:_STACKS]
    lines = []
    for trace in traces:
        lines += [f"{plural(trace.count, 'object')}, allocated by", *_frames(trace.frames)]
    return lines


def _of_function(function: str, debug: DebugFiles) -> list[str]:
    """Look for the function in the stacks of the caches for kmalloc."""
    folder = debug.path("slab")
    if folder is None:
        return []
    try:
        names = sorted(name for name in os.listdir(folder) if name.startswith("kmalloc"))
    except OSError:
        return []
    lines: list[str] = []
    for name in names:
        text = read_text(f"{folder}/{name}/alloc_traces", _MOST_TEXT) or ""
        if f"{function}+0x" not in text:
            continue
        for trace in parse_traces(text.split("\n")):
            if _calls(trace.frames, function) and len(lines) < _STACKS * (_FRAMES + 1):
                what = f"{plural(trace.count, 'object')} in {name}, allocated by"
                lines += [what, *_frames(trace.frames)]
    return lines


def _of_pages(function: str, pages: PageSums) -> list[str]:
    own = [one for one in pages.stacks.values() if _calls(one.frames, function)]
    lines = []
    for one in sorted(own, key=lambda s: -s.pages)[:_STACKS]:
        lines += [f"{bytes_text(one.pages * _PAGE)} of pages, allocated by", *_frames(one.frames)]
    return lines


def _calls(frames: Iterable[str], function: str) -> bool:
    return any(text.startswith(f"{function}+") for text in frames)


def _frames(texts: Sequence[str]) -> list[str]:
    frames = [frame for text in texts if (frame := parse_frame(text)) is not None]
    _, rest = without_allocators(frames)
    shown = []
    for frame in rest[:_FRAMES]:
        name = frame.function or f"0x{frame.address or 0:x}"
        shown.append(f"  {name}" + (f" [{frame.module}]" if frame.module else ""))
    return shown + (["  …"] if len(rest) > _FRAMES else [])
