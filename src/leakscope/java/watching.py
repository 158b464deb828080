# SPDX-License-Identifier: Apache-2.0
"""Virtual machines looked at for a while, as series with verdicts.

That is their own counters, what the kernel says of them, and on demand what lives in them.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import TargetError
from leakscope.java.attach import jcmd
from leakscope.java.diagnostics import parse_histogram, parse_native_memory, parse_string_table
from leakscope.java.machines import memory_of
from leakscope.judge.growing import growth_now
from leakscope.judge.live_sets import judge_live_set
from leakscope.judge.trends import judge_series
from leakscope.model.findings import Verdict
from leakscope.model.java_machines import (
    ClassCourse,
    GrowthOf,
    MachineFacts,
    MachineSeen,
    MachineWatched,
)
from leakscope.model.series import Series, Subject, TrendVerdict
from leakscope.proc.smaps import read_areas
from leakscope.words import bytes_text, plural, rate_text, signed_amount

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from leakscope.java.machines import Machine
    from leakscope.java.perf_data import PerfCounters
    from leakscope.proc.smaps import MappedArea

__all__ = ["MachineWatch", "facts_of", "watch_machine"]

_RISING = (Verdict.LEAKING, Verdict.GROWING)
_GROWN = (*_RISING, Verdict.FILLING)
_SOFT = re.compile(r"(Soft|Weak)(Reference|Ref|Value|Key|Entry|Node)\b")
_LEAST_WATCH_S = 900.0
_TICKS = 100  # a second: the unit of start times
_PAGE = 4096
_SHARED_HEAP = "/memfd:java_heap"  # ZGC maps its heap from there, and none of it is private
_LEAST = 1 << 20
_LEAST_NATIVE = 4 << 20
_EFFECT = 0.02
_FEW_THREADS, _FEW_CLASSES = 8, 20
_STRETCHES = 4
_FILLER = "jdk.internal.vm.Filler"  # since JDK 19; before, gaps were int[]
_FILLED = 0.05  # -XX:MarkSweepDeadRatio: so much a full collection leaves in gaps
_HEAP = ("live in the heap", "heap after collection")
_GAUGES = {
    "heap_after_gc": "bytes",
    "metaspace": "bytes",
    "classes": "count",
    "threads": "count",
    "memory": "bytes",
    "outside_heap": "bytes",
}


def facts_of(machine: Machine) -> MachineFacts:
    """Return what a virtual machine tells now."""
    counters = machine.counters()
    unseen = None
    if counters is None:
        unseen = "it keeps no counters (-XX:-UsePerfData), or they are in a place of its own"
        if not machine.mine:
            unseen = f"only {machine.user} and root may read its counters"
    return MachineFacts(
        machine.pid,
        machine.user,
        machine.name,
        "" if counters is None else counters.version,
        None if counters is None else counters.heap_after,
        None if counters is None else counters.heap_most,
        None if counters is None else counters.collections,
        None if counters is None else counters.full_collections,
        0.0 if counters is None else counters.collecting_s,
        None if counters is None else counters.metaspace,
        None if counters is None else counters.classes,
        None if counters is None else counters.threads,
        memory_of(machine.pid),
        unseen,
        _remark(counters),
    )


def _remark(counters: PerfCounters | None) -> str | None:
    if counters is None or counters.counts_collections or not counters.collector:
        return None
    return (
        f"{counters.collector} counts its pauses, not its collections: the heap is judged at the"
        " looks at which less of it was in use than before"
    )


@dataclass(slots=True)
class MachineWatch:
    """Series of one virtual machine under construction. With `areas` also what is outside its heap."""

    machine: Machine
    areas: bool = False
    _courses: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    _collections: int = -1
    _in_use: int = -1

    def look(self) -> bool:
        """Look once; False when it has ended."""
        memory = memory_of(self.machine.pid)
        if memory is None:
            return False
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._put("memory", now, memory)
        counters = self.machine.counters()
        if counters is not None:
            self._take(counters, now)
        if self.areas and counters is not None:
            outside = _outside_heap(self.machine.pid, counters.heap_most)
            if outside is not None:
                self._put("outside_heap", now, outside)
        return True

    def _take(self, counters: PerfCounters, now: int) -> None:
        self._put("heap_after_gc", now, self._after_collection(counters))
        self._put("metaspace", now, counters.metaspace)
        self._put("classes", now, counters.classes)
        self._put("threads", now, counters.threads)

    def _after_collection(self, counters: PerfCounters) -> int | None:
        """Return what a collection since the last look left over; None: there was none."""
        if counters.collections is not None:
            new = counters.collections > 0 and counters.collections != self._collections
            self._collections = counters.collections
            return counters.heap_after if new else None
        # Less is in use than before: something was collected, whatever the counter counts.
        before, self._in_use = self._in_use, counters.heap_in_use or 0
        return self._in_use if self._in_use < before else None

    def _put(self, name: str, now: int, value: int | None) -> None:
        if value is not None:
            times, values = self._courses.setdefault(name, ([], []))
            times.append(now)
            values.append(float(value))

    def series(self) -> list[Series]:
        """Return what was seen so far."""
        counters = self.machine.counters()
        most = None if counters is None else counters.heap_most
        found = []
        for name, (times, values) in self._courses.items():
            heap = name == "heap_after_gc"
            subject = Subject(
                "java",
                f"{self.machine.pid}@{self.machine.start}",
                self.machine.name,
                self.machine.pid,
                started_ns=self.machine.start * 1_000_000_000 // _TICKS,
                limit=float(most) if heap and most else None,
                limit_of="the largest heap that it may have" if heap and most else None,
            )
            found.append(
                Series(
                    subject,
                    name,
                    _GAUGES[name],
                    np.array(times, np.int64),
                    np.array(values, np.float64),
                )
            )
        return found

    def judge(self) -> MachineSeen:
        """Judge every gauge as `leakscope watch` does."""
        facts = facts_of(self.machine)
        _, heap = self._courses.get("heap_after_gc", ((), ()))
        if facts.heap_used is None and heap:
            facts = replace(facts, heap_used=int(heap[-1]))
        return MachineSeen(facts, tuple(judge_series(self.series())))


def _outside_heap(pid: int, heap_most: int | None) -> int | None:
    """Return private memory outside the Java heap: all but the stretch of mappings of its size.

    None where mappings are not for us to see, or no stretch fits.
    """
    areas = read_areas(pid)
    if areas is None or not heap_most:
        return None
    total = sum(area.anonymous for area in areas)
    if any(area.path.startswith(_SHARED_HEAP) for area in areas):
        return total
    heap = _heap_resident(areas, heap_most)
    return None if heap is None else total - heap


def _heap_resident(areas: Sequence[MappedArea], heap_most: int) -> int | None:
    """Return what is in memory of the stretch that fits the heap best, the lowest of several.

    Class data may follow it without a gap: they may reach as far as the heap.
    """
    least = heap_most & -_PAGE  # G1 counts some bytes too many
    best: tuple[int, int] | None = None  # what it is too long by, what is in memory
    start = end = -1
    resident = 0
    fits = False
    for area in areas:
        # The archive of shared classes can lie in the heap.
        if area.start != end or (area.path and not area.path.endswith(".jsa")):
            start, resident, fits = area.start, 0, False
        end, resident = area.end, resident + area.anonymous
        excess = end - start - least
        if not fits and 0 <= excess <= least // 20 + (1 << 20):
            fits = True
            if best is None or excess < best[0]:
                best = (excess, resident)
    return None if best is None else best[1]


# ---- one of them, closely


@dataclass(slots=True)
class _Moment:
    at_s: float
    classes: dict[str, tuple[int, int]]
    native: dict[str, int] | None
    strings: int | None
    took_ms: float


def watch_machine(
    machine: Machine,
    seconds: float,
    every_s: float,
    histograms: int,
    *,
    told: Callable[[str], None] = lambda _: None,
) -> MachineWatched:
    """Watch one virtual machine. Each of the `histograms` makes it collect its garbage.

    `told` gets a line now and then. Raises `TargetError` when it is gone at the first look.
    """
    watch = MachineWatch(machine, areas=True)
    began = time.monotonic()
    moments: list[_Moment] = []
    notes: list[str] = []
    step = seconds / max(histograms - 1, 1)
    if not watch.look():
        raise TargetError(f"process {machine.pid} has ended")
    asked = histograms
    while True:
        passed = time.monotonic() - began
        if asked and passed >= len(moments) * step - 1e-3:
            moment = _ask(machine, passed, notes)
            if moment is None:
                asked = 0
            else:
                moments.append(moment)
                told(_told(moment))
                asked -= 1
        alive = watch.look()
        if not alive:
            notes.append("it ended while it was watched")
            break
        passed = time.monotonic() - began
        if passed >= seconds and not asked:
            break
        time.sleep(max(min(every_s, seconds - passed), 0.01))
    return _answer(watch, time.monotonic() - began, moments, notes)


def _told(moment: _Moment) -> str:
    size = sum(size for _, size in moment.classes.values())
    return f"{bytes_text(size)} live in the heap (asked in {moment.took_ms:.0f} ms)"


def _ask(machine: Machine, at_s: float, notes: list[str]) -> _Moment | None:
    """Ask what lives; what it refuses is noted and not asked again."""
    began = time.monotonic()
    try:
        classes = parse_histogram(jcmd(machine, "GC.class_histogram", patience_s=60.0))
        took = time.monotonic() - began
        native = parse_native_memory(jcmd(machine, "VM.native_memory summary scale=KB"))
        strings = parse_string_table(jcmd(machine, "VM.stringtable"))
    except TargetError as error:
        notes.append(f"{error}: what lives in its heap was not seen")
        return None
    return _Moment(at_s, classes, native, strings, took * 1000)


def _answer(
    watch: MachineWatch, seconds: float, moments: Sequence[_Moment], notes: list[str]
) -> MachineWatched:
    seen = watch.judge()
    classes = _classes(moments, _filled(watch.machine.counters()))
    changes = _changes(watch, moments)
    outside = next((one for one in watch.series() if one.metric == "outside_heap"), None)
    if moments and moments[0].native is None:
        notes.append(
            "native memory is not tracked: -XX:NativeMemoryTracking=summary at its start would tell"
            " what the virtual machine itself takes"
        )
    of, verdict, sentence = _whose(
        seen, classes, changes, 0.0 if outside is None else _steady(outside), seconds
    )
    if of is None and verdict is None and not any(name in _HEAP for name, *_ in changes):
        verdict = Verdict.UNKNOWN
        sentence = (
            "what lives in its heap was not seen twice, so that its growth is not known;"
            " nothing else grew by what is worth a word"
        )
    return MachineWatched(
        seen,
        seconds,
        tuple(classes),
        tuple(changes),
        of,
        verdict,
        sentence,
        _next(of, watch.machine),
        len(moments),
        max((one.took_ms for one in moments), default=0.0),
        tuple(notes),
    )


def _filled(counters: PerfCounters | None) -> float:
    """Return how many bytes of int[] may be gaps that a collection filled, and no objects."""
    if counters is None or not counters.counts_collections:
        return 0.0
    return _FILLED * (counters.heap_most or 0)


def _classes(moments: Sequence[_Moment], filled: float) -> list[ClassCourse]:
    if len(moments) < 2:
        return []
    times = [one.at_s for one in moments]
    heap = [sum(size for _, size in one.classes.values()) for one in moments]
    soft = _soft(moments[-1].classes) - _soft(moments[0].classes)
    found = []
    for name in moments[-1].classes:
        course = [one.classes.get(name, (0, 0)) for one in moments]
        counts, sizes = tuple(c for c, _ in course), tuple(s for _, s in course)
        grown = sizes[-1] - sizes[0]
        if name.startswith(_FILLER) or (name == "int[]" and grown <= filled):
            continue
        # A second look at the same thing: does the heap as a whole grow by that, at each step?
        steady = all(b > a for a, b in pairwise(heap))
        judged = judge_live_set(
            times,
            sizes,
            counts,
            heap,
            held_in_one_place=steady and heap[-1] - heap[0] >= 0.5 * grown and len(moments) >= 4,
            least_s=_LEAST_WATCH_S,
            second=("all that lives grows with it", "all that lives does not grow with it"),
        )
        if (
            judged is not None
            and judged.verdict in _RISING
            and soft >= 0.3 * (counts[-1] - counts[0])
        ):
            why = f"{judged.sentence}; soft and weak references grew as well: it may be a cache"
            judged = replace(judged, verdict=Verdict.GROWING, confidence=0.5, sentence=why)
        if judged is not None:
            found.append(
                ClassCourse(
                    name,
                    counts,
                    sizes,
                    judged.verdict,
                    judged.confidence,
                    judged.rate,
                    judged.sentence,
                    judged.evidence,
                )
            )
    return sorted(found, key=lambda c: (c.verdict not in _GROWN, -(c.sizes[-1] - c.sizes[0])))


def _soft(classes: dict[str, tuple[int, int]]) -> int:
    """How many references there are that hold nothing for good."""
    return sum(count for name, (count, _) in classes.items() if _SOFT.search(name))


def _changes(
    watch: MachineWatch, moments: Sequence[_Moment]
) -> list[tuple[str, float, float, str]]:
    found: list[tuple[str, float, float, str]] = []
    if len(moments) > 1:
        first, last = moments[0], moments[-1]
        live = [sum(size for _, size in one.classes.values()) for one in (first, last)]
        found.append(("live in the heap", live[0], live[1], "bytes"))
    for series in watch.series():
        if len(series.values) > 1:
            first_value, last_value = float(series.values[0]), float(series.values[-1])
            found.append((_NAMES[series.metric], first_value, last_value, series.unit))
    if len(moments) > 1:
        first, last = moments[0], moments[-1]
        buffers = [one.classes.get("java.nio.DirectByteBuffer", (0, 0))[0] for one in (first, last)]
        found.append(("direct buffers", buffers[0], buffers[1], "count"))
        if first.strings is not None and last.strings is not None:
            found.append(("interned strings", first.strings, last.strings, "count"))
        for name in sorted(set(first.native or ()) & set(last.native or ())):
            before, after = (first.native or {})[name], (last.native or {})[name]
            if before != after:
                found.append((f"tracked: {name}", before, after, "bytes"))
    return found


_NAMES = {
    "heap_after_gc": "heap after collection",
    "metaspace": "metaspace",
    "classes": "classes",
    "threads": "threads",
    "memory": "private memory",
    "outside_heap": "outside the heap",
}


def _whose(
    seen: MachineSeen,
    classes: Sequence[ClassCourse],
    changes: Sequence[tuple[str, float, float, str]],
    outside: float,
    seconds: float,
) -> tuple[GrowthOf | None, Verdict | None, str]:
    """Say whose growth it is: the part that grew most, and what is known of it.

    `outside` is what grew steadily outside the heap, in bytes.
    """
    delta = {name: last - first for name, first, last, _ in changes}
    leak = next((one for one in classes if one.verdict in _GROWN), None)
    trends = {trend.series.metric: trend for trend in seen.trends}
    # Class data are outside the heap, and their counter moves with collections only.
    loaded = max(delta.get("metaspace", 0.0), 0.0)
    if delta.get("classes", 0.0) >= _FEW_CLASSES:
        loaded += outside + max(delta.get("live in the heap", 0.0), 0.0)
    parts = [
        (GrowthOf.HEAP, max(delta.get("live in the heap", 0.0), 0.0) if leak is not None else 0.0),
        (GrowthOf.CLASSES, loaded),
        (GrowthOf.THREADS, _threads(delta)),
        (GrowthOf.BUFFERS, _buffers(delta)),
        (GrowthOf.UNSAFE, _unsafe(delta)),
    ]
    tracked = sum(
        value
        for name, value in delta.items()
        if name.startswith("tracked: ") and name not in ("tracked: Total", "tracked: Java Heap")
    )
    parts.append((GrowthOf.MACHINE, tracked - sum(size for _, size in parts[1:])))
    # What is new outside the heap at first is the virtual machine warming up.
    native = outside - max(tracked, loaded, 0.0)
    first = next((before for name, before, _, _ in changes if name == "outside the heap"), 0.0)
    # A virtual machine that warms up grows there as well: compiled code, its compilers' memory.
    parts.append((GrowthOf.NATIVE, native if native >= max(_LEAST_NATIVE, 0.1 * first) else 0.0))
    of, size = max(parts, key=lambda part: part[1])
    least = max(_LEAST, _EFFECT * (seen.facts.memory or 0))
    if of is GrowthOf.HEAP and leak is not None and size > 0:
        sentence = f"the Java heap grows, most of it {leak.class_name}: {leak.sentence}"
        return of, leak.verdict, sentence
    if size < least:
        heap = trends.get("heap_after_gc")
        if heap is not None and heap.verdict is TrendVerdict.LEAK:
            return GrowthOf.HEAP, Verdict.LEAKING, f"the heap after collection {heap.sentence}"
        return None, None, "nothing grows by what is worth a word"
    rate = rate_text(size / max(seconds, 1e-9))
    leaks = {"metaspace", "threads", "outside_heap", "memory"}
    proven = any(m in leaks and t.verdict is TrendVerdict.LEAK for m, t in trends.items())
    verdict = Verdict.LEAKING if proven else Verdict.GROWING
    sentence = f"{of} grew by {signed_amount(size, 'bytes')}, {rate}"
    if of is GrowthOf.CLASSES:
        sentence = f"{plural(int(delta.get('classes', 0)), 'class', 'classes')} more than at first"
    if of is GrowthOf.THREADS:
        sentence = f"{plural(int(delta['threads']), 'thread')} more than at first"
    heap_flat = delta.get("live in the heap", 0.0) < 0.1 * size
    if of is GrowthOf.NATIVE and heap_flat:
        sentence += ", while the heap does not grow"
    return of, verdict, sentence


def _steady(series: Series) -> float:
    """Return what a gauge grew by where it did so from stretch to stretch."""
    growth = growth_now(series)
    grown = 0.0
    if growth is not None and growth.rate > 0 and growth.steadiness >= 0.6 and growth.falls < 3:
        grown = growth.grown
    # That is since it last fell, which a collection makes it do by a little.
    if len(series.values) >= _STRETCHES * 2:
        floors = [float(part.min()) for part in np.array_split(series.values, _STRETCHES)]
        steps = [after - before for before, after in pairwise(floors)]
        if min(steps) > 0 and max(steps) <= 0.6 * sum(steps):
            grown = max(grown, floors[-1] - floors[0])
    return grown


def _threads(delta: dict[str, float]) -> float:
    # Of each thread's stack some ten pages are touched.
    count = delta.get("threads", 0.0)
    return count * (1 << 20) if count >= _FEW_THREADS else 0.0


def _buffers(delta: dict[str, float]) -> float:
    if delta.get("direct buffers", 0.0) < _FEW_THREADS:
        return 0.0
    tracked = delta.get("tracked: Other", 0.0)
    return tracked if tracked > 0 else max(delta.get("outside the heap", 0.0), 0.0) + 1


def _unsafe(delta: dict[str, float]) -> float:
    """What is tracked as that of direct buffers, where there are no more of these."""
    few = delta.get("direct buffers", 0.0) < _FEW_THREADS
    return max(delta.get("tracked: Other", 0.0), 0.0) if few else 0.0


def _next(of: GrowthOf | None, machine: Machine) -> str:
    pid = machine.pid
    if of in (GrowthOf.HEAP, GrowthOf.CLASSES, GrowthOf.BUFFERS):
        return f"to see who holds it: leakscope java dump {pid} -o {pid}.hprof"
    if of is GrowthOf.THREADS:
        return f"to see what they do: jcmd {pid} Thread.print"
    if of is GrowthOf.MACHINE:
        return f"to see what it is: jcmd {pid} VM.native_memory detail.diff"
    if of in (GrowthOf.NATIVE, GrowthOf.UNSAFE):
        return f"to see which native code: leakscope find {pid}"
    return "watch it longer, and under load, with --for 15m"
