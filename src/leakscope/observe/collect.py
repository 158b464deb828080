# SPDX-License-Identifier: Apache-2.0
"""Passes put together to series, in bounded memory.

A series that has `limit` points is thinned to half, so a long watch keeps the whole course at a
coarser step. Times are CLOCK_BOOTTIME, which neither clock steps nor time zones touch; a suspend
and a long gap make a cut.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.series import Cut, Series, Standing, Subject

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.observe.measures import Measure, Pass

__all__ = ["Collection", "asleep_ns"]

_SUSPEND_NS = 2_000_000_000
_GAP = 5.0
_SELDOM = 6  # sparse gauges are read at every sixth pass or so
_FEW = 30
_POINTS = 8_000_000  # of 16 bytes each
_FEWEST_POINTS = 180
# PSS and USS are read in rotation and tell the same story as `anon`; "available" is the rest of
# "used"; "room" is no gauge of its own; files in a cgroup, which its working set counts as well,
# are dropped on demand.
# Address space is reserved and no memory: files that are mapped and run-times that reserve take it.
_ROOMS = {"room", "room_as", "room_data", "swap_free"}
_SHOWN_ONLY = {"pss", "uss", "available", "oom_kills", "file", "working_set", "virtual", *_ROOMS}


@dataclass(slots=True)
class _Course:
    subject: Subject
    metric: str
    unit: str
    times: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    stride: int = 1
    skipped: int = 0
    last_ns: int = 0  # of the newest value, which thinning may have left out of the arrays
    last: float = 0.0

    def add(self, time_ns: int, value: float, limit: int) -> None:
        """Take in a value; `limit` may be less than it was."""
        self.last_ns, self.last = time_ns, value
        self.skipped += 1
        if self.skipped < self.stride and self.times:
            return
        self.skipped = 0
        self.times.append(time_ns)
        self.values.append(value)
        if len(self.times) >= limit:
            self.times, self.values = self.times[::2], self.values[::2]
            self.stride *= 2


@dataclass(slots=True)
class Collection:
    """Series under construction.

    `limit` is the most points one of them keeps; fewer where there are so many of them that all
    would keep more than `_POINTS`.
    """

    limit: int = 720
    interval_s: float = 10.0
    forget_ns: int = 3_600_000_000_000  # ended processes are kept for so long …
    keep_ended: bool = False  # … or for good, if there is enough of them to be judged
    _courses: dict[tuple[str, str, str], _Course] = field(default_factory=dict)
    _cuts: list[Cut] = field(default_factory=list)
    _first_ns: int = 0
    _last_ns: int = 0
    _asleep_ns: int | None = None
    _swept_ns: int = 0

    def add(self, one: Pass, *, asleep_ns: int | None = None) -> None:
        """Add a pass. `asleep_ns` is CLOCK_BOOTTIME - CLOCK_MONOTONIC, when known."""
        before = self._asleep_ns
        if before is not None and asleep_ns is not None and asleep_ns - before > _SUSPEND_NS:
            self._cuts.append(Cut(one.time_ns, "suspend"))
        elif self._last_ns and one.time_ns - self._last_ns > _GAP * self.interval_s * 1e9:
            self._cuts.append(Cut(one.time_ns, "gap"))
        self._asleep_ns = asleep_ns if asleep_ns is not None else self._asleep_ns
        self._first_ns = self._first_ns or one.time_ns
        self._last_ns = one.time_ns
        most = max(_FEWEST_POINTS, _POINTS // max(len(self._courses), 1))
        for measure in one.measures:
            self._put(one.time_ns, measure, min(self.limit, most))
        if one.time_ns - self._swept_ns > self._settled_ns():
            self._swept_ns = one.time_ns
            self._sweep(one)

    def _sweep(self, one: Pass) -> None:
        """Forget what ended long ago, and what ended before there was enough of it to judge."""
        present = {(m.subject.kind, m.subject.key) for m in one.measures}
        gone = one.time_ns - self._settled_ns()
        for key, course in list(self._courses.items()):
            if course.last_ns >= gone or key[:2] in present:
                continue
            enough = len(course.times) >= _FEW
            if not enough or (
                course.last_ns < one.time_ns - self.forget_ns and not self.keep_ended
            ):
                del self._courses[key]

    def _settled_ns(self) -> int:
        """How long a gauge may be missing from the passes while its subject still lives."""
        return min(self.forget_ns, int(3 * _SELDOM * self.interval_s * 1e9))

    def _put(self, time_ns: int, measure: Measure, limit: int) -> None:
        subject = measure.subject
        key = (subject.kind, subject.key, measure.metric)
        course = self._courses.get(key)
        if course is None:
            course = self._courses[key] = _Course(subject, measure.metric, measure.unit)
        course.subject = subject  # its limit or its name may be another now
        course.add(time_ns, float(measure.value), limit)

    def series(self, pid: int | None = None) -> list[Series]:
        """Return all series as they are now, or those of one process, with their bounds."""
        cuts = tuple(self._cuts[-16:])
        last = {key: course.last for key, course in self._courses.items()}
        return [
            Series(
                _bounded(c, last),
                c.metric,
                c.unit,
                *_newest(c),
                tuple(cut for cut in cuts if c.times[0] < cut.time_ns <= c.last_ns),
            )
            for c in self._courses.values()
            if pid is None or c.subject.pid == pid
        ]

    def oom_kills(self) -> list[tuple[Subject, int]]:
        """Return where the kernel killed processes, out of memory, and how many.

        The machine's counter has the kills of all cgroups in it, a cgroup's (version 2) those of
        the ones below: each kill is told once, by the innermost cgroup with a limit, and what no
        such cgroup explains by the machine.
        """
        killed = {
            c.subject: round(c.values[-1] - c.values[0])
            for c in self._courses.values()
            if c.metric == "oom_kills" and c.values[-1] > c.values[0]
        }
        bounded = [s for s in killed if s.kind == "cgroup" and s.limit is not None]
        found: dict[Subject, int] = {}
        for subject in sorted(bounded, key=lambda s: -len(s.key)):
            inner = sum(
                n for s, n in found.items() if s.key.startswith(subject.key.rstrip("/") + "/")
            )
            own = killed[subject] - inner if killed[subject] >= inner else killed[subject]
            if own:
                found[subject] = own
        for subject, count in killed.items():
            rest = count - sum(found.values())
            if subject.kind == "system" and rest > 0:
                return [(subject, rest), *found.items()]
        if not any(s.kind == "system" for s in killed):
            return list((found or killed).items())
        return list(found.items())

    def standings(self) -> list[Standing]:
        """Return where each gauge that is judged stands: cheap, for screens."""
        return [
            Standing(c.subject, c.metric, c.unit, c.values[0], c.last, _rate(c))
            for c in self._courses.values()
            if (c.metric not in _SHOWN_ONLY or c.metric == "virtual")
            and not _is_root(c.subject)
            and c.last_ns == self._last_ns
        ]

    def latest(self, pid: int) -> list[tuple[str, str, float]]:
        """Return (metric, unit, value) of everything known of a process now.

        After exec that is what its new program holds.
        """
        fresh = self._last_ns - int(_SELDOM * self.interval_s * 1e9)
        own = [c for c in self._courses.values() if c.subject.pid == pid and c.last_ns >= fresh]
        if not own:
            return []
        newest = max(own, key=lambda c: c.last_ns).subject.key
        return [
            (c.metric, c.unit, c.last)
            for c in own
            if c.subject.key == newest and c.metric not in _ROOMS
        ]

    def course(self, subject: Subject, metric: str) -> Series | None:
        """Return one series; None when it was forgotten meanwhile."""
        c = self._courses.get((subject.kind, subject.key, metric))
        if c is None:
            return None
        return Series(c.subject, c.metric, c.unit, *_newest(c))

    def judged(self) -> list[Series]:
        """Return the series a verdict is asked for: those that say something of their own.

        Left out is what came and went too quickly for a verdict ever to be had.
        """
        gone = self._last_ns - self._settled_ns()
        return [
            series
            for series in self.series()
            if series.metric not in _SHOWN_ONLY
            and not _is_root(series.subject)
            and (series.times_ns[-1] > gone or len(series.values) >= _FEW)
        ]

    @property
    def began_ns(self) -> int:
        """When the first pass was, CLOCK_BOOTTIME; 0 before it."""
        return self._first_ns


def asleep_ns() -> int:
    """Return how long this machine has been suspended since it booted."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


# The gauges that the limit of their subject bounds; it is no limit of the others.
_BOUNDED = {
    ("process", "fds"),
    ("system", "used"),
    ("tmpfs", "tmpfs"),
}


_NEWEST = 6  # values that tell how fast it grows now


def _rate(course: _Course) -> float:
    """Return the growth of the newest values in a second: cheap, for screens."""
    at = max(0, len(course.times) - _NEWEST)
    passed = course.last_ns - course.times[at]
    return (course.last - course.values[at]) * 1e9 / passed if passed else 0.0


def _newest(course: _Course) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the course as arrays, with its newest value even where thinning left that out."""
    times, values = course.times, course.values
    if course.last_ns > times[-1]:
        times, values = times + array("q", [course.last_ns]), values + array("d", [course.last])
    return np.array(times, dtype=np.int64), np.array(values, dtype=np.float64)


def _is_root(subject: Subject) -> bool:
    """Whether it is the cgroup of the whole machine, not that of a container seen from inside."""
    return subject.kind == "cgroup" and subject.key == "/" and subject.limit is None


def _bounded(course: _Course, last: dict[tuple[str, str, str], float]) -> Subject:
    """Return the subject with where the gauge ends: its own limit, or where memory does."""
    subject = course.subject
    if (subject.kind, course.metric) in _BOUNDED:
        return subject
    rooms: list[tuple[float | None, str]] = []
    if course.metric in {"anon", "shmem", "pss", "uss", "kernel"}:
        whose = "the limit of its cgroup" if subject.kind == "process" else "its limit"
        swap = last.get(("system", "machine", "swap_free"), 0.0)
        then = " and swap begins" if swap else ""
        rooms = [
            (_room(subject, last), whose),
            (last.get(("system", "machine", "available")), f"the memory of this machine{then}"),
        ]
    if course.metric in {"anon", "virtual"}:
        rooms.append((last.get(("process", subject.key, "room_as")), "RLIMIT_AS (ulimit -v)"))
        rooms.append((last.get(("process", subject.key, "room_data")), "RLIMIT_DATA (ulimit -d)"))
    known = [(room, whose) for room, whose in rooms if room is not None]
    if not known:
        return replace(subject, limit=None)
    room, whose = min(known)
    return replace(subject, limit=course.last + room, limit_of=whose)


def _room(subject: Subject, last: dict[tuple[str, str, str], float]) -> float | None:
    """Return how much the cgroup, or the cgroup of the process, may still take."""
    if subject.kind == "process":
        return last.get(("process", subject.key, "room"))
    held = last.get(("cgroup", subject.key, "working_set"))
    return None if held is None or subject.limit is None else max(0.0, subject.limit - held)
