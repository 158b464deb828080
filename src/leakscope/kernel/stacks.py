# SPDX-License-Identifier: Apache-2.0
"""The stacks behind what grows, where the kernel keeps stacks: of caches, and of pages.

slab_debug=U keeps those of objects, page_owner=on those of pages. A source line is in the stacks
of one of them, under the name of its function.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

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

_MOST = 6  # subjects
_STACKS = 2  # of each
_FRAMES = 8
_MOST_TEXT = 64 << 20
_MOST_LINES = 4_000_000  # of page_owner, which reaches gigabytes
_PAGE = os.sysconf("SC_PAGE_SIZE")


def stacks_behind(trends: Sequence[Trend], debug: DebugFiles) -> dict[str, list[str]]:
    """Return the stacks that allocated what the first few of `trends` tell of, by subjects' keys."""
    found: dict[str, list[str]] = {}
    kept = _Kept(debug)
    asked = 0
    for trend in trends:
        subject = trend.series.subject
        if subject.key in found or subject.kind not in {"slab", "allocinfo", "page_stack"}:
            continue
        asked += 1
        if asked > _MOST:
            break
        function = subject.name.split(" ")[0]
        if subject.kind == "slab":
            lines = _of_cache(subject.key, kept)
        elif subject.kind == "allocinfo":
            lines = _of_function(function, kept) or _of_pages(function, kept.pages())
        else:
            lines = _of_pages(function, kept.pages())
        if lines:
            found[subject.key] = lines
    return found


class _Kept:
    """What the kernel's debug files say, each read once: it writes them anew at every reading."""

    def __init__(self, debug: DebugFiles) -> None:
        self._debug = debug
        self._pages: PageSums | None = None
        self._texts: dict[str, str] = {}
        folder = debug.path("slab")
        try:
            self.caches = tuple(sorted(os.listdir(folder))) if folder is not None else ()
        except OSError:
            self.caches = ()

    def pages(self) -> PageSums:
        if self._pages is None:
            self._pages = read_pages(self._debug)
        return self._pages

    def traces(self, cache: str) -> str:
        if cache not in self.caches:
            return ""
        if cache not in self._texts:
            path = f"{self._debug.root}/slab/{cache}/alloc_traces"
            self._texts[cache] = read_text(path, _MOST_TEXT) or ""
        return self._texts[cache]


def read_pages(debug: DebugFiles) -> PageSums:
    """Return the pages of each stack: the kernel's own sums where it has them, else ours."""
    path = debug.path("page_owner_stacks/show_stacks")
    if path is not None:
        return sum_stacks(read_lines(path))
    path = debug.path("page_owner")
    return sum_pages(itertools.islice(read_lines(path), _MOST_LINES) if path is not None else ())


def _of_cache(cache: str, kept: _Kept) -> list[str]:
    traces = sorted(parse_traces(kept.traces(cache).split("\n")), key=lambda t: -t.count)
    lines = []
    for trace in traces[:_STACKS]:
        lines += [f"{plural(trace.count, 'object')}, allocated by", *_frames(trace.frames)]
    return lines


def _of_function(function: str, kept: _Kept) -> list[str]:
    """Look for the function in the stacks of the caches for kmalloc."""
    found = []
    for name in kept.caches:
        if name.startswith("kmalloc") and f"{function}+0x" in kept.traces(name):
            traces = parse_traces(kept.traces(name).split("\n"))
            found += [(trace, name) for trace in traces if _calls(trace.frames, function)]
    lines = []
    for trace, name in sorted(found, key=lambda each: -each[0].count)[:_STACKS]:
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
