# SPDX-License-Identifier: Apache-2.0
"""`leakscope` without a command: where the memory of this machine is, in seconds."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from shlex import quote
from typing import TYPE_CHECKING

from leakscope.cli._output import add_colour_option, ink_for, write_text
from leakscope.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakscope.observe.measures import Pass
    from leakscope.report.triage import Account, Holder, Oddity, Triage

HELP = """\
Say where the memory of this machine is, what is odd about it and what to run next.

It looks twice, so what grows is seen. Exit status: 0, or 2 when /proc cannot be read. Odd
things do not change it: two looks cannot tell a leak.
"""

_APART_S, _LEAST_APART_S, _MOST_APART_S = 1.5, 0.2, 600.0
_GROWS = float(1 << 20)  # bytes a second
_GROWERS = 3
_RECENT_S = 86_400.0
_MANY_FDS = 0.8  # of the limit
_MANY_THREADS = 5000
_MANY_ZOMBIES = 50
_MANY_MAPPINGS = 0.8  # of vm.max_map_count
_LARGE = 64 << 20
_GIB = 1 << 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    parser.add_argument(
        "--apart",
        type=_seconds,
        default=_APART_S,
        metavar="SECONDS",
        help=f"time between the two looks (default {_APART_S})",
    )
    add_colour_option(parser)


def run(args: argparse.Namespace) -> int:
    """Look twice and print the screen."""
    from leakscope.report.triage import render_triage, to_json

    triage = _look(args.apart)
    height = shutil.get_terminal_size().lines if sys.stdout.isatty() else None
    ink = ink_for(sys.stdout, args.colour)
    text = to_json(triage) if args.json else render_triage(triage, ink, height=height)
    write_text(sys.stdout, text)
    return 0


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = math.nan
    if not _LEAST_APART_S <= value <= _MOST_APART_S:
        raise argparse.ArgumentTypeError(
            f"'{text[:40]}' is no time from {_LEAST_APART_S} to {_MOST_APART_S:.0f} seconds"
        )
    return value


def _look(apart_s: float) -> Triage:
    from leakscope.errors import TargetError
    from leakscope.observe.gather import Gatherer
    from leakscope.observe.machine import account
    from leakscope.proc import vm
    from leakscope.proc.meminfo import read_meminfo
    from leakscope.report.triage import Account, Triage

    began = time.perf_counter()
    gatherer = Gatherer(keep_fds=False, pss_budget_s=1.0)
    try:
        first = gatherer.gather()
        before = vm.read_vmstat()
        time.sleep(apart_s)
        after = vm.read_vmstat()
        second = gatherer.gather()
    finally:
        gatherer.close()
    fields = read_meminfo()
    if "MemTotal" not in fields:
        raise TargetError("/proc/meminfo cannot be read", hint="Is /proc mounted here?")
    per_cpu = vm.read_per_cpu_pages() * os.sysconf("SC_PAGE_SIZE")
    owners = _owners(fields, second)
    lines = tuple(
        Account(line.name, line.bytes, line.what, owners.get(line.name, ()))
        for line in account(fields, per_cpu)
    )
    holders = _holders(first, second)
    cgroup = _own_cgroup()
    state = _state(before, after, apart_s)
    oddities = [
        *_pressing(fields, state, cgroup),
        *_growing(holders),
        *_large(fields, {line.name: line for line in lines}, second),
        *_owned(second),
        *_faults(),
    ]
    return Triage(
        total=fields["MemTotal"],
        available=fields.get("MemAvailable", fields.get("MemFree", 0)),
        lines=lines,
        processes=holders,
        oddities=tuple(oddities),
        notes=tuple(f"could not see {what}" for what in second.missing),
        next_step=_next(holders),
        seconds=time.perf_counter() - began,
        apart_s=(second.time_ns - first.time_ns) / 1e9,
        cgroup=cgroup,
        state=state,
    )


def _state(before: dict[str, int], after: dict[str, int], apart_s: float) -> dict[str, float]:
    """Return numbers on how the page allocator does; those the kernel does not tell are absent."""
    from leakscope.proc import vm

    found: dict[str, float] = {}
    for name, value in (vm.read_pressure() or {}).items():
        found[f"pressure {name}"] = value
    unusable = vm.fragmentation(vm.read_buddyinfo())
    if unusable is not None:
        found["fragmentation"] = unusable
    if "oom_kill" in after:
        found["oom kills since boot"] = after["oom_kill"]
    for name in ("pswpin", "pswpout", "pgmajfault", "workingset_refault_anon"):
        if name in before and name in after:
            found[f"{name} per second"] = (after[name] - before[name]) / apart_s
    return found


def _holders(first: Pass, second: Pass) -> tuple[Holder, ...]:
    from leakscope.report.triage import Holder

    values: dict[str, dict[str, int]] = {}
    subjects = {}
    for one in (first, second):
        for measure in one.measures:
            if measure.subject.kind == "process":
                values.setdefault(measure.subject.key, {})[measure.metric] = measure.value
                subjects[measure.subject.key] = measure.subject
    apart_s = max((second.time_ns - first.time_ns) / 1e9, 1e-3)
    then = {m.subject.key: m.value for m in first.measures if m.metric == "anon"}
    alive = {m.subject.key for m in second.measures if m.subject.kind == "process"}
    found = [
        Holder(
            subjects[key].pid or 0,
            subjects[key].name,
            held["anon"],
            held.get("pss"),
            held["threads"],
            held.get("fds"),
            subjects[key].exe,
            (held["anon"] - then[key]) / apart_s if key in then else None,
        )
        for key, held in values.items()
        if "anon" in held and key in alive
    ]
    return tuple(sorted(found, key=lambda h: -h.held))


def _growing(holders: tuple[Holder, ...]) -> Iterator[Oddity]:
    """What grew between the two looks by more than programs at rest do."""
    from leakscope.proc.naming import name_of
    from leakscope.report.triage import Oddity
    from leakscope.words import bytes_text, rate_text

    fast = [h for h in holders if (h.growth or 0.0) >= _GROWS and h.pid != os.getpid()]
    fast.sort(key=lambda h: -(h.growth or 0.0))
    for one in fast[:_GROWERS]:
        rate = rate_text(one.growth or 0.0)
        home = name_of(one.pid).home.text
        who = f"{one.name} (pid {one.pid}{', ' if home else ''}{home})"
        text = f"{who} grows by {rate}, private memory {bytes_text(one.anon)}"
        yield Oddity(text, f"It may be loading: leakscope watch {one.pid} --for 2m")


def _owners(fields: dict[str, int], one: Pass) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return whose the memory in each line of the account is that belongs to no heap."""
    from leakscope.observe import owners

    found = {
        "page tables": owners.page_table_owners(one),
        "shared memory and tmpfs": owners.shared_memory_owners(one),
        "huge pages": owners.huge_page_owners(one) if fields.get("Hugetlb") else (),
    }
    return {name: tuple((o.name, o.bytes) for o in own) for name, own in found.items()}


def _faults() -> Iterator[Oddity]:
    """Faults that the kernel's log tells of the last day, as what they are."""
    from leakscope.proc.faults import read_faults
    from leakscope.report.triage import Oddity
    from leakscope.words import duration_text

    recent = [fault for fault in read_faults() or () if fault.age_s <= _RECENT_S]
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


def _pressing(
    fields: dict[str, int], state: dict[str, float], cgroup: tuple[str, int, int] | None
) -> Iterator[Oddity]:
    """What hurts already."""
    from leakscope.report.triage import Oddity
    from leakscope.words import bytes_text

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
        yield Oddity(_killed_text(killed), "See which: journalctl -k -g 'out of memory'")


def _killed_text(killed: int) -> str:
    """Say whose want of memory it was: the machine's, or that of cgroups with a limit of their own."""
    from leakscope.proc.kmsg import read_oom_kills

    text = f"the kernel has killed {plural(killed, 'process', 'processes')} for want of memory since it booted"
    log = read_oom_kills()
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


def _large(fields: dict[str, int], lines: dict[str, Account], one: Pass) -> Iterator[Oddity]:
    """Parts of the account that are larger than on a machine at rest."""
    from leakscope.proc.sysv import read_segments
    from leakscope.report.triage import Oddity
    from leakscope.words import bytes_text

    total = fields["MemTotal"]
    if lines["unexplained"].bytes > max(_GIB, total // 10):
        text = (
            f"{bytes_text(lines['unexplained'].bytes)} of kernel or driver pages are in no counter"
        )
        yield Oddity(text, "Watch whether they grow: leakscope watch --for 30m")
    unreclaimable = lines["kernel caches, unreclaimable"].bytes
    if unreclaimable > max(_GIB // 2, total // 10):
        text = f"kernel objects that cannot be reclaimed take {bytes_text(unreclaimable)}"
        yield Oddity(text, "See which cache grows: sudo leakscope watch --for 30m")
    if lines["page tables"].bytes > max(_GIB // 4, total // 20) or _thinly_used(one):
        yield _page_tables(lines["page tables"].bytes, one)
    tmpfs = lines["shared memory and tmpfs"]
    if tmpfs.bytes > total // 5:
        text = f"shared memory and tmpfs take {bytes_text(tmpfs.bytes)} until deleted"
        whose = ", ".join(f"{bytes_text(size)} {name}" for name, size in tmpfs.owners[:3])
        yield Oddity(f"{text}: {whose}" if whose else text, "See who: df -t tmpfs, ipcs -m")
    orphans = [s for s in read_segments() if not s.attached]
    size = sum(s.resident for s in orphans)
    if size > _LARGE:
        text = f"{plural(len(orphans), 'segment')} of System V shared memory, {bytes_text(size)},"
        yield Oddity(f"{text} belong to no running process", "See them: ipcs -m -p; ipcrm -m ID")
    idle = fields.get("HugePages_Free", 0) * fields.get("Hugepagesize", 0)
    if idle > max(_GIB, total // 10):
        text = f"{bytes_text(idle)} are reserved for huge pages that nobody uses"
        yield Oddity(text, "See /proc/sys/vm/nr_hugepages")


def _thinly_used(one: Pass) -> bool:
    """Whether a process has large page tables for little memory: they are 0.2 % of dense memory."""
    held = {m.subject.key: m.value for m in one.measures if m.metric == "anon"}
    return any(
        m.metric == "page_tables" and m.value > max(_GIB // 4, held.get(m.subject.key, 0) // 20)
        for m in one.measures
    )


def _page_tables(total: int, one: Pass) -> Oddity:
    """Name the process whose page tables they are, or say that many share them."""
    from leakscope.report.triage import Oddity
    from leakscope.words import bytes_text

    text = f"page tables take {bytes_text(total)}"
    own = sorted(
        (m for m in one.measures if m.subject.kind == "process" and m.metric == "page_tables"),
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


def _owned(one: Pass) -> Iterator[Oddity]:
    """What single processes have too much of."""
    from leakscope.proc.vm import read_max_mappings
    from leakscope.report.triage import Oddity
    from leakscope.words import count_text

    most = read_max_mappings()
    for measure in one.measures:
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
    yield from _deleted_files(one)


def _deleted_files(one: Pass) -> list[Oddity]:
    from leakscope.proc.fds import read_open_files
    from leakscope.report.triage import Oddity
    from leakscope.words import bytes_text

    found = []
    counted: set[tuple[int, int]] = set()
    for measure in one.measures:
        subject = measure.subject
        if measure.metric != "fds" or subject.pid is None or not measure.value:
            continue
        opened = read_open_files(subject.pid)
        if opened is None:
            continue
        fresh = [d for d in opened.deleted if d[2:] not in counted]
        counted.update(d[2:] for d in fresh)
        size = sum(d[1] for d in fresh)
        if size > _LARGE:
            name = max(fresh, key=lambda d: d[1])[0]
            text = (
                f"{subject.name} (pid {subject.pid}) keeps {bytes_text(size)} of deleted files,"
                f" for one {name}"
            )
            found.append(Oddity(text, "The space comes back when it closes them or ends."))
    return found


def _own_cgroup() -> tuple[str, int, int] | None:
    """Return the cgroup that bounds us most closely: its path, working set and limit."""
    from leakscope.proc.cgroup import above, find_hierarchy, own_path, read_cgroup

    hierarchy = find_hierarchy()
    if hierarchy is None:
        return None
    own = own_path(hierarchy)
    nearest: tuple[str, int, int] | None = None
    for path in (own, *above(own)):
        group = read_cgroup(hierarchy, path)
        if group is None or group.limit is None or group.working_set is None:
            continue
        left = group.limit - group.working_set
        if nearest is None or left < nearest[2] - nearest[1]:
            nearest = (path, group.working_set, group.limit)
    return nearest


def _next(holders: tuple[Holder, ...]) -> str:
    others = [h for h in holders if h.pid != os.getpid()]
    if not others:
        return "leakscope watch --for 1h"
    fast = max(others, key=lambda h: h.growth or 0.0)
    if (fast.growth or 0.0) >= _GROWS:
        return f"leakscope watch {fast.pid} --for 2m"
    return "leakscope watch --for 1h"
