# SPDX-License-Identifier: Apache-2.0
"""Look at a recording again and again while its program runs: how it stands, and how fast it grows.

Nothing is asked of the program. A look is made every second, or as seldom as keeps its cost below
a fiftieth of a core.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from leakscope.errors import LeakscopeError, RecordingError, TargetError, UsageError
from leakscope.proc.process import read_start
from leakscope.recording import live
from leakscope.trace.live_files import PAUSED, LiveFile, find_live_file
from leakscope.workflow.opening import InputKind, open_one

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from leakscope.model.findings import Findings
    from leakscope.model.recordings import Recording
    from leakscope.workflow.opening import Named

__all__ = ["FEW", "MANY", "Judge", "Look", "Looks", "open_top"]

FEW, MANY = 200, 10_000
"""Sites that are described at a look, leaks first: those on the screen, and when one is sought."""

_SOONEST_S, _LATEST_S = 1.0, 300.0
_SHARE = 50  # a look costs at most one part in so many of the time
_RECENT = 10  # looks over which growth is measured
_COSTS = 3  # the least of so many looks counts: one that had to look up names is no measure


class Judge(Protocol):
    """Says what a recording shows, and keeps what it looked up for the next reading of it."""

    def judge(self, recording: Recording, most: int) -> Findings:
        """Return the findings: of all sites, the `most` that weigh most."""

    def forget(self) -> None:
        """Make ready for another recording."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw. `rates` are bytes a second of late, by site; empty when not measured."""

    recording: Recording
    findings: Findings
    rates: npt.NDArray[np.float64]
    rate: float | None = None  # of all sites together
    paused: bool = False
    ended: str | None = None  # a sentence on why this is the last
    trouble: str | None = None  # why this is older than it should be


@dataclass(slots=True)
class Looks:
    """Looks at one recording. `pid` is None, and `still` set, where nothing moves any more."""

    label: str
    path: Path | None
    pid: int | None
    judging: Judge
    named: Named
    still: bool = False
    most: int = FEW
    last: Look | None = None
    cost_s: float = 0.0
    made: int = 0
    _started: int | None = None  # when the process was, which tells it from a later one
    _seen: deque[tuple[int, npt.NDArray[np.float64]]] = field(
        default_factory=lambda: deque(maxlen=_RECENT)
    )
    _costs: deque[float] = field(default_factory=lambda: deque(maxlen=_COSTS))

    @property
    def pause_s(self) -> float:
        """Seconds from one look to the next."""
        return min(max(_SOONEST_S, self.cost_s * _SHARE), _LATEST_S)

    @property
    def core_share(self) -> float:
        """Share of a core that looking takes at this pace."""
        return self.cost_s / self.pause_s

    def painted(self, seconds: float) -> None:
        """Add what it took to show the last look, in seconds of processor time."""
        if self._costs:
            self._costs[-1] += max(seconds, 0.0)
        self._settle()

    def look(self) -> Look:
        """Read and judge once. Raises `LeakscopeError` when the very first look fails."""
        begun = time.thread_time()
        try:
            found = self._look()
        except LeakscopeError as error:
            if self.last is None:
                raise
            found = self._later(error)
        self.last = found
        self.made += 1
        if self.made > 1:  # the first one opens files that the others use
            self._costs.append(time.thread_time() - begun)
        self._settle()
        return found

    def _settle(self) -> None:
        self.cost_s = min(self._costs, default=0.0)

    def _look(self) -> Look:
        if self.still and self.last is not None:  # its file may be gone
            last = self.last
            findings = self.judging.judge(last.recording, self.most)
            return replace(last, findings=findings)
        recording = self._read()
        running = recording.process.ended == "running"
        if not running and not self.still and self._follow():
            recording = self._read()
            running = recording.process.ended == "running"
        findings = self.judging.judge(recording, self.most)
        rates, rate = self._rates(recording)
        self.still = self.still or not running
        return Look(
            recording,
            findings,
            rates,
            rate,
            paused=running and self._paused(),
            ended=_ending(recording) if self.still and self.pid is not None else None,
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

    def _later(self, error: LeakscopeError) -> Look:
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

    def _rates(self, recording: Recording) -> tuple[npt.NDArray[np.float64], float | None]:
        """Growth of each site over the last looks, in bytes a second."""
        now = recording.sites["live_bytes"].astype(np.float64)
        self._seen.append((recording.duration_ns, now))
        first_ns, first = self._seen[0]
        seconds = (recording.duration_ns - first_ns) / 1e9
        if seconds <= 0 or len(first) > len(now):
            return np.zeros(0), None
        before = np.zeros(len(now))
        before[: len(first)] = first
        rates = (now - before) / seconds
        return rates, float(rates.sum())


def open_top(name: str, judging: Judge) -> Looks:
    """Return the looks at what `name` stands for: a traced process, or a recording.

    Raises `TargetError` for a process that is not traced, `UsageError` for what has no sites.
    """
    named = open_one(name)
    if named.kind is InputKind.PROCESS:
        raise TargetError(
            f"process {named.pid} is not being traced: there is nothing to show",
            hint=f"`leakscope attach {named.pid}` records it from now on, `leakscope run --"
            " PROGRAM` from its start.",
        )
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
