# SPDX-License-Identifier: Apache-2.0
"""How much memory the traced processes really had, looked at from outside while they ran."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from leakscope.proc.process import read_private_resident

if TYPE_CHECKING:
    from pathlib import Path

    from leakscope.model.recordings import Recording

__all__ = ["ResidentCourses"]

_MOST = 256  # looks that are kept of a process; then every other is given up


@dataclass(slots=True)
class _Course:
    every: int = 1  # so many looks for each that is kept
    looks: int = 0
    times_ns: list[int] = field(default_factory=list)  # CLOCK_MONOTONIC
    sizes: list[int] = field(default_factory=list)


class ResidentCourses:
    """Courses of resident memory, by live recording. What has a file behind it is left out."""

    def __init__(self) -> None:
        self._courses: dict[Path, _Course] = {}

    def look(self, path: Path, pid: int) -> None:
        """Note what a process has now."""
        course = self._courses.setdefault(path, _Course())
        course.looks += 1
        if course.looks % course.every:
            return
        size = read_private_resident(pid)
        if size is None:
            return
        if len(course.sizes) >= _MOST:
            del course.times_ns[::2], course.sizes[::2]
            course.every *= 2
        course.times_ns.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        course.sizes.append(size)

    def forget(self, path: Path) -> None:
        """Its recording is gone; the name may become that of another."""
        self._courses.pop(path, None)

    def take(self, path: Path, recording: Recording, begun_ns: int) -> Recording:
        """Return the recording with the course in its timeline; `begun_ns` is when it began."""
        course = self._courses.pop(path, None)
        timeline = recording.timeline
        if course is None or not course.sizes or not len(timeline.times_ns):
            return recording
        times = np.array(course.times_ns, np.int64) - begun_ns
        sizes = np.interp(timeline.times_ns, times, course.sizes)
        rss = np.rint(sizes).astype(np.int64)
        return replace(recording, timeline=replace(timeline, rss_bytes=rss))
