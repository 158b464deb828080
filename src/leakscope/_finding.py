# SPDX-License-Identifier: Apache-2.0
"""The whole craft on one process: does it grow, is it a leak, what is it, who holds it.

/proc is read first; then, where that is allowed, the heap is walked twice, for which the process
stands still twice for `max_pause_s` at most. A process that leakscope traces is not walked so:
its recording tells as much, with call stacks.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from leakscope.errors import TargetError, UsageError
from leakscope.judge.allocator_settings import keeps_much, settings_for
from leakscope.judge.runtimes import runtimes_mapped
from leakscope.model.found import Found, FoundVerdict, GrownMapping, Rival
from leakscope.observe.asked import find_processes
from leakscope.observe.growth import GrowthObserver
from leakscope.observe.process import points_to
from leakscope.proc.elf import read_elf
from leakscope.proc.maps import read_maps
from leakscope.proc.naming import name_of
from leakscope.proc.process import may_read_memory, read_executable, read_gauges, read_start
from leakscope.proc.smaps import read_areas
from leakscope.proc.text import read_text
from leakscope.scan.subject import check_process
from leakscope.workflow.attaching import count_earlier, fate_of_earlier, without_fate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from leakscope.model.census import HeapGrowth
    from leakscope.model.earlier import Earlier
    from leakscope.model.growth import Growth
    from leakscope.model.recordings import Recording
    from leakscope.proc.naming import Naming
    from leakscope.proc.smaps import MappedArea
    from leakscope.scan.census import Census

    Ask = Callable[[str], bool]
    Say = Callable[[str], None]

__all__ = ["find"]

SECONDS = 30.0
MAX_PAUSE_S = 0.1
_SHORTEST_S, _LONGEST_S = 3.0, 86_400.0
_CONFIRM = 1 / 3  # of the time, before the first walk
_CHOOSE_S = 5.0  # to see which of several grows fastest
_LOOK_S = 1.0
_MOST_RIVALS = 8
_GREW = 256 << 10  # bytes that are worth to be told
_GREW_SHARE = 0.002  # of what there is
_COUNT_GREW = 8
_OUTSIDE = 0.3  # of what grew, is not what the walked heap took
_MAPPING_GREW = 128 << 10
_STACK = 16 << 10  # what a thread costs at least
_PER_DESCRIPTOR = 16 << 10  # bytes of heap: with more than that, the heap is the chief thing
_SHARED_MEMORY = "/dev/zero (deleted)"  # what /proc calls it
_SHARED = ("/dev/shm/", "/memfd:", "/SYSV", "/dev/zero")  # noqa: S108 (names, not opened)
_GAUGES = {
    "fds": "open descriptors",
    "threads": "threads",
    "shmem": "shared memory",
    "page_tables": "page tables",
    "children": "child processes",
    "zombies": "zombies",
}


def find(
    target: int | str,
    *,
    seconds: float = SECONDS,
    stop: bool = True,
    attach: bool = False,
    max_pause_s: float = MAX_PAUSE_S,
    ask: Ask | None = None,
    say: Say | None = None,
) -> Found:
    """Return whether a process leaks, what and how fast, and who holds it.

    `target` is a pid, or a name as `watch` takes it; of several processes the one that grows
    fastest is chosen. It is looked at for about `seconds`. With `stop` its heap is walked twice,
    each time it is stopped for `max_pause_s` at most; with `attach` its allocations are recorded
    meanwhile, where that is safe, so that lines of code are named. `ask` is called with a question before
    that, `say` with what is done next. Raises `UsageError` for values that make no sense, and
    `TargetError` when there is no such process, it may not be looked at, or it ends meanwhile.
    """
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise UsageError(
            f"{seconds:g} s is no time to look for", hint="Take 3 seconds to one day; 30 s say."
        )
    say = say or _silent
    pid, rivals = _choose(str(target), say)
    check_process(pid)
    if not may_read_memory(pid) and stop:
        raise TargetError(
            f"process {pid} belongs to somebody else: its memory may not be looked at",
            hint="Run as root or as its user. --no-stop tells from /proc alone whether it grows.",
        )
    search = _Search(pid, seconds, max_pause_s, rivals, say)
    if not (attach and stop):
        return search.run(stop=stop, ask=ask)
    return _attached(search, ask)


def _attached(search: _Search, ask: Ask | None) -> Found:
    """Look at a process with its allocations recorded, between two more walks of its heap."""
    question = (
        f"Attach to {search.name}, and stop it four times, for {search.max_pause_s:g} s at most,"
        " to walk its heap?"
    )
    if ask is not None and not ask(question):
        search.unseen.append("it was not attached to and its heap was not walked, as you said")
        return search.run(stop=False, ask=None, why=None)
    with search.attached():
        found = search.run(stop=True, ask=None)
    earlier = search.fate()
    return found if earlier is None else replace(found, earlier=earlier)


def _silent(_: str) -> None:
    return


def _choose(target: str, say: Say) -> tuple[int, tuple[Rival, ...]]:
    """Return the process that is meant, and the others of its name."""
    found = sorted(find_processes([target])[0])
    if len(found) == 1:
        return found[0], ()
    say(f"{len(found)} processes are called so: looking which of them grows fastest")
    began, before = time.monotonic(), {pid: _held(pid) for pid in found}
    starts = {pid: read_start(pid) for pid in found}
    time.sleep(_CHOOSE_S)
    passed = time.monotonic() - began
    rates = {
        pid: (_held(pid) - before[pid]) / passed
        for pid in found
        if starts[pid] is not None and read_start(pid) == starts[pid]
    }
    if not rates:
        raise TargetError(f"all processes called '{target[:80]}' ended meanwhile")
    # Of those that do not grow, the one that holds most.
    order = sorted(rates, key=lambda pid: (-rates[pid], -before[pid]))
    rest = tuple(Rival(pid, rates[pid]) for pid in order[1:])
    return order[0], rest


def _held(pid: int) -> float:
    gauges, _ = read_gauges(pid)
    return 0.0 if gauges is None else float(gauges.anon + gauges.rss_shmem)


@dataclass(slots=True)
class _Search:
    """One process while it is looked at."""

    pid: int
    seconds: float
    max_pause_s: float
    rivals: tuple[Rival, ...]
    say: Say
    naming: Naming = field(init=False)
    unseen: list[str] = field(default_factory=list)
    heap: HeapGrowth | None = None
    is_traced: bool = False
    is_attached: bool = False  # for as long as it is looked at
    own_starts: frozenset[int] = frozenset()  # addresses of shared memory that attaching mapped
    growths: dict[str, Growth] = field(default_factory=dict)
    _identity: tuple[object, ...] = field(init=False)
    _before: Census | None = None  # the heap before it was attached to
    _recorded: Recording | None = None

    def __post_init__(self) -> None:
        self.naming = name_of(self.pid)
        self._identity = self._who()

    def run(self, *, stop: bool, ask: Ask | None, why: str | None = "--no-stop") -> Found:
        """Look, walk, look again, and put together what was seen.

        `why` the heap is not walked where it is not; None: that is told already.
        """
        began = time.monotonic()
        areas, open_before = read_areas(self.pid) or (), points_to(self.pid)
        with GrowthObserver(self.pid, _LOOK_S) as observer:
            self.say(f"looking for {self.seconds * _CONFIRM:.0f} s how {self.name} grows")
            self._watch(observer, began + self.seconds * _CONFIRM)
            if stop and ask is not None:
                question = (
                    f"Stop {self.name} twice, for {self.max_pause_s:g} s at most, to walk its heap?"
                )
                if not ask(question):
                    stop = False
                    self.unseen.append("the heap was not walked, as you said")
            elif not stop and why is not None:
                self.unseen.append(f"the heap was not walked: {why}")
            until = began + self.seconds
            if stop:
                self._walk_twice(observer, until)
            else:
                self._watch(observer, until)
            self.growths = observer.growths()
        self._check()
        after = [a for a in read_areas(self.pid) or () if a.start not in self.own_starts]
        mappings = _grown_mappings(areas, after)
        came = Counter(dict(points_to(self.pid)))
        came.subtract(dict(open_before))
        descriptors = tuple((name, n) for name, n in came.most_common(4) if n > 0)
        runtimes = self._runtimes()
        seconds = time.monotonic() - began
        return _answer(self, mappings, descriptors, runtimes, seconds)

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Record the allocations of the process until the end, if that can be done."""
        from leakscope.trace.attach.plan import make_plan
        from leakscope.trace.attach.session import Session
        from leakscope.trace.live_files import find_live_file

        if find_live_file(self.pid) is not None:
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                plan = make_plan(self.pid)
                if plan.refusal is None:
                    self._count_earlier()
                before = _shared_starts(self.pid)
                session = stack.enter_context(Session(plan, max_pause_s=self.max_pause_s))
                self.own_starts = _shared_starts(self.pid) - before
                self.is_attached = True
                self.say(f"attached to {self.name}: what it allocates is recorded")
            except TargetError as error:
                self.unseen.append(f"no call stacks: {error}")
            yield
            if self.is_attached:
                session.detach()
                self._recorded = session.recording()

    def _count_earlier(self) -> None:
        """Walk the heap before anything is put into the process."""
        self.say(f"walking the heap of {self.name} as it is before")
        try:
            self._before = count_earlier(self.pid, self.max_pause_s)
        except TargetError as error:
            self.unseen.append(f"what was there before is not known: {error}")

    def fate(self) -> Earlier | None:
        """Return what was there before it was attached to, and what became of that."""
        if self._before is None or not self.is_attached:
            return None
        if self._recorded is None:
            return without_fate(self._before, "nothing was recorded meanwhile")
        self.say("walking its heap once more, without anything in it")
        return fate_of_earlier(self._before, self._recorded, self.max_pause_s)

    @property
    def name(self) -> str:
        """What it is called in what is said meanwhile."""
        return f"{self.naming.short or 'the process'} (pid {self.pid})"

    def _watch(self, observer: GrowthObserver, until: float) -> None:
        """Look once a second; the last look is at the end."""
        while True:
            if not observer.look():
                raise self._ended()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(_LOOK_S, left))

    def _walk_twice(self, observer: GrowthObserver, until: float) -> None:
        from leakscope.scan import cancellable
        from leakscope.scan.census import count_heap, grow_between
        from leakscope.trace.live_files import find_live_file

        live = find_live_file(self.pid)
        try:
            if live is not None:
                self.is_traced = True
                self.say("it is traced already: reading its recording")
                self.heap = _compare_recordings(
                    self.pid, live.path, self.max_pause_s, lambda: self._watch(observer, until)
                )
                return
            self.say("walking its heap")
            before = cancellable(lambda: count_heap(self.pid, max_pause_s=self.max_pause_s))
            self._check()
            self.say(f"waiting {max(until - time.monotonic(), 0):.0f} s to walk it again")
            self._watch(observer, until)
            self._check()
            self.say("walking its heap again")
            self.heap = cancellable(lambda: grow_between(before, max_pause_s=self.max_pause_s))
        except TargetError as error:
            self._check()  # when it is gone, that is what to say
            self.unseen.append(f"its heap was not walked: {error}")
            if error.hint:
                self.unseen.append(error.hint.rstrip("."))
            self._watch(observer, until)

    def _who(self) -> tuple[object, ...]:
        """What changes when the number is another process's, or another program runs in it."""
        # The kernel gives each program sixteen random bytes and their address.
        vector = read_text(f"/proc/{self.pid}/auxv", 4096)
        return read_start(self.pid), read_executable(self.pid), vector

    def _check(self) -> None:
        now, gauges = self._who(), read_gauges(self.pid)[0]
        if now[0] != self._identity[0] or gauges is None or gauges.state in {"Z", "X"}:
            raise self._ended()
        if now != self._identity:
            raise TargetError(
                f"{self.name} was replaced by another program (exec) while it was looked at",
                hint="Look at it again: its number is the same.",
            )

    def _ended(self) -> TargetError:
        return TargetError(
            f"{self.name} ended while it was looked at",
            hint="To look at a program from its start: leakscope run -- PROGRAM",
        )

    def _runtimes(self) -> tuple[str, ...]:
        try:
            paths = list(dict.fromkeys(m.path for m in read_maps(self.pid) if m.path[:1] == "/"))
        except TargetError:
            return ()
        is_go = False
        program = read_executable(self.pid)
        if program is not None:
            try:
                is_go = read_elf(program, root=f"/proc/{self.pid}/root").is_go
            except TargetError:
                is_go = False
        return tuple(each.sentence for each in runtimes_mapped(paths, is_go=is_go))


def _compare_recordings(
    pid: int, path: os.PathLike[str], max_pause_s: float, wait: Callable[[], None]
) -> HeapGrowth:
    """Scan a traced process twice, and say which places grow."""
    from pathlib import Path

    from leakscope._analysis import Analyser
    from leakscope._comparing import compare_recordings
    from leakscope.recording import live
    from leakscope.recording.own import own_ranges
    from leakscope.scan import cancellable, scan_process

    file = Path(path)
    own = own_ranges(file)

    def scan() -> tuple[int, Recording]:
        recording = cancellable(
            lambda: scan_process(pid, lambda: live.read(file), own=own, max_pause_s=max_pause_s)
        )
        return time.monotonic_ns(), recording

    first_ns, before = scan()
    wait()
    second_ns, after = scan()
    findings = Analyser(debuginfod=False).analyse(after)
    return compare_recordings(before, after, findings, (second_ns - first_ns) / 1e9)


def _shared_starts(pid: int) -> frozenset[int]:
    """Return where memory without a file begins that forked children share."""
    return frozenset(area.start for area in read_areas(pid) or () if area.path == _SHARED_MEMORY)


def _grown_mappings(
    before: Sequence[MappedArea], after: Sequence[MappedArea]
) -> tuple[GrownMapping, ...]:
    """Return which mappings grew or came, like ones together."""

    def groups(areas: Sequence[MappedArea]) -> dict[tuple[str, int], list[int]]:
        found: dict[tuple[str, int], list[int]] = {}
        for area in areas:
            name = area.path or "anonymous memory"
            if name.endswith((".live", ".live (deleted)")):
                continue  # our own recording
            # Of a file only what was changed is memory of this process.
            is_file = name.startswith("/") and not name.startswith(_SHARED)
            one = found.setdefault((name, area.end - area.start), [0, 0])
            one[0] += 1
            one[1] += area.anonymous if is_file else area.rss
        return found

    old, new = groups(before), groups(after)
    by_name: dict[str, list[int]] = {}
    rows: list[GrownMapping] = []
    for (name, size), (count, rss) in new.items():
        then = old.get((name, size), [0, 0])
        if count > then[0] + 1 and rss - then[1] >= _MAPPING_GREW:
            rows.append(GrownMapping(name, size, then[0], count, then[1], rss))
            continue
        sums = by_name.setdefault(name, [0, 0, 0, 0])
        sums[1] += count
        sums[3] += rss
    told = {(row.name, row.size) for row in rows}
    for (name, size), (count, rss) in old.items():
        if (name, size) not in told and name in by_name:
            by_name[name][0] += count
            by_name[name][2] += rss
    rows += [
        GrownMapping(name, 0, a, b, c, d)
        for name, (a, b, c, d) in by_name.items()
        if d - c >= _MAPPING_GREW
    ]
    rows.sort(key=lambda row: row.resident_then - row.resident_now)
    return tuple(rows[:4])


def _grows(growth: Growth | None) -> bool:
    """Whether a gauge grew so much that it is worth to be told, until the end."""
    if growth is None or growth.rate <= 0 or growth.rate_low <= 0:
        return False
    if growth.unit == "bytes":
        return growth.grown >= max(_GREW, _GREW_SHARE * growth.last)
    return growth.grown >= _COUNT_GREW


def _answer(
    search: _Search,
    mappings: tuple[GrownMapping, ...],
    descriptors: tuple[tuple[str, int], ...],
    runtimes: tuple[str, ...],
    seconds: float,
) -> Found:
    heap, anon = search.heap, search.growths.get("anon")
    # The recording of a traced process is shared memory that grows.
    told = {name for name in _GAUGES if name != "shmem" or not search.is_traced}
    others = [g for name, g in search.growths.items() if name in told and _grows(g)]
    others.sort(key=lambda g: (g.unit != "bytes", -g.rate))
    verdict, kind, rate = FoundVerdict.CLEAN, "", 0.0
    heap_grows = heap is not None and heap.now.bytes - heap.then.bytes >= max(
        _GREW // 4, _GREW_SHARE * heap.now.bytes
    )
    outside = _outside(heap, anon)
    chief = _explains(others, outside, 0.0 if heap is None else heap.rate, anon)
    if heap is not None and heap.proves_leak:
        verdict, kind, rate = FoundVerdict.LEAK, f"heap ({heap.allocator})", heap.lost_rate
    elif chief is not None:
        verdict, kind, rate = FoundVerdict.GROWING, _GAUGES[chief.metric], chief.rate
    elif heap is not None and heap_grows and heap.rate >= outside:
        verdict, kind, rate = FoundVerdict.GROWING, f"heap ({heap.allocator})", heap.rate
    elif _grows(anon) and anon is not None:
        verdict, kind, rate = FoundVerdict.GROWING, "private memory", anon.rate
        if heap is not None and outside > 0:
            kind = "private memory outside the heap"
            rate = outside
        elif heap is not None:
            verdict, kind = FoundVerdict.KEPT, f"free memory in the heap ({heap.allocator})"
    elif others:
        verdict, rate = FoundVerdict.GROWING, others[0].rate
        kind = _GAUGES[others[0].metric]
    elif heap is not None and keeps_much(heap):
        verdict = FoundVerdict.KEPT
    found = Found(
        pid=search.pid,
        name=search.naming.text or f"process {search.pid}",
        program=_program(search.naming, search.pid),
        verdict=verdict,
        kind=kind,
        rate=rate,
        seconds=seconds,
        stopped_ms=0.0 if heap is None else heap.facts_then.pause_ms + heap.facts.pause_ms,
        next_step="",
        growth=anon,
        others=tuple(others),
        heap=heap,
        mappings=mappings if heap is None or outside > 0 or others else (),
        descriptors=descriptors if any(g.metric == "fds" for g in others) else (),
        runtimes=runtimes,
        settings=settings_for(heap) if heap is not None and verdict is FoundVerdict.KEPT else (),
        rivals=search.rivals[:_MOST_RIVALS],
        unseen=tuple(search.unseen),
    )
    return replace(found, next_step=_next(found, attached=search.is_attached))


def _explains(
    others: Sequence[Growth], outside: float, heap_rate: float, anon: Growth | None
) -> Growth | None:
    """Return the gauge that grows and whose growth brings the memory with it."""
    found = {growth.metric: growth for growth in others}
    threads, opened = found.get("threads"), found.get("fds")
    if threads is not None and heap_rate < _STACK * threads.rate:
        return threads
    # Without a walk, all private memory may be what the descriptors bring.
    memory = heap_rate if heap_rate or anon is None else anon.rate
    if opened is not None and max(memory, outside) < _PER_DESCRIPTOR * opened.rate:
        return opened
    return None


def _outside(heap: HeapGrowth | None, anon: Growth | None) -> float:
    """Return the bytes a second by which memory grows that the walked heap does not explain."""
    if not _grows(anon) or anon is None:
        return 0.0
    if heap is None or heap.account is None or heap.account_then is None:
        return 0.0 if heap is not None else anon.rate
    grown = (heap.account.heap_mapped - heap.account_then.heap_mapped) / max(heap.seconds, 1e-9)
    # Memory that was mapped long ago is touched now: it is the heap's as well.
    grown = max(grown, heap.rate)
    return anon.rate - grown if anon.rate - grown > _OUTSIDE * anon.rate else 0.0


def _program(naming: Naming, pid: int) -> str:
    """Return what to give `leakscope run`, without arguments, which may hold secrets."""
    if naming.title is None and naming.work:
        return f"{naming.program} {naming.work}"
    path = read_executable(pid)
    return path or naming.program


def _next(found: Found, *, attached: bool = False) -> str:
    """Return one command, or one sentence, to go on with."""
    pid = found.pid
    heap = found.heap
    if found.verdict is FoundVerdict.CLEAN:
        return f"leakscope watch {pid} --for 1h"
    if found.verdict is FoundVerdict.KEPT:
        return found.settings[0] if found.settings else f"leakscope watch {pid} --for 1h --heap"
    in_heap = heap is not None and found.kind.startswith("heap")
    if in_heap and heap is not None and any(row.place for row in heap.grown):
        return f"leakscope attach {pid} --for 10m --scan" if attached else f"leakscope report {pid}"
    if found.runtimes and not in_heap:
        return found.runtimes[0].partition(": ")[2] or found.runtimes[0]
    metric = next((name for name, text in _GAUGES.items() if text == found.kind), "")
    if metric == "fds":
        return f"strace -f -k -e trace=%desc,%network -p {pid}"
    if metric == "threads":
        return f"gdb -p {pid} -batch -ex 'thread apply all bt'"
    if heap is None and "the heap was not walked: --no-stop" in found.unseen:
        return f"leakscope find {pid}"
    if attached:
        return f"leakscope attach {pid} --for 10m --scan"
    if _can_be_attached_to(pid):
        return f"leakscope find {pid} --attach"
    if not _can_be_run(pid):
        return f"leakscope doctor {pid}"
    return f"leakscope run -- {found.program}{_arguments(found)}"


def _can_be_attached_to(pid: int) -> bool:
    """Whether `leakscope attach` would take the process as it is now."""
    from leakscope.trace.attach.plan import make_plan

    try:
        return make_plan(pid).refusal is None
    except TargetError:
        return False


def _can_be_run(pid: int) -> bool:
    """Whether `leakscope run` would take the program; True where that cannot be told."""
    from leakscope.trace.preflight import inspect_program

    path = read_executable(pid)
    try:
        if path is not None:
            inspect_program(path, {})
    except TargetError:
        return not os.access(path or "", os.X_OK)  # it is gone, or is elsewhere for us
    return True


def _arguments(found: Found) -> str:
    """Return a word for arguments where the process has some: what they are may be a secret."""
    words = (read_text(f"/proc/{found.pid}/cmdline", 1 << 16) or "").rstrip("\0").split("\0")
    return " ARGUMENTS" if len(words) > len(found.program.split(" ")) else ""
