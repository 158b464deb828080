# SPDX-License-Identifier: Apache-2.0
"""The kernel's allocations from ftrace's events, where BPF programs cannot be had.

The kernel writes each event as text, so it is slower, and nothing can be sampled by bytes. What is
looked at is chosen by address instead: of all 64 KiB of memory one in so many, allocations and
frees alike, which keeps both ends of each block.
"""

from __future__ import annotations

import hashlib
import os
import re
import select
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakscope.bpf import wire
from leakscope.bpf.wire import KINDS, TICK_NS, Collected, Moment
from leakscope.errors import LeakscopeError, UsageError
from leakscope.kernel.trace import kernel_counts, thinned
from leakscope.kernel.trace_recording import Traced
from leakscope.kernel.tracefs import TraceInstance
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from leakscope.bpf.helper import KernelFilter

__all__ = ["EventReader", "trace_by_ftrace"]

_REGION_BITS = 16  # memory is chosen by regions of 64 KiB
_PAGE_BITS = os.sysconf("SC_PAGE_SIZE").bit_length() - 1
_MOST_CHOICE = 6
_BUFFER_KB = 8192
_MOST_BLOCKS, _MOST_SITES, _MOST_LINE = 262_144, 32_768, 4096
_DEPTH = 48
_BACKLOG_S = 20.0  # to read what the kernel still has when it is over
_MOST_TASKS = 64
_GFP_MOVABLE, _GFP_RECLAIMABLE = "__GFP_MOVABLE", "__GFP_RECLAIMABLE"
_MOVABLE_BIT = 0x8

_EVENT = re.compile(
    r"\s*(.{1,32})-(\d{1,10})\s+\[(\d{1,6})\]\s+\S+\s+(\d{1,12})\.(\d{6}): (?:(\w+): (.*)|<stack trace>)"
)
_FIELD = re.compile(r"(\w+)=(\S+)")
_FRAME = re.compile(r" => .*<([0-9a-f]{1,16})>")
_LOST = re.compile(r"CPU:\d+ \[LOST (\d{1,18}) EVENTS\]")
# Event: its kind, what names the block, and whether it begins or ends one.
_EVENTS = {
    "kmem/kmalloc": ("kmalloc", "ptr", True),
    "kmem/kmalloc_node": ("kmalloc", "ptr", True),
    "kmem/kfree": ("kmalloc", "ptr", False),
    "kmem/kmem_cache_alloc": ("kmem_cache", "ptr", True),
    "kmem/kmem_cache_alloc_node": ("kmem_cache", "ptr", True),
    "kmem/kmem_cache_free": ("kmem_cache", "ptr", False),
    "kmem/mm_page_alloc": ("page", "pfn", True),
    "kmem/mm_page_free": ("page", "pfn", False),
    "percpu/percpu_alloc_percpu": ("percpu", "ptr", True),
    "percpu/percpu_free_percpu": ("percpu", "ptr", False),
}
_FREE = re.compile(
    rb": (kfree|kmem_cache_free|mm_page_free|percpu_free_percpu): .*\b(?:ptr|pfn)=(\w{1,32})"
)
_BY_NAME = {name.partition("/")[2]: told for name, told in _EVENTS.items()}


def trace_by_ftrace(
    which: KernelFilter,
    seconds: float,
    every: float,
    wait: Callable[[float], bool],
    attached: Callable[[], None] = lambda: None,
) -> Traced:
    """Trace for `seconds` as `trace_by_bpf` does. Raises `LeakscopeError` when it cannot."""
    if which.cgroup is not None:
        raise UsageError(
            "ftrace cannot be limited to a cgroup", hint="By BPF it can: leave out --ftrace."
        )
    bits = _choice(which.sample_bytes)
    before = kernel_counts()
    with TraceInstance() as instance:
        lacking = _set_up(instance, which, bits)
        pipe = os.open(instance.path / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            start_ns = time.monotonic_ns()
            reader = EventReader(start_ns)
            instance.write("tracing_on", "1")
            attached()
            looks: list[tuple[Moment, npt.NDArray[np.void]]] = []
            start = now = time.monotonic()
            upcoming = start + every
            while now < start + seconds and wait(now):
                _drain(pipe, reader, min(upcoming, start + seconds))
                now = time.monotonic()
                if now >= upcoming and now < start + seconds:
                    looks.append((reader.moment(), reader.sites()))
                    every = thinned(looks, every)
                    upcoming += every
            instance.write("tracing_on", "0")
            end_ns = time.monotonic_ns()
            _drain(pipe, reader, time.monotonic() + _BACKLOG_S, to_the_end=True)
            reader.lost += _overrun(instance)
            reader.now = max(reader.now, end_ns)
        finally:
            os.close(pipe)
    regions = f"one of {1 << bits} regions of {bytes_text(1 << _REGION_BITS)}"
    notes = [f"by ftrace: blocks in {regions}; events are text, so a busy machine loses some"]
    if which.pid is not None:
        notes.append("threads that the process started meanwhile are not in it")
    if lacking:
        notes.append(f"this kernel has no events of: {', '.join(lacking)}")
    if reader.samples and not reader.stacks:
        notes.append("the kernel gave no stacks")
    return Traced(
        start_ns=start_ns,
        sample_bytes=1 << (_REGION_BITS + bits) if bits else 1,
        final=reader.collected(),
        looks=looks,
        notes=tuple(notes),
        before=before,
        after=kernel_counts(),
        whole=which.whole,
        pid=which.pid,
        min_size=which.min_size,
        max_size=which.max_size,
        movable=which.movable,
        one_in=1 << bits,
        region=1 << _REGION_BITS,
    )


def _choice(sample_bytes: int) -> int:
    """Return so many bits of an address to choose by: 3 for the usual 16 KiB, 0 for everything."""
    return min(max(sample_bytes.bit_length() - 12, 0), _MOST_CHOICE)


def _set_up(instance: TraceInstance, which: KernelFilter, bits: int) -> list[str]:
    """Set events, filters and stacks; return the kinds that this kernel has no events of."""
    instance.write("tracing_on", "0")
    instance.write("buffer_size_kb", str(_BUFFER_KB))
    for option in ("sym-addr", "sym-offset"):
        instance.write(f"options/{option}", "1")
    if "mono" in instance.text("trace_clock"):
        instance.write("trace_clock", "mono")
    seen = set()
    for event, (kind, block, begins) in _EVENTS.items():
        folder = f"events/{event}"
        if kind not in which.kinds or not instance.has(folder):
            continue
        terms = _terms(instance.text(f"{folder}/format"), which, kind, block, begins, bits)
        chosen = " && ".join(terms)
        if chosen:
            instance.write(f"{folder}/filter", chosen)
        instance.write(f"{folder}/enable", "1")
        if begins:
            seen.add(kind)
            instance.write(
                f"{folder}/trigger", f"stacktrace if {chosen}" if chosen else "stacktrace"
            )
    return [kind for kind in which.kinds if kind not in seen]


def _terms(
    layout: str, which: KernelFilter, kind: str, block: str, begins: bool, bits: int
) -> list[str]:
    """Return the conditions on an event in ftrace's language."""
    first = _REGION_BITS - (_PAGE_BITS if block == "pfn" else 0)
    terms = []
    if kind != "percpu":
        terms += [f"!({block} & {1 << (first + bit):#x})" for bit in range(bits)]
    if not begins:
        return terms
    if which.pid is None:
        terms.append(f"common_pid != {os.getpid()}")
    else:
        tasks = sorted(int(each.name) for each in Path(f"/proc/{which.pid}/task").iterdir())[
            :_MOST_TASKS
        ]
        terms.append("(" + " || ".join(f"common_pid == {task}" for task in tasks) + ")")
    if kind == "page":
        if not which.movable:
            terms.append(f"!(gfp_flags & {_MOVABLE_BIT:#x})")
    elif kind != "percpu" or " bytes_alloc;" in layout:
        if which.min_size is not None:
            terms.append(f"bytes_alloc >= {which.min_size}")
        if which.max_size is not None:
            terms.append(f"bytes_alloc <= {which.max_size}")
    if which.caches and kind == "kmem_cache":
        if " name;" not in layout:
            raise LeakscopeError(
                "this kernel's events do not name the cache", hint="Leave out --cache."
            )
        terms.append("(" + " || ".join(f'name == "{name}"' for name in which.caches) + ")")
    return terms


def _drain(pipe: int, reader: EventReader, until: float, *, to_the_end: bool = False) -> None:
    while (left := until - time.monotonic()) > 0:
        try:
            text = os.read(pipe, 1 << 18)
        except BlockingIOError:
            text = b""
        if text:
            reader.feed(text)
        elif to_the_end:
            return
        else:
            select.select([pipe], [], [], min(left, 0.05))
            time.sleep(min(left, 0.005))


def _overrun(instance: TraceInstance) -> int:
    """Return how many events the kernel overwrote or dropped, or we did not get to read."""
    lost = 0
    for folder in (instance.path / "per_cpu").iterdir():
        for line in instance.text(f"per_cpu/{folder.name}/stats").splitlines():
            name, _, number = line.partition(":")
            if name in {"entries", "overrun", "commit overrun", "dropped events"}:
                lost += int(number) if number.strip().isdecimal() else 0
    return lost


@dataclass(slots=True)
class _Site:
    size: int
    allocs: int = 0
    alloc_bytes: int = 0
    frees: int = 0
    freed_bytes: int = 0
    first: int = 0
    last: int = 0
    reused: int = 0
    ages: list[int] = field(default_factory=lambda: [0] * wire.AGES)


@dataclass(slots=True)
class _Block:
    site: tuple[int, int, int, int, int]  # stack, cache, size, kind, flags
    birth: int
    size: int
    task: int


@dataclass(slots=True)
class _Pending:
    kind: str
    told: dict[str, str]
    time: int
    task: int
    comm: str
    stack: list[int] = field(default_factory=list)
    traced: bool = False


class EventReader:
    """Reads the text of trace_pipe; keeps what lives, and counts by site."""

    def __init__(self, start_ns: int) -> None:
        self._rest = b""
        self._pending: dict[int, _Pending] = {}  # by processor: an allocation and its stack so far
        self._open: _Pending | None = None
        self._sites: dict[tuple[int, int, int, int, int], _Site] = {}
        self._blocks: dict[tuple[str, str], _Block] = {}
        self._caches: dict[str, int] = {}
        self._tasks: dict[int, str] = {}
        self._drops: dict[str, int] = defaultdict(int)
        self._allocs, self._bytes = [0] * len(KINDS), [0] * len(KINDS)
        self._frees, self._matched = [0] * len(KINDS), [0] * len(KINDS)
        self.stacks: dict[int, list[int]] = {}
        self.samples = 0
        self.lost = 0
        self.now = start_ns  # of the last event that was read

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MOST_LINE:
            self._rest = b""
        for line in lines:
            if not self._passing(line):
                self._line(line[:_MOST_LINE].decode("utf-8", "replace"))

    def _passing(self, line: bytes) -> bool:
        """Whether a line is the free of what we do not have: most are, so this is to be quick."""
        found = _FREE.search(line)
        if found is None:
            return False
        kind, _, _ = _BY_NAME[found[1].decode()]
        block = found[2].decode()
        if (_space(kind), block) in self._blocks or any(
            pending.told["block"] == block for pending in self._pending.values()
        ):
            return False
        self._open = None
        if block.strip("0x"):
            self._frees[KINDS.index(kind)] += 1
        return True

    def _line(self, line: str) -> None:
        if line.startswith(" =>"):
            found = _FRAME.match(line)
            if self._open is not None and found is not None and len(self._open.stack) < _DEPTH:
                self._open.stack.append(int(found[1], 16))
            return
        self._open = None
        found = _EVENT.match(line)
        if found is None:
            lost = _LOST.search(line)
            if lost is not None:
                self.lost += int(lost[1])
            return
        cpu = int(found[3])
        pending = self._pending.get(cpu)
        if found[6] is None:
            if pending is not None and pending.task == int(found[2]) and not pending.traced:
                pending.traced = True
                self._open = pending
            return
        if pending is not None:
            self._allocated(self._pending.pop(cpu))
        told = _BY_NAME.get(found[6])
        if told is None:
            return
        kind, name, begins = told
        fields = dict(_FIELD.findall(found[7]))
        fields["block"] = fields.get(name, "")
        at = int(found[4]) * 1_000_000_000 + int(found[5]) * 1000
        self.now = max(self.now, at)
        if begins:
            self._pending[cpu] = _Pending(kind, fields, at, int(found[2]), found[1].strip())
        else:
            self._freed(kind, fields["block"], at)

    def _allocated(self, event: _Pending) -> None:
        kind, told = event.kind, event.told
        number = KINDS.index(kind)
        if kind == "page":
            size = 1 << (_PAGE_BITS + min(_number(told.get("order")), 20))
        else:
            size = _number(told.get("bytes_alloc") or told.get("size"))
        if not told["block"] or not told["block"].strip("0x") or size <= 0:
            return
        self._allocs[number] += 1
        self._bytes[number] += size
        block = (_space(kind), told["block"])
        before = self._blocks.pop(block, None)
        if before is not None:
            self._died(before, event.time, reused=True)
        stack = 0
        if event.stack:
            stack = (
                int.from_bytes(
                    hashlib.blake2b(repr(event.stack).encode(), digest_size=8).digest(), "little"
                )
                | 1
            )
            self.stacks.setdefault(stack, event.stack)
        cache = told.get("name", "") if kind == "kmem_cache" else ""
        cache_number = self._caches.setdefault(cache, len(self._caches) + 1) if cache else 0
        flags = told.get("gfp_flags", "")
        bits = wire.MOVABLE * (_GFP_MOVABLE in flags or "GFP_HIGHUSER_MOVABLE" in flags)
        bits |= wire.RECLAIMABLE * (_GFP_RECLAIMABLE in flags)
        key = (stack, cache_number, size, number, bits)
        site = self._sites.get(key)
        if site is None:
            if len(self._sites) >= _MOST_SITES:
                self._drops["sites_full"] += 1
                return
            site = self._sites[key] = _Site(size, first=event.time)
        if len(self._blocks) >= _MOST_BLOCKS:
            self._drops["blocks_full"] += 1
            return
        self.samples += 1
        site.allocs += 1
        site.alloc_bytes += size
        site.last = event.time
        if len(self._tasks) < _MOST_SITES:
            self._tasks.setdefault(event.task, event.comm)
        self._blocks[block] = _Block(key, event.time, size, event.task)

    def _freed(self, kind: str, name: str, at: int) -> None:
        number = KINDS.index(kind)
        if not name.strip("0x"):
            return
        self._frees[number] += 1
        space = _space(kind)
        block = self._blocks.pop((space, name), None)
        if block is None:
            # Its allocation may still wait for its stack.
            for cpu, pending in list(self._pending.items()):
                if pending.told["block"] == name:
                    self._allocated(self._pending.pop(cpu))
            block = self._blocks.pop((space, name), None)
        if block is not None:
            self._matched[number] += 1
            self._died(block, at)

    def _died(self, block: _Block, at: int, *, reused: bool = False) -> None:
        site = self._sites[block.site]
        site.frees += 1
        site.freed_bytes += block.size
        site.reused += reused
        ticks = max(at - block.birth, 0) // TICK_NS
        site.ages[min(ticks.bit_length(), wire.AGES - 1)] += 1

    def moment(self) -> Moment:
        """Return the counters as they are now."""
        drops = {name: number for name, number in self._drops.items() if number}
        if self.lost:
            drops["overrun"] = self.lost
        return Moment(
            now_ns=self.now,
            allocs=tuple(self._allocs),
            alloc_bytes=tuple(self._bytes),
            frees=tuple(self._frees),
            matched=tuple(self._matched),
            samples=self.samples,
            drops=drops,
            runs=0,
            run_ns=0,
        )

    def sites(self) -> npt.NDArray[np.void]:
        """Return the sites as they are now."""
        table = np.zeros(len(self._sites), wire.SITE)
        for row, (key, site) in zip(table, self._sites.items(), strict=True):
            row["stack"], row["cache"], row["size"], row["kind"], row["flags"] = key
            for name in ("allocs", "alloc_bytes", "frees", "freed_bytes", "first", "last"):
                row[name] = getattr(site, name)
            row["ages"], row["reused"] = site.ages, site.reused
        return table

    def collected(self) -> Collected:
        """Return everything; allocations that wait for a stack get none."""
        for pending in self._pending.values():
            self._allocated(pending)
        self._pending = {}
        stacks = np.zeros(len(self.stacks), wire.STACK)
        for row, (number, frames) in zip(stacks, self.stacks.items(), strict=True):
            row["hash"], row["frames"] = number, len(frames)
            row["ip"][: len(frames)] = frames
        caches = np.zeros(len(self._caches), wire.CACHE)
        for row, (name, number) in zip(caches, self._caches.items(), strict=True):
            row["cache"], row["name"] = number, name.encode()[:31]
        tasks = np.zeros(len(self._tasks), wire.TASK)
        for row, (task, comm) in zip(tasks, self._tasks.items(), strict=True):
            row["tgid"], row["comm"] = task, comm.encode()[:15]
        blocks = np.zeros(len(self._blocks), wire.BLOCK)
        for row, (number, block) in zip(blocks, enumerate(self._blocks.values(), 1), strict=True):
            row["address"] = number
            row["stack"], row["cache"], row["size"], row["kind"], row["flags"] = block.site
            row["birth"], row["bytes"], row["tgid"] = block.birth, block.size, block.task
        return Collected(self.moment(), self.sites(), stacks, caches, tasks, blocks, ())


def _space(kind: str) -> str:
    """Names of pages and per-cpu blocks may be equal to those of others."""
    return kind if kind in {"page", "percpu"} else ""


def _number(text: str | None) -> int:
    try:
        return int(text or "0", 0)
    except ValueError:
        return 0
