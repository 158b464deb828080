# SPDX-License-Identifier: Apache-2.0
"""Passes over the machine: what every process, cgroup and kernel cache holds at one moment.

A pass never fails because something went away while it was read. What may not be read is
absent and is named in `Pass.missing`. Expensive numbers (PSS walks the page tables) are read
for the biggest processes first and then in rotation, within a budget of time.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from dataclasses import dataclass, field, replace

from leakscope.model.series import Subject
from leakscope.observe.groups import measure_groups, room_of
from leakscope.observe.kernel import KernelGauges
from leakscope.observe.measures import Measure, Pass
from leakscope.proc import cgroup as cgroups
from leakscope.proc.fds import count_fds, parse_limit, read_fd_limit
from leakscope.proc.meminfo import read_meminfo
from leakscope.proc.naming import Naming, answers_to, name_of
from leakscope.proc.process import (
    Gauges,
    children_of,
    count_mappings,
    may_read_memory,
    pids,
    read_executable,
    read_gauges,
    read_name,
    read_start,
)
from leakscope.proc.smaps import read_rollup
from leakscope.proc.text import read_text

__all__ = ["Gatherer"]

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PSS_BUDGET_S = 0.020
_SELDOM = 6  # passes between two looks at the limits of a process
_MACHINE = Subject("system", "machine", "this machine")


@dataclass(slots=True)
class _Known:
    subject: Subject
    fd: int  # kept open on /proc/PID/status, or -1
    place: str  # what stands for PID in /proc/PID where its memory is seen
    gauges: Gauges | None = None
    rollup_at: int = 0  # number of the pass that read the PSS last
    anon_then: int = 0
    group: str = "/"
    had_children: bool = False  # a gauge that was shown once stays, to be seen falling
    had_zombies: bool = False
    bounds: tuple[int | None, int | None] | None = None  # RLIMIT_AS, RLIMIT_DATA
    bounds_at: int = 0

    @property
    def has_memory(self) -> bool:
        """Whether it is neither a kernel thread nor a zombie."""
        return self.gauges is not None and bool(self.gauges.rss or self.gauges.swap)


@dataclass(slots=True)
class Gatherer:
    """Reads passes of all processes, of those in `only`, or of one cgroup and all below it.

    With `only`, a process that ended is not looked for again (its number may be given to
    another); one that is started later and is called one of `names` is added.
    """

    only: frozenset[int] | None = None
    names: frozenset[str] = frozenset()
    cgroup: str | None = None  # a path below the root of the hierarchy, such as "/system.slice"
    system: bool = True
    keep_fds: bool = True
    pss_budget_s: float = _PSS_BUDGET_S
    _known: dict[int, _Known] = field(default_factory=dict)
    _passes: int = 0
    _strangers: dict[int, str] = field(default_factory=dict)  # called something else: what
    _room: int = 0
    _hierarchy: cgroups.Hierarchy | None = None
    _kernel: KernelGauges = field(default_factory=KernelGauges)

    def __post_init__(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self.keep_fds and soft < hard and soft != resource.RLIM_INFINITY:
            try:
                wanted = min(hard, 1 << 16) if hard != resource.RLIM_INFINITY else 1 << 16
                resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
                soft = max(soft, wanted)
            except (OSError, ValueError):
                pass
        self._room = max(0, soft - 256) if self.keep_fds else 0
        self._hierarchy = cgroups.find_hierarchy()

    @property
    def label(self) -> str:
        """What is watched, in words."""
        return self.cgroup or "everything"

    def close(self) -> None:
        """Give back the descriptors kept from pass to pass."""
        for known in self._known.values():
            _shut(known)
        self._known.clear()

    def gather(self) -> Pass:
        """Read everything once."""
        wall, cpu = time.perf_counter(), time.process_time()
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._passes += 1
        out: list[Measure] = []
        missing: set[str] = set()
        self._processes(out, missing)
        self._shares(out, missing)
        if self.system:
            self._kernel.read(out, missing)
        else:
            fields = read_meminfo()
            available = fields.get("MemAvailable", fields.get("MemFree", 0))
            out.append(Measure(_MACHINE, "available", "bytes", available))
            out.append(Measure(_MACHINE, "swap_free", "bytes", fields.get("SwapFree", 0)))
        self._groups(out)
        return Pass(
            now,
            tuple(out),
            sum(1 for known in self._known.values() if known.has_memory),
            time.process_time() - cpu,
            time.perf_counter() - wall,
            tuple(sorted(missing)),
        )

    def _groups(self, out: list[Measure]) -> None:
        """Read the cgroups, and what is left for each process in a bounded one."""
        hierarchy = self._hierarchy
        if hierarchy is None:
            return
        top = self.cgroup or ("/" if self.system else None)
        rooms: dict[str, int | None] = {}
        if top is not None:
            rooms.update(measure_groups(hierarchy, top, out))
        if top != "/":
            rooms |= {g: room_of(hierarchy, g) for g in {k.group for k in self._known.values()}}
        for known in self._known.values():
            room = rooms.get(known.group)
            if room is not None and known.has_memory:
                out.append(Measure(known.subject, "room", "bytes", room))

    def _processes(self, out: list[Measure], missing: set[str]) -> None:
        seen = self._pids()
        for pid in set(self._known).difference(seen):
            _shut(self._known.pop(pid))
        if self.only is None and self.cgroup is None and 1 not in seen:
            missing.add("other users' processes (/proc is mounted with hidepid)")
        children: Counter[int] = Counter()
        zombies: Counter[int] = Counter()
        for pid in seen:
            known = self._look(pid)
            if known is None:
                if self.only is not None:
                    self.only -= {pid}
                continue
            gauges = known.gauges
            assert gauges is not None
            if gauges.state == "Z":
                zombies[gauges.parent] += 1
                continue
            if not gauges.rss and not gauges.swap:
                continue  # a kernel thread
            children[gauges.parent] += 1
            subject = known.subject
            out.append(Measure(subject, "anon", "bytes", gauges.anon))
            out.append(Measure(subject, "shmem", "bytes", gauges.rss_shmem))
            out.append(Measure(subject, "page_tables", "bytes", gauges.page_tables))
            out.append(Measure(subject, "virtual", "bytes", gauges.virtual))
            self._bounds(known, gauges, out)
            out.append(Measure(subject, "threads", "count", gauges.threads))
            descriptors = count_fds(known.place)
            if descriptors is None:
                missing.add("descriptors of other users' processes")
            else:
                out.append(Measure(subject, "fds", "count", descriptors))
        if self.only is not None:
            children, zombies = self._own_children()
        self._offspring(children, zombies, out)

    def _bounds(self, known: _Known, gauges: Gauges, out: list[Measure]) -> None:
        """Append what its own limits (RLIMIT_AS, RLIMIT_DATA) leave it, where it has any."""
        pid = known.subject.pid
        if (self._passes - known.bounds_at) >= _SELDOM or known.bounds is None:
            text = read_text(f"/proc/{pid}/limits", 1 << 14) or ""
            known.bounds = (
                parse_limit(text, "Max address space"),
                parse_limit(text, "Max data size"),
            )
            known.bounds_at = self._passes
        for name, limit, used in zip(
            ("room_as", "room_data"), known.bounds, (gauges.virtual, gauges.data), strict=True
        ):
            if limit is not None:
                out.append(Measure(known.subject, name, "bytes", max(0, limit - used)))

    def _own_children(self) -> tuple[Counter[int], Counter[int]]:
        children: Counter[int] = Counter()
        zombies: Counter[int] = Counter()
        for pid in self._known:
            for child in children_of(pid):
                gauges, _ = read_gauges(child)
                if gauges is not None:
                    (zombies if gauges.state == "Z" else children)[pid] += 1
        return children, zombies

    def _offspring(self, children: Counter[int], zombies: Counter[int], out: list[Measure]) -> None:
        for pid, known in self._known.items():
            if not known.has_memory:
                continue
            known.had_children |= bool(children[pid])
            known.had_zombies |= bool(zombies[pid])
            if known.had_children:
                out.append(Measure(known.subject, "children", "count", children[pid]))
            if known.had_zombies:
                out.append(Measure(known.subject, "zombies", "count", zombies[pid]))
        if self.system:
            out.append(Measure(_MACHINE, "processes", "count", sum(children.values())))
            out.append(Measure(_MACHINE, "zombies", "count", sum(zombies.values())))

    def _pids(self) -> list[int]:
        if self.only is not None:
            if self.names:
                self._add_named()
            return sorted(self.only)
        if self.cgroup is None:
            # What the watch itself keeps grows until its series are long: that is no news.
            return [pid for pid in pids() if pid != os.getpid()]
        if self._hierarchy is None:
            return []
        return cgroups.pids_of(self._hierarchy, self.cgroup)

    def _add_named(self) -> None:
        assert self.only is not None
        strangers: dict[int, str] = {}
        for pid in frozenset(pids()) - self.only - {os.getpid()}:
            own = read_name(pid)
            # Another name is another program, or a thread's title: look again.
            if self._strangers.get(pid) != own and any(answers_to(pid, n) for n in self.names):
                self.only |= {pid}
            else:
                strangers[pid] = own
        self._strangers = strangers

    @property
    def ended(self) -> bool:
        """Whether no process of `only` is left, and none can come."""
        return self.only is not None and not self.only and not self.names

    def _look(self, pid: int) -> _Known | None:
        """Read one process. A kept descriptor stays bound to the process it was opened for."""
        known = self._known.get(pid)
        if known is None:
            return self._meet(pid)
        gauges = None
        if known.fd >= 0 or read_start(pid) == _start_of(known.subject):
            gauges, known.place = read_gauges(pid, known.fd)
        if gauges is None:  # it ended; its number may belong to another by now
            _shut(self._known.pop(pid))
            return None if self.only is not None else self._meet(pid)
        if known.gauges is not None and gauges.name != known.gauges.name:
            self._note_exec(known, gauges.name)
        known.gauges = gauges
        return known

    def _note_exec(self, known: _Known, name: str) -> None:
        """Make it another subject if it runs another program now: its memory is another's.

        A new name alone says nothing: many programs put into it what they are doing.
        """
        subject = known.subject
        assert subject.pid is not None
        exe = read_executable(subject.pid)
        if exe is None or exe == subject.exe:
            return
        first, _, times = subject.key.partition("+")
        key = f"{first}+{int(times or 0) + 1}"
        # Its memory began anew, so its age does: it warms up again.
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        known.subject = replace(
            subject,
            key=key,
            exe=exe,
            name=_name(name_of(subject.pid), name),
            started_ns=now,
            limit=read_fd_limit(subject.pid),
        )

    def _meet(self, pid: int) -> _Known | None:
        fd = -1
        if len(self._known) < self._room:
            try:
                fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return None
        start = read_start(pid)
        gauges, place = read_gauges(pid, fd)
        if start is None or gauges is None:
            if fd >= 0:
                os.close(fd)
            return None
        exe = read_executable(pid)
        limit = read_fd_limit(pid)
        naming = name_of(pid)
        subject = Subject(
            "process",
            f"{pid}@{start}",
            _name(naming, gauges.name),
            pid,
            exe,
            start * _TICK_NS,
            limit=limit,
            home=naming.home.text or None,
        )
        known = self._known[pid] = _Known(subject, fd, place, gauges)
        if self._hierarchy is not None:
            known.group = cgroups.own_path(self._hierarchy, pid)
        return known

    def _shares(self, out: list[Measure], missing: set[str]) -> None:
        """Read PSS of whoever is big or grew since it was last read, then of the rest."""
        until = time.perf_counter() + self.pss_budget_s
        waiting = [known for known in self._known.values() if known.has_memory]

        def urgency(known: _Known) -> float:
            assert known.gauges is not None
            grown = abs(known.gauges.anon - known.anon_then) + 0.01 * known.gauges.rss
            return grown * (self._passes - known.rollup_at)

        for known in sorted(waiting, key=urgency, reverse=True):
            if time.perf_counter() > until:
                break
            pid = known.subject.pid
            assert pid is not None
            assert known.gauges is not None
            rollup = read_rollup(known.place)
            known.rollup_at, known.anon_then = self._passes, known.gauges.anon
            if rollup is None:
                if not may_read_memory(known.place):
                    missing.add("PSS of other users' processes (needs CAP_SYS_PTRACE)")
                continue
            limit = read_fd_limit(pid)
            if limit != known.subject.limit:
                known.subject = replace(known.subject, limit=limit)
            out.append(Measure(known.subject, "pss", "bytes", rollup.pss, sparse=True))
            out.append(Measure(known.subject, "uss", "bytes", rollup.uss, sparse=True))
            mappings = count_mappings(known.place)
            if mappings is not None:
                out.append(Measure(known.subject, "mappings", "count", mappings, sparse=True))


def _name(naming: Naming, own: str) -> str:
    """Return what people call it: the script that an interpreter runs, else its own whole name."""
    if naming.work is not None or naming.title is not None or naming.program.startswith(own):
        return naming.short or own
    return own


def _start_of(subject: Subject) -> int:
    return int(subject.key.partition("@")[2].partition("+")[0])


def _shut(known: _Known) -> None:
    if known.fd >= 0:
        os.close(known.fd)
        known.fd = -1
