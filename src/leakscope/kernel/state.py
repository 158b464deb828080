# SPDX-License-Identifier: Apache-2.0
"""Two looks at a kernel's memory, put together to one screen."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import TargetError
from leakscope.kernel.facts import Ability, sources
from leakscope.kernel.kmemleak import Kmemleak
from leakscope.kernel.mounts import open_debug_files
from leakscope.kernel.places import Purpose, place_name, purpose_of
from leakscope.model.kernel_state import KernelHolder, KernelSource, KernelState
from leakscope.model.triage import Oddity
from leakscope.observe.machine import account
from leakscope.proc.allocinfo import read_allocinfo, read_profiling
from leakscope.proc.meminfo import read_meminfo
from leakscope.proc.slabinfo import is_reclaimable, merged_caches, read_slabinfo
from leakscope.proc.text import read_text
from leakscope.proc.vm import parse_numbers, read_per_cpu_pages
from leakscope.proc.vmalloc import read_vmallocinfo
from leakscope.words import bytes_text, percent_text, plural, rate_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from leakscope.kernel.mounts import DebugFiles

__all__ = ["look_at_kernel"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST = 12  # holders of a kind
_GROWS = float(1 << 20)  # bytes a second
_GIB = 1 << 30
_MANY_DYING = 1000
_PARTS = (
    "kernel caches, unreclaimable", "page tables", "kernel stacks", "vmalloc", "per-CPU",
)  # fmt: skip


@dataclass(slots=True)
class _Look:
    """What is held at one moment: (kind, name) to bytes, objects, note."""

    at: float
    held: dict[tuple[str, str], tuple[int, int | None, str]] = field(default_factory=dict)


def look_at_kernel(apart_s: float, *, mount: bool = True) -> KernelState:
    """Look, wait `apart_s` seconds, look again. Raises `TargetError` without /proc."""
    debug = open_debug_files(mount=mount)
    told = sources(debug)
    merged = merged_caches()
    first = _look(merged)
    time.sleep(apart_s)
    second = _look(merged)
    fields = read_meminfo()
    if "MemTotal" not in fields:
        raise TargetError("/proc/meminfo cannot be read", hint="Is /proc mounted here?")
    lines = {line.name: line.bytes for line in account(fields, read_per_cpu_pages() * _PAGE)}
    apart = max(second.at - first.at, 1e-3)
    holders = _holders(first, second, apart)
    unexplained = max(0, lines["unexplained"])
    own = sum(max(0, lines[name]) for name in _PARTS) + unexplained
    suspects = _suspects(debug, told)
    odd = tuple(_oddities(fields, lines, holders, suspects))
    reclaimable = lines["kernel caches, reclaimable"]
    return KernelState(
        release=os.uname().release,
        verdict=_verdict(odd, own, fields["MemTotal"], suspects),
        total=fields["MemTotal"],
        kernel=own,
        reclaimable=reclaimable,
        unexplained=unexplained,
        sources=tuple(told),
        holders=holders,
        oddities=odd,
        suspects=suspects,
        next_step=_next_step(odd, told),
        apart_s=apart,
        notes=_notes(debug, told),
    )


def _look(merged: dict[str, tuple[str, ...]]) -> _Look:
    look = _Look(time.monotonic())
    for slab in read_slabinfo() or ():
        if slab.bytes:
            others = merged.get(slab.name, ())
            more = f" (with {', '.join(others[:3])}{', …' if len(others) > 3 else ''})"
            note = "given back on demand" if is_reclaimable(slab.name) else ""
            name = slab.name + (more if others else "")
            look.held["cache", name] = slab.bytes, slab.active, note
    for one in read_vmallocinfo(_PAGE) or ():
        look.held["vmalloc", one.name] = one.bytes, one.count, ""
    if read_profiling():
        for line in read_allocinfo() or ():
            purpose = purpose_of(line.place)
            if line.bytes and purpose in (Purpose.KERNEL, Purpose.CACHE):
                note = "given back on demand" if purpose is Purpose.CACHE else ""
                if not line.exact:
                    note = "the kernel lost count of some"
                look.held["line", place_name(line.place)] = line.bytes, line.calls, note
    return look


def _holders(first: _Look, second: _Look, apart: float) -> tuple[KernelHolder, ...]:
    """Return the heaviest and the fastest of each kind."""
    found: list[KernelHolder] = []
    for (kind, name), (size, count, note) in second.held.items():
        then = first.held.get((kind, name), (0, None, ""))[0]
        found.append(KernelHolder(kind, name, size, count, (size - then) / apart, note))
    kept: list[KernelHolder] = []
    for kind in ("line", "cache", "vmalloc"):
        own = [one for one in found if one.kind == kind]
        heavy = sorted(own, key=lambda h: -h.bytes)[:_MOST]
        fast = sorted(own, key=lambda h: -h.growth)[:3]
        kept += heavy + [one for one in fast if one not in heavy and one.growth >= _GROWS]
    return tuple(kept)


def _suspects(debug: DebugFiles, told: Sequence[KernelSource]) -> int | None:
    """Count what kmemleak's report lists; None where there is no report."""
    path = debug.path("kmemleak")
    readable = any(s.name == "kmemleak" and s.state != Ability.DENIED for s in told)
    if path is None or not readable:
        return None
    try:
        return sum(1 for line in Kmemleak(path).lines() if line.startswith("unreferenced"))
    except TargetError:
        return None


def _oddities(
    fields: dict[str, int],
    lines: dict[str, int],
    holders: Sequence[KernelHolder],
    suspects: int | None,
) -> Iterator[Oddity]:
    total = fields["MemTotal"]
    if suspects:
        text = f"kmemleak lists {plural(suspects, 'object')} that nothing may point to"
        yield Oddity(text, "Find out which stay: sudo leakscope kernel scan")
    if lines["unexplained"] > max(_GIB, total // 10):
        text = f"{bytes_text(lines['unexplained'])} of pages are in no counter"
        yield Oddity(text, "Drivers take such pages: sudo leakscope kernel watch --for 40m")
    unreclaimable = lines["kernel caches, unreclaimable"]
    if unreclaimable > max(_GIB // 2, total // 10):
        most = max(
            (h for h in holders if h.kind == "cache" and not h.note),
            key=lambda h: h.bytes,
            default=None,
        )
        most_text = f", most of all {most.name} with {bytes_text(most.bytes)}" if most else ""
        text = f"objects that cannot be given back take {bytes_text(unreclaimable)}{most_text}"
        yield Oddity(text, "See whether they grow: sudo leakscope kernel watch --for 40m")
    for one in sorted(holders, key=lambda h: -h.growth)[:3]:
        if one.growth >= _GROWS and not one.note:
            text = f"{one.name} grows by {rate_text(one.growth)} and holds {bytes_text(one.bytes)}"
            yield Oddity(text, "It may be at work: sudo leakscope kernel watch --for 5m")
    dying = parse_numbers(read_text("/sys/fs/cgroup/cgroup.stat", 4096) or "").get(
        "nr_dying_descendants", 0
    )
    if dying > _MANY_DYING:
        text = f"{plural(dying, 'removed cgroup')} still hold memory of the kernel"
        yield Oddity(text, "Their pages keep them: echo 1 | sudo tee /proc/sys/vm/drop_caches")


def _verdict(odd: Sequence[Oddity], own: int, total: int, suspects: int | None) -> str:
    held = f"the kernel holds {bytes_text(own)} for itself ({percent_text(own, total)} of memory)"
    if odd:
        return f"{held}; {odd[0].sentence}"
    if suspects == 0:
        return f"{held}; nothing is odd, and kmemleak's report is empty"
    return f"{held}; nothing is odd at one look"


def _next_step(odd: Sequence[Oddity], told: Sequence[KernelSource]) -> str:
    if odd:
        return odd[0].next_step
    root = "" if os.geteuid() == 0 else "sudo "
    if any(s.name == "kmemleak" and s.works for s in told):
        return f"{root}leakscope kernel scan"
    return f"{root}leakscope kernel watch --for 40m"


def _notes(debug: DebugFiles, told: Sequence[KernelSource]) -> tuple[str, ...]:
    notes = []
    if debug.own:
        notes.append("debugfs was mounted for this command alone, and is gone with it")
    if any(one.state == Ability.DENIED for one in told) and os.geteuid() != 0:
        notes.append("root sees more: sudo leakscope kernel")
    return tuple(notes)
