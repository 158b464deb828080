# SPDX-License-Identifier: Apache-2.0
"""Gauges of the machine as a whole: its memory by kind, kernel caches, tmpfs and shared memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from leakscope.model.series import Subject
from leakscope.observe.machine import unexplained
from leakscope.observe.measures import Measure
from leakscope.proc.meminfo import GAUGES, read_meminfo
from leakscope.proc.slabinfo import is_reclaimable, merged_caches, read_slabinfo
from leakscope.proc.sockets import read_sockstat
from leakscope.proc.sysv import read_segments
from leakscope.proc.tmpfs import read_tmpfs
from leakscope.proc.vm import read_per_cpu_pages, read_vmstat
from leakscope.proc.vmalloc import read_vmallocinfo

__all__ = ["KernelGauges"]

_SELDOM = 6  # passes between two looks at what is long to read
_MIN_VMALLOC = 64 << 10
_NAMED = 6
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class KernelGauges:
    """Reads what belongs to no single process."""

    _passes: int = 0
    _merged: dict[str, tuple[str, ...]] | None = None
    _caches: dict[str, tuple[Subject, str]] = field(default_factory=dict)

    def read(self, out: list[Measure], missing: set[str]) -> None:
        """Append the gauges to `out`, and to `missing` what may not be read."""
        fields = read_meminfo()
        available = fields.get("MemAvailable", fields.get("MemFree", 0))
        machine = Subject(
            "system", "machine", "this machine", limit=float(fields.get("MemTotal", 0)) or None
        )

        def put(metric: str, unit: str, value: int) -> None:
            out.append(Measure(machine, metric, unit, value))

        for name, metric in GAUGES.items():
            if name in fields:
                put(metric, "bytes", fields[name])
        if "MemTotal" in fields:
            put("available", "bytes", available)
            put("used", "bytes", fields["MemTotal"] - available)
            rest = unexplained(fields, read_per_cpu_pages() * _PAGE)
            put("unexplained", "bytes", max(0, rest))
            cached = fields.get("Cached", 0) - fields.get("Shmem", 0) + fields.get("Buffers", 0)
            put("page_cache", "bytes", max(0, cached))
            put("swap", "bytes", fields.get("SwapTotal", 0) - fields.get("SwapFree", 0))
            put("swap_free", "bytes", fields.get("SwapFree", 0))
        killed = read_vmstat().get("oom_kill")
        if killed is not None:
            put("oom_kills", "count", killed)
        sockets = read_sockstat()
        put("sockets", "count", sockets.count)
        put("socket_buffers", "bytes", sockets.pages * _PAGE)
        self._shared(out)
        self._slabs(out, missing)
        if self._passes % _SELDOM == 0:
            self._vmalloc(out, missing)
        self._passes += 1

    def _shared(self, out: list[Measure]) -> None:
        for one in read_tmpfs():
            limit = None if one.size is None else float(one.size)
            subject = Subject("tmpfs", one.device, one.mount, limit=limit)
            out.append(Measure(subject, "tmpfs", "bytes", one.used))
            out.append(Measure(subject, "files", "count", one.inodes))
        segments = read_segments()
        subject = Subject("sysv", "shm", "System V shared memory")
        out.append(Measure(subject, "shm", "bytes", sum(s.resident for s in segments)))
        out.append(Measure(subject, "segments", "count", len(segments)))

    def _slabs(self, out: list[Measure], missing: set[str]) -> None:
        slabs = read_slabinfo()
        if slabs is None:
            missing.add("kernel caches by name (needs root)")
            return
        for slab in slabs:
            known = self._caches.get(slab.name)
            if known is None:
                if not slab.bytes:
                    continue
                kind = "reclaimable" if is_reclaimable(slab.name) else "unreclaimable"
                known = Subject("slab", slab.name, self._named(slab.name)), kind
                self._caches[slab.name] = known
            out.append(Measure(known[0], known[1], "bytes", slab.bytes))

    def _named(self, name: str) -> str:
        """Return the cache's name with those of caches that are merged with it."""
        if self._merged is None:
            self._merged = merged_caches()
        others = self._merged.get(name, ())
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        return f"{name} (with {', '.join(others[:_NAMED])}{more})" if others else name

    def _vmalloc(self, out: list[Measure], missing: set[str]) -> None:
        buffers = read_vmallocinfo(_PAGE)
        if buffers is None:
            missing.add("large kernel buffers by caller (needs root)")
            return
        for one in buffers:
            if one.bytes >= _MIN_VMALLOC:
                subject = Subject("vmalloc", one.name, one.name)
                out.append(Measure(subject, "buffers", "bytes", one.bytes, sparse=True))
