# SPDX-License-Identifier: Apache-2.0
"""Look at a recording again and again while its program runs: how it stands, and how fast it grows.

Nothing is asked of the program. A look is made every second. Where reading and judging all of it
takes more than a fiftieth of that, most looks read the counters alone, and verdicts come as seldom
as keeps the whole below a fiftieth of a core.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Protocol

import numpy as np

from leakscope.errors import LeakscopeError, RecordingError, TargetError, UsageError
from leakscope.proc.process import read_resident, read_start
from leakscope.recording import live
from leakscope.recording.live_totals import read_totals
from leakscope.trace.live_files import PAUSED, LiveFile, find_live_file, not_traced
from leakscope.workflow.opening import InputKind, open_one

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from leakscope.model.findings import Findings
    from leakscope.model.recordings import Recording
    from leakscope.recording.live_totals import Totals
    from leakscope.workflow.opening import Named

__all__ = ["FEW", "MANY", "Judge", "Looks", "TopLook", "open_top"]

FEW, MANY = 200, 10_000
"""Sites that are described at a look, leaks first: those on the screen, and when one is sought."""

_SOONEST_S, _LATEST_S = 1.0, 300.0
_SHARE = 0.02  # of a core that looking and showing may take ...
_BRIEF_SHARE = 0.014  # ... and what reading counters may take of that
_RECENT = 10  # looks over which growth is measured
_COSTS = 5  # the median of so many counts: one that had to look up names is no measure ...
_FEW_COSTS, _EARLY_S = 3, 5.0  # ... nor are fewer than so many: until then no pause is longer


class Judge(Protocol):
    """Says what a recording shows, and keeps what it looked up for the next reading of it."""

    def judge(self, recording: Recording, most: int) -> Findings:
        """Return the findings: of all sites, the `most` that weigh most."""

    def forget(self) -> None:
        """Make ready for another recording."""


@dataclass(frozen=True, slots=True)
class TopLook:
    """What one look saw.

    The recording and its findings are of when all of it was read last, `held` and `blocks` are the
    bytes and blocks of each site at `at_ns`. `rates` are bytes a second of late by site, empty
    when not measured, `rate` that of all sites together.
    """

    recording: Recording
    findings: Findings
    held: npt.NDArray[np.float64]
    blocks: npt.NDArray[np.float64]
    at_ns: int
    rates: npt.NDArray[np.float64]
    rate: float | None = None
    paused: bool = False
    resident: int | None = None  # bytes
    ended: str | None = None  # a sentence on why this is the last
    trouble: str | None = None  # why this is older than it should be


class _Cost:
    """What something cost of late, in seconds of processor time."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=_COSTS)

    def add(self, seconds: float) -> None:
        self._seen.append(max(seconds, 0.0))

    @property
    def value(self) -> float:
        return median(self._seen) if self._seen else 0.0

    @property
    def known(self) -> bool:
        return len(self._seen) >= _FEW_COSTS


@dataclass(slots=True)
class Looks:
    """Looks at one recording. `still` is set where nothing moves (any more)."""

    label: str
    path: Path | None
    pid: int | None
    judging: Judge
    named: Named
    still: bool = False
    most: int = FEW
    last: TopLook | None = None
    made: int = 0
    _started: int | None = None  # when the process was, which tells it from a later one
    _judged: float = 0.0  # by time.monotonic()
    _judged_most: int = 0
    _used: float = 0.0  # processor time of this process at the end of the last look
    _base: Totals | None = None  # the counters when all of it was read
    _full: _Cost = field(default_factory=_Cost)
    _brief: _Cost = field(default_factory=_Cost)
    _paint: _Cost = field(default_factory=_Cost)
    _seen: deque[tuple[int, npt.NDArray[np.float64]]] = field(
        default_factory=lambda: deque(maxlen=_RECENT)
    )

    @property
    def pause_s(self) -> float:
        """Seconds from one look to the next."""
        pause = _within(self._step_s() / (_SHARE if self._base is None else _BRIEF_SHARE))
        known = (self._full if self._base is None else self._brief).known
        return pause if known else min(pause, _EARLY_S)

    @property
    def judge_s(self) -> float:
        """Seconds from one judgement of all of it to the next."""
        if self._base is None:
            return self.pause_s
        left = max(_SHARE - self._step_s() / self.pause_s, _SHARE - _BRIEF_SHARE)
        pause = max(_within(self._full.value / left), self.pause_s)
        return pause if self._full.known else min(pause, _EARLY_S)

    @property
    def core_share(self) -> float:
        """Share of a core that looking and showing take at this pace."""
        brief = self._step_s() / self.pause_s
        return brief if self._base is None else brief + self._full.value / self.judge_s

    @property
    def searched(self) -> bool:
        """Whether as many sites were described as are wanted now."""
        return self._judged_most >= self.most

    def _step_s(self) -> float:
        """What the more frequent kind of look costs, with showing it."""
        return self._paint.value + (self._full if self._base is None else self._brief).value

    def look(self, *, judge: bool = False) -> TopLook:
        """Look once; all of it is read and judged when `judge`, or when that is due again.

        Raises `LeakscopeError` when the very first look fails.
        """
        begun, now = time.process_time(), time.monotonic()
        if self.made > 1:  # all else that this process did: showing it, waiting for keys
            self._paint.add(begun - self._used)
        whole = judge or self._base is None or self.most != self._judged_most
        whole = whole or self.still or now - self._judged >= self.judge_s
        try:
            found = self._look() if whole else self._glance()
        except LeakscopeError as error:
            if self.last is None:
                raise
            found = self._later(error)
        self.last = found
        if whole:
            self._judged, self._judged_most = now, self.most
        self._used = time.process_time()
        cost = self._used - begun
        if self.made:  # the first one opens files that the others use
            (self._full if whole else self._brief).add(cost)
        self.made += 1
        return found

    def _look(self) -> TopLook:
        if self.still and self.last is not None:  # its file may be gone
            last = self.last
            return replace(last, findings=self.judging.judge(last.recording, self.most))
        recording = self._read()
        running = recording.process.ended == "running"
        if not running and not self.still and self._follow():
            recording = self._read()
            running = recording.process.ended == "running"
        # Only where judging all of it every second is too dear.
        dear = running and self._full.value + self._paint.value > _SHARE * _SOONEST_S
        self._base = read_totals(self.path) if dear and self.path is not None else None
        findings = self.judging.judge(recording, self.most)
        held = recording.sites["live_bytes"].astype(np.float64)
        rates, rate = self._rates(recording.duration_ns, held)
        self.still = self.still or not running
        return TopLook(
            recording,
            findings,
            held,
            recording.sites["live_count"].astype(np.float64),
            recording.duration_ns,
            rates,
            rate,
            paused=running and self._paused(),
            resident=self._resident() if running else None,
            ended=_ending(recording) if self.still and self.pid is not None else None,
        )

    def _glance(self) -> TopLook:
        """Read the counters alone: what came and went since all of it was read."""
        last, base = self.last, self._base
        now = None if self.path is None or not self.alive else read_totals(self.path)
        if last is None or base is None or now is None or len(now.held) < len(base.held):
            return self._look()
        sites = last.recording.sites
        held = _since(sites["live_bytes"], base.held, now.held)
        blocks = _since(sites["live_count"], base.blocks, now.blocks)
        rates, rate = self._rates(now.at_ns, held)
        return replace(
            last,
            held=held,
            blocks=blocks,
            at_ns=now.at_ns,
            rates=rates,
            rate=rate,
            paused=self._paused(),
            resident=self._resident(),
            trouble=None,
        )

    def _read(self) -> Recording:
        if self.pid is not None and self.path is not None:
            return live.read(self.path)
        found = self.named.read()
        if len(found) != 1:
            raise UsageError(
                f"{self.label} holds {len(found)} recordings; a screen shows one",
                hint=f"leakscope report {self.label}",
            )
        return found[0]

    @property
    def alive(self) -> bool:
        """Whether the process that is looked at is there, and not another of its number."""
        return self.pid is not None and read_start(self.pid) == self._started is not None

    def _follow(self) -> bool:
        """Turn to the recording that the same process writes now: it became another program."""
        if self.pid is None or not self.alive:
            return False
        try:
            file = find_live_file(self.pid)
        except TargetError:
            return False
        if file is None or file.path == self.path or not file.started():
            return False
        self.path = file.path
        self._seen.clear()
        self.judging.forget()
        return True

    def _later(self, error: LeakscopeError) -> TopLook:
        """Return the last state, once the recording cannot be read any more."""
        last = self.last
        assert last is not None
        pid = self.pid
        try:
            gone = not self.alive or (not self._follow() and find_live_file(pid or 0) is None)
        except TargetError:
            gone = True
        if gone:
            self.still = True
            ended = f"process {pid} has ended; this is the last look at it"
            return replace(last, ended=ended, paused=False, trouble=None)
        return replace(last, trouble=str(error))

    def _paused(self) -> bool:
        if self.pid is None or self.path is None:
            return False
        try:
            return bool(LiveFile(self.path, self.pid, 0).field("control") & PAUSED)
        except RecordingError:
            return False

    def _resident(self) -> int | None:
        return (read_resident(self.pid) or None) if self.pid is not None else None

    def _rates(
        self, at_ns: int, now: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], float | None]:
        """Growth of each site over the last looks, in bytes a second."""
        self._seen.append((at_ns, now))
        first_ns, first = self._seen[0]
        seconds = (at_ns - first_ns) / 1e9
        if seconds <= 0 or len(first) > len(now):
            return np.zeros(0), None
        before = np.zeros(len(now))
        before[: len(first)] = first
        rates = (now - before) / seconds
        return rates, float(rates.sum())


def _within(seconds: float) -> float:
    return min(max(_SOONEST_S, seconds), _LATEST_S)


def _since(
    known: npt.NDArray[np.uint64], base: npt.NDArray[np.float64], now: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """What was `known` of each site when the counters were `base`, brought to `now`."""
    found = now.copy()  # of sites that came later
    common = min(len(known), len(base))
    found[:common] += known[:common] - base[:common]
    return np.maximum(found, 0.0)


def open_top(name: str, judging: Judge) -> Looks:
    """Return the looks at what `name` stands for: a traced process, or a recording.

    Raises `TargetError` for a process that is not traced, `UsageError` for what has no sites.
    """
    named = open_one(name)
    if named.kind is InputKind.PROCESS:
        assert named.pid is not None
        raise not_traced(named.pid)
    if named.kind not in {InputKind.TRACED, InputKind.RECORDING, InputKind.FOREIGN}:
        raise UsageError(
            f"{named.label} is {named.kind}; the screen shows a traced process or a recording",
            hint=f"leakscope report {named.label}",
        )
    pid = named.pid
    if pid is None and named.kind is InputKind.RECORDING:
        pid = _writer_of(named)
    started = None if pid is None else read_start(pid)
    return Looks(named.label, named.path, pid, judging, named, still=pid is None, _started=started)


def _writer_of(named: Named) -> int | None:
    """Our number of the process that still writes a live recording which was named as a file."""
    if named.path is None or named.path.suffix != ".live":
        return None
    try:
        recording = live.read(named.path)
    except RecordingError:
        return None
    return recording.process.pid if recording.process.ended == "running" else None


def _ending(recording: Recording) -> str:
    how = recording.process.ended
    told = f" ({how})" if how else ""
    return f"process {recording.process.pid} has ended{told}; this is the last look at it"
