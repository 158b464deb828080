# SPDX-License-Identifier: Apache-2.0
"""What is odd about a machine, by thresholds: on what it holds, and how it grew between two looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING

from leakscope.model.triage import Oddity
from leakscope.words import bytes_text, count_text, duration_text, plural, rate_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from leakscope.model.measures import Measure
    from leakscope.model.series import Subject
    from leakscope.model.triage import AccountLine, Holder
    from leakscope.proc.faults import Fault
    from leakscope.proc.kmsg import OomKills
    from leakscope.proc.sysv import SharedSegment

__all__ = ["Facts", "fastest", "kernel_growth", "next_command", "oddities"]

_GROWS = float(1 << 20)  # bytes a second
_GROWERS = 3
_RECENT_S = 86_400.0
_MANY_FDS = 0.8  # of the limit
_MANY_THREADS = 5000
_MANY_ZOMBIES = 50
_MANY_MAPPINGS = 0.8  # of vm.max_map_count
_LARGE = 64 << 20
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read of a machine; sizes in bytes. What could not be read is empty."""

    fields: Mapping[str, int]  # of /proc/meminfo
    state: Mapping[str, float]  # how the page allocator does
    lines: Sequence[AccountLine]
    holders: Sequence[Holder]  # the biggest first
    measures: Sequence[Measure]  # of the second look
    max_mappings: int
    cgroup: tuple[str, int, int] | None = None  # path, working set, limit
    own_pid: int = 0  # ours, which is no news
    homes: Mapping[int, str] = field(default_factory=dict)  # container or unit of the `fastest`
    faults: Sequence[Fault] = ()
    oom_kills: OomKills | None = None  # None: the kernel's log may not be read
    segments: Sequence[SharedSegment] = ()  # of System V shared memory
    kernel_growth: Sequence[tuple[str, float, int]] = ()  # cache or sum, bytes a second, bytes
    deleted: Sequence[tuple[Subject, int, str]] = ()  # bytes of deleted files, the biggest's name


def oddities(facts: Facts) -> tuple[Oddity, ...]:
    """Return what is odd, what hurts already first."""
    return (
        *_pressing(facts),
        *_growing(facts),
        *_large(facts),
        *_owned(facts),
        *_faults(facts),
    )


def fastest(holders: Sequence[Holder], own_pid: int) -> list[Holder]:
    """Return who grew between the two looks by more than programs at rest do, the fastest first."""
    fast = [h for h in holders if (h.growth or 0.0) >= _GROWS and h.pid != own_pid]
    return sorted(fast, key=lambda h: -(h.growth or 0.0))[:_GROWERS]


_KERNEL_SUMS = {"unexplained": "unexplained pages", "percpu": "per-CPU memory"}
_RESTLESS = float(32 << 20)  # bytes a second that the remainder of the account moves by at rest


def kernel_growth(
    first: Sequence[Measure], second: Sequence[Measure], apart_s: float
) -> list[tuple[str, float, int]]:
    """Return what of the kernel's own grew between two looks by more than at rest, fastest first."""
    then = {(m.subject.kind, m.subject.key, m.metric): m.value for m in first}
    found = []
    for measure in second:
        subject, metric = measure.subject, measure.metric
        key = (subject.kind, subject.key, metric)
        own = subject.kind == "slab" and metric == "unreclaimable"
        if key not in then or not (own or (subject.kind == "system" and metric in _KERNEL_SUMS)):
            continue
        rate = (measure.value - then[key]) / max(apart_s, 1e-3)
        if rate >= (_RESTLESS if metric == "unexplained" else _GROWS):
            name = f"cache {subject.name}" if own else _KERNEL_SUMS[metric]
            found.append((name, rate, measure.value))
    return sorted(found, key=lambda each: -each[1])


def next_command(holders: Sequence[Holder], own_pid: int) -> str:
    """Return the command that looks further."""
    others = [h for h in holders if h.pid != own_pid]
    if not others:
        return "leakscope watch --for 1h"
    fast = max(others, key=lambda h: h.growth or 0.0)
    if (fast.growth or 0.0) >= _GROWS:
        return f"leakscope watch {fast.pid} --for 2m"
    return "leakscope watch --for 1h"


def _pressing(facts: Facts) -> Iterator[Oddity]:
    """What hurts already."""
    fields, state, cgroup = facts.fields, facts.state, facts.cgroup
    total = fields["MemTotal"]
    available = fields.get("MemAvailable", total)
    watch = "See who takes it: leakscope watch"
    if available < total // 10:
        yield Oddity(f"only {bytes_text(available)} are available", watch, urgent=True)
    if cgroup is not None and cgroup[1] > 0.9 * cgroup[2]:
        text = f"the limit of this cgroup is near: {bytes_text(cgroup[2] - cgroup[1])} are left"
        yield Oddity(text, f"leakscope watch --cgroup {quote(cgroup[0])}", urgent=True)
    waiting = state.get("pressure some avg10", 0.0)
    if waiting > 10.0:
        text = f"programs waited for memory {waiting:.0f} % of the last 10 s"
        yield Oddity(text, watch, urgent=True)
    swapped = state.get("pswpin per second", 0.0)
    if swapped > 100.0:
        text = (
            f"{swapped:,.0f} pages a second come back from swap: memory is too small for the work"
        )
        yield Oddity(text, watch, urgent=True)
    killed = int(state.get("oom kills since boot", 0))
    if killed:
        yield Oddity(
            _killed_text(killed, facts.oom_kills), "See which: journalctl -k -g 'out of memory'"
        )


def _killed_text(killed: int, log: OomKills | None) -> str:
    """Say who was out of memory: the machine's, or that of cgroups with a limit of their own."""
    text = f"the kernel has killed {plural(killed, 'process', 'processes')}, out of memory, since it booted"
    if log is None:
        return f"{text}, the machine's or a cgroup's (its log may not be read)"
    parts = []
    inside = sum(log.groups.values())
    if inside:
        names = sorted(name for name in log.groups if name)
        where = f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
        parts.append(f"{inside:,} in cgroups that reached their own limit{where}")
    if log.machine:
        parts.append(f"{log.machine:,} because the machine had none left")
    unknown = killed - inside - log.machine
    if unknown > 0:
        parts.append(f"{unknown:,} of which its log does not tell any more")
    return f"{text}: {', '.join(parts)}" if parts else text


def _growing(facts: Facts) -> Iterator[Oddity]:
    """What grew between the two looks by more than programs at rest do."""
    for one in fastest(facts.holders, facts.own_pid):
        rate = rate_text(one.growth or 0.0)
        home = facts.homes.get(one.pid, "")
        who = f"{one.name} (pid {one.pid}{', ' if home else ''}{home})"
        text = f"{who} grows by {rate}, private memory {bytes_text(one.anon)}"
        yield Oddity(text, f"It may be loading: leakscope watch {one.pid} --for 2m")
    for name, pace, held in facts.kernel_growth[:_GROWERS]:
        text = f"the kernel's {name} grows by {rate_text(pace)} and holds {bytes_text(held)}"
        yield Oddity(text, "It may be at work: sudo leakscope kernel watch --for 5m")


def _faults(facts: Facts) -> Iterator[Oddity]:
    """Faults that the kernel's log tells of the last day, as what they are."""
    recent = [fault for fault in facts.faults if fault.age_s <= _RECENT_S]
    for kernel, what, command in (
        (True, "fault of the kernel itself (oops)", "journalctl -k -g 'Oops|BUG:'"),
        (False, "segmentation fault", "journalctl -k -g 'segfault|traps:|fault'"),
    ):
        own = [fault for fault in recent if fault.kernel == kernel]
        if own:
            ago = duration_text(round(own[-1].age_s * 1e9))
            text = f"{plural(len(own), what, what.replace('fault', 'faults'))} in the last 24 h,"
            last = (
                f"the last {ago} ago: {own[-1].text}"
                if len(own) > 1
                else f"{ago} ago: {own[-1].text}"
            )
            note = "a memory fault is no proof of a leak"
            yield Oddity(f"{text} {last}; {note}", f"See the log: {command}", urgent=kernel)


def _large(facts: Facts) -> Iterator[Oddity]:
    """Parts of the account that are larger than on a machine at rest."""
    fields, lines = facts.fields, {line.name: line for line in facts.lines}
    total = fields["MemTotal"]
    if lines["unexplained"].bytes > max(_GIB, total // 10):
        text = (
            f"{bytes_text(lines['unexplained'].bytes)} of kernel or driver pages are in no counter"
        )
        yield Oddity(text, "See which code has them, if the kernel tells: sudo leakscope kernel")
    unreclaimable = lines["kernel caches, unreclaimable"].bytes
    if unreclaimable > max(_GIB // 2, total // 10):
        text = f"kernel objects that cannot be reclaimed take {bytes_text(unreclaimable)}"
        yield Oddity(text, "See what they are and which code has them: sudo leakscope kernel")
    if lines["page tables"].bytes > max(_GIB // 4, total // 20) or _thinly_used(facts.measures):
        yield _page_tables(lines["page tables"].bytes, facts.measures)
    tmpfs = lines["shared memory and tmpfs"]
    if tmpfs.bytes > total // 5:
        text = f"shared memory and tmpfs take {bytes_text(tmpfs.bytes)} until deleted"
        whose = ", ".join(f"{bytes_text(size)} {name}" for name, size in tmpfs.owners[:3])
        yield Oddity(f"{text}: {whose}" if whose else text, "See who: df -t tmpfs, ipcs -m")
    orphans = [s for s in facts.segments if not s.attached]
    size = sum(s.resident for s in orphans)
    if size > _LARGE:
        text = f"{plural(len(orphans), 'segment')} of System V shared memory, {bytes_text(size)},"
        yield Oddity(f"{text} belong to no running process", "See them: ipcs -m -p; ipcrm -m ID")
    idle = fields.get("HugePages_Free", 0) * fields.get("Hugepagesize", 0)
    if idle > max(_GIB, total // 10):
        text = f"{bytes_text(idle)} are reserved for huge pages that nobody uses"
        yield Oddity(text, "See /proc/sys/vm/nr_hugepages")


def _thinly_used(measures: Sequence[Measure]) -> bool:
    """Whether a process has large page tables for little memory: they are 0.2 % of dense memory."""
    held = {m.subject.key: m.value for m in measures if m.metric == "anon"}
    return any(
        m.metric == "page_tables" and m.value > max(_GIB // 4, held.get(m.subject.key, 0) // 20)
        for m in measures
    )


def _page_tables(total: int, measures: Sequence[Measure]) -> Oddity:
    """Name the process whose page tables they are, or say that many share them."""
    text = f"page tables take {bytes_text(total)}"
    own = sorted(
        (m for m in measures if m.subject.kind == "process" and m.metric == "page_tables"),
        key=lambda m: -m.value,
    )
    if not own:
        return Oddity(text, "See whose: grep VmPTE /proc/[0-9]*/status")
    first = own[0]
    who = f"{first.subject.name} (pid {first.subject.pid})"
    if first.value > total // 2:
        text += f", {bytes_text(first.value)} of them those of {who}"
        return Oddity(
            text,
            f"It touches a large range of addresses thinly: leakscope watch {first.subject.pid}",
        )
    few = sum(m.value for m in own[:5])
    if few > total // 2:
        names = ", ".join(f"{m.subject.name} (pid {m.subject.pid})" for m in own[:5])
        return Oddity(f"{text}, most of them those of {names}", "Huge pages would need fewer.")
    return Oddity(text, "Many processes that map the same large memory: huge pages would help")


def _owned(facts: Facts) -> Iterator[Oddity]:
    """What single processes have too much of."""
    most = facts.max_mappings
    for measure in facts.measures:
        subject, value = measure.subject, measure.value
        if subject.kind != "process":
            continue
        who = f"{subject.name} (pid {subject.pid})"
        step = f"leakscope watch {subject.pid} --for 30m"
        if measure.metric == "fds" and subject.limit and value > _MANY_FDS * subject.limit:
            text = f"{who} has {count_text(value)} of {subject.limit:,.0f} descriptors open"
            yield Oddity(text, step)
        elif measure.metric == "threads" and value > _MANY_THREADS:
            yield Oddity(f"{who} has {count_text(value)} threads", step)
        elif measure.metric == "mappings" and value > _MANY_MAPPINGS * most:
            yield Oddity(f"{who} has {count_text(value)} of {most:,} memory mappings", step)
        elif measure.metric == "zombies" and value > _MANY_ZOMBIES:
            text = f"{who} has {count_text(value)} children that ended and were not waited for"
            yield Oddity(text, step)
    for subject, size, name in facts.deleted:
        if size > _LARGE:
            text = (
                f"{subject.name} (pid {subject.pid}) keeps {bytes_text(size)} of deleted files,"
                f" for one {name}"
            )
            yield Oddity(text, "The space comes back when it closes them or ends.")
