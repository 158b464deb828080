# SPDX-License-Identifier: Apache-2.0
"""Two looks at a machine, put together to the one screen that says where its memory is."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from leakscope.errors import TargetError
from leakscope.judge.triage import Facts, fastest, kernel_growth, next_command, oddities
from leakscope.model.triage import Holder, Triage
from leakscope.observe import owners
from leakscope.observe.gather import Gatherer
from leakscope.observe.machine import account
from leakscope.proc import vm
from leakscope.proc.cgroup import above, find_hierarchy, own_path, read_cgroup
from leakscope.proc.faults import read_faults
from leakscope.proc.fds import read_open_files
from leakscope.proc.kmsg import read_oom_kills
from leakscope.proc.meminfo import read_meminfo
from leakscope.proc.naming import name_of
from leakscope.proc.sysv import read_segments

if TYPE_CHECKING:
    from leakscope.model.series import Subject
    from leakscope.observe.measures import Pass

__all__ = ["look_twice"]


def look_twice(apart_s: float) -> Triage:
    """Look, wait for `apart_s` seconds, look again, and judge. Raises `TargetError` without /proc."""
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
    whose = _owners(fields, second)
    lines = [replace(line, owners=whose.get(line.name, ())) for line in account(fields, per_cpu)]
    holders, own = _holders(first, second), os.getpid()
    cgroup, state = _own_cgroup(), _state(before, after, apart_s)
    facts = Facts(
        fields=fields,
        state=state,
        lines=lines,
        holders=holders,
        measures=second.measures,
        max_mappings=vm.read_max_mappings(),
        cgroup=cgroup,
        own_pid=own,
        homes={one.pid: name_of(one.pid).home.text for one in fastest(holders, own)},
        faults=read_faults() or (),
        oom_kills=read_oom_kills() if state.get("oom kills since boot") else None,
        segments=read_segments(),
        kernel_growth=kernel_growth(
            first.measures, second.measures, (second.time_ns - first.time_ns) / 1e9
        ),
        deleted=_deleted_files(second),
    )
    return Triage(
        total=fields["MemTotal"],
        available=fields.get("MemAvailable", fields.get("MemFree", 0)),
        lines=tuple(lines),
        processes=holders,
        oddities=oddities(facts),
        notes=tuple(f"could not see {what}" for what in second.missing),
        next_step=next_command(holders, own),
        seconds=time.perf_counter() - began,
        apart_s=(second.time_ns - first.time_ns) / 1e9,
        cgroup=cgroup,
        state=state,
    )


def _state(before: dict[str, int], after: dict[str, int], apart_s: float) -> dict[str, float]:
    """Return numbers on how the page allocator does; those the kernel does not tell are absent."""
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


def _owners(fields: dict[str, int], one: Pass) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return whose the memory in each line of the account is that belongs to no heap."""
    found = {
        "page tables": owners.page_table_owners(one),
        "shared memory and tmpfs": owners.shared_memory_owners(one),
        "huge pages": owners.huge_page_owners(one) if fields.get("Hugetlb") else (),
    }
    return {name: tuple((o.name, o.bytes) for o in own) for name, own in found.items()}


def _deleted_files(one: Pass) -> list[tuple[Subject, int, str]]:
    """Return who keeps deleted files, each counted once: their bytes and the name of the biggest."""
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
        if fresh:
            name = max(fresh, key=lambda d: d[1])[0]
            found.append((subject, sum(d[1] for d in fresh), name))
    return found


def _own_cgroup() -> tuple[str, int, int] | None:
    """Return the cgroup that bounds us most closely: its path, working set and limit."""
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
