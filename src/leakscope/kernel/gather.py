# SPDX-License-Identifier: Apache-2.0
"""Passes over the kernel's memory: source lines, caches, buffers, pages by stack, and sums.

With them what programs have of the kernel's: descriptors, threads, mappings, children, files in
memory and the kernel's share of each cgroup. What keeps kernel memory alive is often one of these.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from leakscope.kernel.places import Purpose, place_name, purpose_of
from leakscope.model.series import Subject
from leakscope.observe.gather import Gatherer
from leakscope.observe.measures import Measure, Pass
from leakscope.proc.allocinfo import read_allocinfo, read_profiling
from leakscope.proc.kernel_frames import parse_frame, without_allocators
from leakscope.proc.page_owner import sum_stacks
from leakscope.proc.text import read_lines, read_text
from leakscope.proc.vm import parse_numbers

if TYPE_CHECKING:
    from leakscope.kernel.mounts import DebugFiles
    from leakscope.proc.allocinfo import AllocLine, AllocPlace

__all__ = ["KernelGatherer"]

# Of programs: what can keep kernel memory alive. Of the machine: what is the kernel's own.
_OF_PROCESSES = {"fds", "threads", "mappings", "children", "zombies"}
_OF_GROUPS = {"kernel"}
_OF_MACHINE = {
    "slab_unreclaimable", "slab_reclaimable", "kernel_stacks", "percpu", "vmalloc", "unexplained",
    "sockets", "socket_buffers", "available", "oom_kills", "processes", "page_tables", "page_cache",
}  # fmt: skip
_LARGE = 1 << 20  # bytes: a line that holds so much is followed from the start …
_GROWN = 16 << 10  # … any other once it has grown by so much
_MOST_LINES = 3000
_MOST_STACKS = 2000
_SELDOM = 6  # passes between two looks at the stacks of pages
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MACHINE = Subject("system", "machine", "this machine")


@dataclass(slots=True)
class KernelGatherer(Gatherer):
    """A gatherer of what the kernel holds. `debug` is where its debug files are."""

    debug: DebugFiles | None = None
    pss_budget_s: float = 0.0
    _followed: dict[AllocPlace, Measure] = field(default_factory=dict)
    _subjects: dict[AllocPlace, tuple[Subject, str] | None] = field(default_factory=dict)
    _then: dict[AllocPlace, int] = field(default_factory=dict)
    _looks: int = 0

    @property
    def label(self) -> str:
        """What is watched, in words."""
        return "the kernel"

    def gather(self) -> Pass:
        """Read everything once."""
        # super() knows no class in a dataclass with slots, which is made anew.
        one = Gatherer.gather(self)
        out = [m for m in one.measures if _wanted(m)]
        missing = {text for text in one.missing if "kernel" in text}
        self._lines(out, missing)
        if self._looks % _SELDOM == 0:
            self._stacks(out)
        dying = _dying_groups()
        if dying is not None:
            out.append(Measure(_MACHINE, "dying_cgroups", "count", dying))
        self._looks += 1
        return replace(one, measures=tuple(out), missing=tuple(sorted(missing)))

    def _lines(self, out: list[Measure], missing: set[str]) -> None:
        lines = read_allocinfo() if read_profiling() else None
        if lines is None:
            missing.add("kernel memory by source line (`leakscope kernel` says why)")
            return
        first = not self._then
        for line in lines:
            known = self._subject(line)
            if known is None:
                continue
            place, size = line.place, line.bytes
            then = self._then.setdefault(place, size if first else 0)
            if place not in self._followed and size < _LARGE and abs(size - then) < _GROWN:
                continue
            if place not in self._followed and len(self._followed) >= _MOST_LINES:
                continue
            measure = Measure(known[0], known[1], "bytes", size)
            self._followed[place] = measure
            out.append(measure)

    def _subject(self, line: AllocLine) -> tuple[Subject, str] | None:
        """Return the subject of a line and the name of its gauge; None for what is no matter here."""
        place = line.place
        if place not in self._subjects:
            purpose = purpose_of(place)
            found = None
            if purpose in (Purpose.KERNEL, Purpose.CACHE):
                key = f"{place.file}:{place.line}:{place.function}:{place.module or ''}"
                metric = "cached" if purpose is Purpose.CACHE else "allocated"
                found = Subject("allocinfo", key, place_name(place)), metric
            self._subjects[place] = found
        return self._subjects[place]

    def _stacks(self, out: list[Measure]) -> None:
        """Pages by stack, where no line tells them."""
        if self._followed or self.debug is None:
            return
        path = self.debug.path("page_owner_stacks/show_stacks")
        if path is None:
            return
        sums = sum_stacks(read_lines(path))
        heaviest = sorted(sums.stacks.values(), key=lambda s: -s.pages)[:_MOST_STACKS]
        for one in heaviest:
            frames = [f for text in one.frames if (f := parse_frame(text)) is not None]
            _, rest = without_allocators(frames)
            name = next((f.function for f in rest if f.function is not None), None)
            if name is None or one.pages * _PAGE < _GROWN or any("slab" in f for f in one.frames):
                continue
            key = hashlib.sha256("\n".join(one.frames).encode()).hexdigest()[:16]
            module = next((f.module for f in rest[:1] if f.module), None)
            text = f"{name} [{module}]" if module else name
            subject = Subject("page_stack", key, text)
            out.append(Measure(subject, "allocated", "bytes", one.pages * _PAGE, sparse=True))


def _wanted(measure: Measure) -> bool:
    kind, metric = measure.subject.kind, measure.metric
    if kind == "process":
        return metric in _OF_PROCESSES
    if kind == "cgroup":
        return metric in _OF_GROUPS
    if kind == "system":
        return metric in _OF_MACHINE
    if kind == "tmpfs":  # each file has objects of the kernel, however small it is
        return metric == "files"
    return kind in {"slab", "vmalloc"}


def _dying_groups() -> int | None:
    """Return how many memory cgroups are removed and still hold pages or objects."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        text = read_text(f"{root}/cgroup.stat", 4096)
        if text is not None:
            dying = parse_numbers(text).get("nr_dying_descendants")
            if dying is not None:
                return dying
    return None
