# SPDX-License-Identifier: Apache-2.0
"""A watch in progress: looks at intervals, series of what was seen, verdicts now and then.

Screens and commands drive it: `look` as often as they like to, `judge` when they need to know.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.judge.causes import find_causes
from leakscope.judge.growing import fast_growers, growth_now
from leakscope.judge.trends import judge_series
from leakscope.model.series import TrendVerdict
from leakscope.observe.collect import Collection, asleep_ns

if TYPE_CHECKING:
    from leakscope.model.growth import Growth
    from leakscope.model.series import Cause, Series, Subject, Trend
    from leakscope.observe.gather import Gatherer
    from leakscope.observe.measures import Pass
    from leakscope.observe.store import StoreWriter

__all__ = ["Judgement", "Watch"]

# Judging costs about a millisecond a gauge; every ten minutes keeps it below half a percent.
_JUDGE_EVERY_S = 600.0
_SOONEST_S = 60.0
_FIRST_S = 20.0  # what grows fast is known by then
_UNEVEN = 0.25  # share of a pause


@dataclass(frozen=True, slots=True)
class Judgement:
    """All verdicts at one moment."""

    trends: tuple[Trend, ...]
    causes: tuple[Cause, ...]
    killed: tuple[tuple[Subject, int], ...] = ()  # where the kernel ran out of memory
    reserved: tuple[tuple[Series, Growth], ...] = ()  # address space that grows

    @property
    def leaks(self) -> bool:
        """Whether anything leaks."""
        return bool(self.causes)

    @property
    def growing(self) -> bool:
        """Whether something that is not known to leak grows fast."""
        return bool(fast_growers(self.trends))

    @property
    def undecided(self) -> bool:
        """Whether nothing leaks, and what was seen cannot exclude it."""
        short = (TrendVerdict.NOT_ENOUGH_DATA, TrendVerdict.GROWING)
        return not self.causes and (
            self.growing or all(trend.verdict in short for trend in self.trends)
        )


def judge(collection: Collection) -> Judgement:
    """Judge everything seen so far."""
    trends = judge_series(collection.judged())
    reserved = [(one, growth_now(one)) for one in collection.series() if one.metric == "virtual"]
    return Judgement(
        tuple(trends),
        tuple(find_causes(trends)),
        tuple(collection.oom_kills()),
        tuple((one, growth) for one, growth in reserved if growth is not None and growth.rate > 0),
    )


@dataclass(slots=True)
class Watch:
    """Looks at what `gatherer` sees and keeps its series; also in `store`, when there is one."""

    gatherer: Gatherer
    interval_s: float
    store: StoreWriter | None = None
    looks: int = 0
    processes: int = 0
    missing: tuple[str, ...] = ()
    collection: Collection = field(init=False)
    judgement: Judgement | None = None
    store_error: RecordingError | None = None  # why the store was given up, if it was
    _began: float = field(default_factory=time.monotonic)
    _cpu_began: float = field(default_factory=time.process_time)
    _look_cpu_s: float = 0.0
    _judged_at: float = 0.0
    _before: dict[tuple[str, str, str], TrendVerdict] = field(default_factory=dict)
    _settled: bool = False

    def __post_init__(self) -> None:
        self.collection = Collection(interval_s=self.interval_s)

    @property
    def watched_s(self) -> float:
        """How long this watch has lasted."""
        return time.monotonic() - self._began

    @property
    def look_s(self) -> float:
        """CPU seconds of a look, on average."""
        return self._look_cpu_s / max(self.looks, 1)

    @property
    def core_share(self) -> float:
        """Share of one core that the watch has taken so far, verdicts and screen included."""
        return (time.process_time() - self._cpu_began) / max(self.watched_s, 1e-9)

    @property
    def pause_s(self) -> float:
        """How long to wait for the next look: at first less, so that growth shows at once.

        A quarter more or less each time: work that repeats in step with the looks would be met at
        another stage of its round each time, and seem to grow.
        """
        even = min(self.interval_s, max(1.0, self.watched_s))
        return even * random.uniform(1 - _UNEVEN, 1 + _UNEVEN)  # noqa: S311 (no secret)

    def look(self) -> Pass:
        """Look once. A store that cannot be written is closed; the watch goes on without."""
        cpu = time.process_time()
        one, asleep = self.gatherer.gather(), asleep_ns()
        self.looks += 1
        self.processes, self.missing = one.processes, one.missing
        self.collection.add(one, asleep_ns=asleep)
        if self.store is not None:
            try:
                self.store.add(one, asleep_ns=asleep)
            except RecordingError as error:
                self.store_error = error
                self.store.close()
                self.store = None
        self._look_cpu_s += time.process_time() - cpu
        return one

    def judge_when_due(self) -> None:
        """Judge if the last verdicts are old: early in a watch sooner than later."""
        soonest = _SOONEST_S if self._judged_at else _FIRST_S
        pause = min(_JUDGE_EVERY_S, max(soonest, 0.1 * self.watched_s))
        if self.watched_s - self._judged_at >= pause:
            self.judge()

    def judge(self) -> Judgement:
        """Judge now."""
        self._judged_at = self.watched_s
        self.judgement = judge(self.collection)
        # What came later than the watch keeps nobody waiting: there is always something young.
        first = self.collection.began_ns + int(2.5 * self.interval_s * 1e9)
        found = {
            (t.series.subject.kind, t.series.subject.key, t.series.metric): t.verdict
            for t in self.judgement.trends
            if t.series.times_ns[0] <= first
        }
        waiting = bool({TrendVerdict.NOT_ENOUGH_DATA, TrendVerdict.GROWING} & set(found.values()))
        # Twice in a row: one look in a thousand hours is wrong, two hardly ever are.
        self._settled = bool(found) and not waiting and found == self._before
        self._before = found
        return self.judgement

    @property
    def settled(self) -> bool:
        """Whether every gauge has a verdict, and had the same one the time before."""
        return self._settled
