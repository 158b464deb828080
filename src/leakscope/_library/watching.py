# SPDX-License-Identifier: Apache-2.0
"""`leakscope.watch`: which processes, cgroups and kernel caches grow, and whether it is a leak."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from leakscope import _numpy  # noqa: F401 - before anything that imports numpy
from leakscope._accounts import accounts
from leakscope._library import values
from leakscope._library.results import Watched
from leakscope.errors import TargetError, UsageError
from leakscope.observe.asked import find_cgroup, find_processes
from leakscope.observe.gather import Gatherer
from leakscope.observe.store import StoreWriter
from leakscope.report.watch import render_standing
from leakscope.workflow.watching import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from leakscope._library.values import Duration, PathLike

__all__ = ["watch"]

_SOONEST_S, _LATEST_S = 0.1, 86_400.0  # between looks


def watch(
    *targets: int | str,
    duration: Duration | None = None,
    until_verdict: bool = False,
    stop: threading.Event | None = None,
    every: Duration = 10.0,
    cgroup: PathLike | None = None,
    record: PathLike | None = None,
    heap: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Watched:
    """Watch processes by number or name, and say which of them leak; without any, everything.

    It ends after `duration`, or, with `until_verdict`, once every gauge has had the same verdict
    twice, or when `stop` is set by another thread, or when all processes that were asked for have
    ended; one of the first three must be given. `every` is the time between looks, `cgroup` watches
    one cgroup and all below it instead. `record` also writes what is seen to a new file that
    `leakscope report` can show. `heap` walks the heaps of what was asked for at the end, which stops
    them for some milliseconds. `progress` is told one line after each look.

    A verdict takes 15 minutes of watching and 40 minutes of a process's life; until then it says how
    much longer to watch. Raises `TargetError` when there is no such process or nothing of it can be
    read, `UsageError` for what makes no sense, `RecordingError` when `record` cannot be written.
    """
    length, interval = values.duration("duration", duration), values.duration("every", every)
    if length is None and not until_verdict and stop is None:
        raise UsageError(
            "nothing says when the watch is to end",
            hint='Give duration="30m", until_verdict=True, or stop=threading.Event().',
        )
    if interval is None or not _SOONEST_S <= interval <= _LATEST_S:
        raise UsageError(f"every={every!r} is not between 0.1 s and a day")
    if targets and cgroup is not None:
        raise UsageError("name processes or a cgroup, not both", hint="Leave out cgroup.")
    names = [_name(target) for target in targets]
    only, known = find_processes(names) if names else (None, frozenset[str]())
    group = None if cgroup is None else find_cgroup(values.path("cgroup", cgroup))
    if length is not None:
        interval = min(interval, max(length / 10, 0.1))
    with contextlib.ExitStack() as opened:
        store = None
        if record is not None:
            store = _store(values.path("record", record), interval)
            opened.callback(store.close)
        gatherer = Gatherer(
            only=only, names=known, cgroup=group, system=only is None and group is None
        )
        opened.callback(gatherer.close)
        going = Watch(gatherer, interval, store)
        _look_on(going, length, until_verdict, stop or threading.Event(), progress)
        lasted = going.watched_s
        judgement = going.judge()
        holds = accounts(judgement, gatherer.only or (), heap=heap)
    if going.store_error is not None:
        raise going.store_error
    if names and not judgement.trends:
        raise TargetError(
            f"nothing could be read of {', '.join(names)[:80]}",
            hint="Kernel threads and zombies hold no memory; another user's process may be hidden.",
        )
    return Watched(
        trends=judgement.trends,
        causes=judgement.causes,
        watched_s=lasted,
        cost=f"Cost: {going.looks} looks of {going.look_s * 1000:.1f} ms each.",
        look_s=going.look_s,
        missing=going.missing,
        killed=judgement.killed,
        held=holds,
        reserved=judgement.reserved,
    )


def _name(target: object) -> str:
    if isinstance(target, str):
        return target
    if target is None:
        raise UsageError(
            "a process to watch is None", hint="Give its number or its program's name."
        )
    return str(values.whole("a process to watch", target))


def _store(path: str, interval: float) -> StoreWriter:
    about = {"interval_s": interval, "host": os.uname().nodename, "kernel": os.uname().release}
    return StoreWriter(path, {**about, "started": time.time()})


def _look_on(
    watch: Watch,
    length: float | None,
    until_verdict: bool,
    stop: threading.Event,
    progress: Callable[[str], None] | None,
) -> None:
    due = time.monotonic()
    while True:
        watch.look()
        if progress is not None:
            standings = watch.collection.standings()
            progress(render_standing(watch.watched_s, watch.processes, standings))
        if watch.gatherer.only is not None and watch.gatherer.ended:
            return
        if until_verdict:
            watch.judge_when_due()
            if watch.settled:
                return
        if length is not None and watch.watched_s + watch.interval_s > length:
            return
        due = max(due + watch.interval_s, time.monotonic())
        if stop.wait(max(0.0, due - time.monotonic())):
            return
