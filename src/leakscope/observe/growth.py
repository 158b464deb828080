# SPDX-License-Identifier: Apache-2.0
"""How fast a process grows, measured in seconds: for commands that go on from there.

`observe_growth` looks for a while and tells; `GrowthObserver` lets its caller look when it likes,
such as before and after each walk of a heap. Nothing here touches the process: /proc is read.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from leakscope.errors import TargetError
from leakscope.model.growing import growth_of
from leakscope.observe.collect import Collection, asleep_ns
from leakscope.observe.gather import Gatherer

if TYPE_CHECKING:
    from collections.abc import Callable

    from leakscope.model.growth import Growth
    from leakscope.model.series import Series

__all__ = ["GrowthObserver", "observe_growth"]

_LOOKS = 10  # in the time that is given
_SOONEST_S, _LATEST_S = 0.2, 10.0


@dataclass(slots=True)
class GrowthObserver:
    """Gauges of one process over time. Use it in a `with` statement, or close it."""

    pid: int
    interval_s: float = 1.0  # about how far looks are apart: five times as long is a gap
    _gatherer: Gatherer = field(init=False)
    _collection: Collection = field(init=False)

    def __post_init__(self) -> None:
        self._gatherer = Gatherer(only=frozenset({self.pid}), system=False)
        self._collection = Collection(interval_s=self.interval_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the descriptors that were kept open."""
        self._gatherer.close()

    def look(self) -> bool:
        """Look once; return whether the process is still there."""
        self._collection.add(self._gatherer.gather(), asleep_ns=asleep_ns())
        return not self._gatherer.ended

    def series(self) -> list[Series]:
        """Return the gauges of the process so far, each with the bound that it runs into."""
        return [one for one in self._collection.series() if one.subject.pid == self.pid]

    def growths(self) -> dict[str, Growth]:
        """Return the growth of each gauge that was seen twice, by its metric ("anon", "fds", …)."""
        found = {one.metric: growth_of(one) for one in self.series()}
        return {metric: growth for metric, growth in found.items() if growth is not None}

    def growth(self, metric: str = "anon") -> Growth | None:
        """Return the growth of one gauge; None before its second look."""
        return self.growths().get(metric)


def observe_growth(
    pid: int,
    seconds: float = 10.0,
    *,
    metric: str = "anon",
    sleep: Callable[[float], None] = time.sleep,
) -> Growth:
    """Look at `pid` for `seconds` and return how `metric` grew, private memory by default.

    A process that ends meanwhile is measured until then. Raises TargetError when it cannot be
    looked at twice.
    """
    pause = min(_LATEST_S, max(_SOONEST_S, seconds / _LOOKS))
    until = time.monotonic() + seconds
    with GrowthObserver(pid, pause) as observer:
        alive = observer.look()
        while alive and time.monotonic() < until:
            sleep(min(pause, max(0.0, until - time.monotonic())))
            alive = observer.look()
        growth = observer.growth(metric)
    if growth is None:
        raise TargetError(
            f"process {pid} could not be looked at twice",
            hint="It has ended, is a kernel thread or belongs to somebody else.",
        )
    return growth
