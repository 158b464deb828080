# SPDX-License-Identifier: Apache-2.0
"""From what was collected of the kernel's allocations to a recording.

A site is a stack and a kind; kinds name the cache. A remark in brackets behind a kind says why
what grows there is no leak on this evidence (`leakscope.model.remarks`).
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from leakscope.bpf import wire
from leakscope.bpf.wire import KINDS, TICK_NS
from leakscope.judge.options import Options
from leakscope.kernel.trace_frames import kernel_stack, plain
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import (
    AGE_BUCKETS,
    BLOCK_DTYPE,
    RANGE_DTYPE,
    Coverage,
    Process,
    Timeline,
)
from leakscope.model.remarks import FREES_UNSEEN, KERNEL, LEVEL, OF_TASKS, RECLAIMABLE
from leakscope.proc.slabinfo import merged_caches
from leakscope.words import bytes_text, count_text, percent_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy.typing as npt

    from leakscope.bpf.wire import Collected, Moment
    from leakscope.kernel.trace_frames import KernelStack
    from leakscope.model.frames import FrameName
    from leakscope.model.recordings import Recording
    from leakscope.proc.kallsyms import Kallsyms, KernelSymbol

    Lines = Callable[[Collection[KernelSymbol]], Mapping[KernelSymbol, Sequence[FrameName]]]
    Floats = npt.NDArray[np.float64]

__all__ = ["Held", "KernelCounts", "Traced", "recording_of"]

_Key = tuple[int, int, int]  # of a site: stack, cache, and size with kind and flags

_DEPTH = 48
_MOST_KINDS = 200  # caches that get a kind of their own
_FEW = 3
_MOST_ALIASES = 4
_SLACK = 64  # objects a processor keeps at hand
_RARE = 1000  # one event in so many may come while another one is recorded
_SERVES = {
    "slab": "pages for slabs, large blocks and per-cpu memory, which are counted by what is in them",
    "vmalloc": "pages and notes for vmalloc areas, which are counted themselves",
    "notes": "the kernel's own notes on blocks (kmemleak, accounting)",
}
_LOSSY = ("blocks_full", "sites_full", "stacks_full", "table_locked", "overrun")


@dataclass(frozen=True, slots=True)
class KernelCounts:
    """What the kernel itself counts."""

    objects: Mapping[str, int]  # active ones by cache
    other_bytes: int | None  # in use, and none of: free, page cache, memory of programs, slabs
    tasks: int = 0  # processes and threads


@dataclass(slots=True)
class Traced:
    """All that a source collected. Times are CLOCK_MONOTONIC nanoseconds."""

    start_ns: int
    sample_bytes: int  # mean distance of samples; 1 or less: every allocation
    final: Collected
    looks: list[tuple[Moment, npt.NDArray[np.void]]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    before: KernelCounts | None = None  # the kernel's own counts, at the begin …
    after: KernelCounts | None = None  # … and at the end
    whole: bool = True  # no filter leaves out a part of a cache
    pid: int | None = None
    min_size: int | None = None
    max_size: int | None = None
    movable: bool = False
    one_in: int = 0  # chosen by address instead: one region in so many; 0: sampled by bytes
    region: int = 0  # bytes of a region

    def weigh(self, sizes: npt.NDArray[np.unsignedinteger]) -> Floats:
        """Return for how many blocks each sampled one of these sizes stands; size 0 is large."""
        if self.one_in:
            # A block larger than a region is as likely to be met as any of the regions in it.
            whole = float(self.one_in * self.region)
            regions: Floats = whole / np.maximum(sizes, self.region).astype(float)
            return regions.clip(1.0, float(self.one_in))
        weights = np.ones(len(sizes))
        if self.sample_bytes > 1:
            small = sizes > 0
            weights[small] = 1.0 / -np.expm1(-sizes[small].astype(float) / self.sample_bytes)
        return weights


@dataclass(frozen=True, slots=True)
class Held:
    """Whose allocations the living blocks of a site are: bytes by process number, and names."""

    by_process: Mapping[int, float]
    comms: Mapping[int, str]
    interrupt: bool


def recording_of(
    traced: Traced,
    symbols: Kallsyms,
    reclaimable: Callable[[str], bool],
    lines: Lines = lambda _: {},
) -> tuple[Recording, dict[int, Held]]:
    """Return the recording, and by site who asked for what still lives.

    `reclaimable` tells of a cache whether the kernel gives its objects back under pressure,
    `lines` looks up places in debug information and returns those that it found.
    """
    return _Making(traced, symbols, reclaimable, lines).make()


class _Making:
    def __init__(
        self,
        traced: Traced,
        symbols: Kallsyms,
        reclaimable: Callable[[str], bool],
        lines: Lines,
    ) -> None:
        self.traced = traced
        self.final = traced.final
        self.reclaimable = reclaimable
        stacks: dict[int, list[int]] = {
            int(row["hash"]): row["ip"][: min(int(row["frames"]), _DEPTH)].tolist()
            for row in self.final.stacks
        }
        # What is gone is not shown, and lines take time.
        living = set(self.final.blocks["stack"].tolist())
        shown = [stack for number, stack in stacks.items() if number in living]
        places = {symbols.find(address) for stack in shown for address in stack}
        found = lines({place for place in places if place is not None})
        self.stacks: dict[int, KernelStack] = {
            number: kernel_stack(stack, symbols, most=_DEPTH, lines=found)
            for number, stack in stacks.items()
        }
        self.cache_names = {
            int(row["cache"]): plain(bytes(row["name"]).decode("utf-8", "replace"))
            for row in self.final.caches
        }
        self.aliases = merged_caches()
        self.end_ns = self.final.moment.now_ns
        self.left_out: dict[str, float] = defaultdict(float)

    def make(self) -> tuple[Recording, dict[int, Held]]:
        final, traced = self.final, self.traced
        duration = max(self.end_ns - traced.start_ns, 1)
        weights = self.traced.weigh(final.sites["size"])
        kinds = self._kinds(weights)
        build = RecordingBuilder(
            Process(pid=traced.pid, exe=KERNEL, arch=os.uname().machine, ended="running"),
            tick_ns=float(TICK_NS),
            duration_ns=duration,
        )
        numbers = np.zeros(len(final.sites), np.int64)  # of the model, by row; -1: left out
        named: dict[int, tuple[int, str]] = {}
        for at, row in enumerate(final.sites):
            stack = self.stacks.get(int(row["stack"]))
            carrier = self._carrier(row)
            if carrier is not None:
                numbers[at] = -1
                live = (int(row["alloc_bytes"]) - int(row["freed_bytes"])) * weights[at]
                self.left_out[carrier] += max(live, 0.0)
                continue
            node = 0 if stack is None else build.stack(stack.frames, truncated=stack.truncated)
            numbers[at] = build.site(node, kinds[at])
            named[int(numbers[at])] = node, kinds[at]
        self._fill(build, numbers, named, weights, duration)
        held = self._held(numbers)
        build.coverage = self._coverage(weights)
        recording = build.build()
        return recording, held

    # ---- kinds

    def _kinds(self, weights: Floats) -> list[str]:
        """Return the kind of each row of the final sites, with a remark where there is one."""
        sites = self.final.sites
        labels = []
        estimated: dict[str, float] = defaultdict(float)  # what is left, by other counts of it
        reused: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
        living: dict[tuple[int, str], float] = defaultdict(float)
        for row, weight in zip(sites, weights.tolist(), strict=True):
            kind = KINDS[int(row["kind"])]
            cache = self.cache_names.get(int(row["cache"]), "")
            label = self._cache_label(cache) if cache else kind
            line = cache or (_bucket(int(row["size"])) if kind == "kmalloc" else kind)
            labels.append((label, line))
            if self._carrier(row) is not None:
                pass
            elif kind == "page" and not self._page_cache(row):
                estimated[line] += (int(row["alloc_bytes"]) - int(row["freed_bytes"])) * weight
            elif kind != "page":
                estimated[line] += (int(row["allocs"]) - int(row["frees"])) * weight
            told = reused[int(row["stack"]), label]
            told[0] += int(row["reused"])
            told[1] += int(row["frees"])
            living[int(row["stack"]), label] += (int(row["allocs"]) - int(row["frees"])) * weight
        level = self._level(estimated)
        named: set[str] = set()
        found = []
        for row, (label, line) in zip(sites, labels, strict=True):
            again, frees = reused[int(row["stack"]), label]
            kind = KINDS[int(row["kind"])]
            told_kind = label if label in named or len(named) < _MOST_KINDS else kind
            named.add(told_kind)
            by_request = int(row["flags"]) & (wire.MOVABLE | wire.RECLAIMABLE)
            by_cache = kind == "kmem_cache" and bool(line) and self.reclaimable(line)
            if by_request or by_cache or self._page_cache(row):
                told_kind += RECLAIMABLE
            elif again >= _FEW and again * 5 >= frees:
                told_kind += FREES_UNSEEN
            elif self._of_tasks(int(row["stack"]), living[int(row["stack"]), label]):
                told_kind += OF_TASKS
            elif line in level:
                told_kind += LEVEL
            found.append(told_kind)
        return found

    def _cache_label(self, cache: str) -> str:
        """Name a cache, and others whose objects are kept with its own."""
        others = self.aliases.get(cache, ())
        also = f", shared with {', '.join(others[:_MOST_ALIASES])}" if others else ""
        return f"cache {cache}{also}"

    def _carrier(self, row: np.void) -> str | None:
        """Return what the blocks of a row of the sites only serve, when that is counted itself."""
        stack, kind = self.stacks.get(int(row["stack"])), KINDS[int(row["kind"])]
        if stack is None or kind in {"percpu", "vmalloc"}:
            return None
        return None if stack.carrier == "slab" and kind != "page" else stack.carrier

    def _page_cache(self, row: np.void) -> bool:
        """Whether a row of the sites is pages of files."""
        stack = self.stacks.get(int(row["stack"]))
        return stack is not None and stack.page_cache and row["kind"] == KINDS.index("page")

    def _of_tasks(self, number: int, living: float) -> bool:
        """Whether living tasks may have all of it: page tables, and what each was begun with."""
        stack, after = self.stacks.get(number), self.traced.after
        if stack is None or after is None:
            return False
        return stack.tables or (stack.task and living <= after.tasks)

    def _level(self, estimated: Mapping[str, float]) -> set[str]:
        """Return the caches and kinds of which, by other counts, far less is left than we think.

        Then older blocks went, or ours did by ways that have no event: RCU, and frees in bulk.
        """
        if not self.traced.whole:
            return set()
        found = self._level_caches(estimated)
        moment = self.final.moment
        for kind in ("percpu", "vmalloc"):
            number = KINDS.index(kind)
            net = moment.allocs[number] - moment.frees[number]
            if estimated.get(kind, 0) > 0 and net < estimated[kind] / 2:
                found.add(kind)
        before, after = self.traced.before, self.traced.after
        if before is None or after is None or None in (before.other_bytes, after.other_bytes):
            return found
        grown = (after.other_bytes or 0) - (before.other_bytes or 0)
        if estimated.get("page", 0) > 0 and grown < estimated["page"] / 2:
            found.add("page")
        return found

    def _level_caches(self, estimated: Mapping[str, float]) -> set[str]:
        traced = self.traced
        if traced.before is None or traced.after is None:
            return set()
        before, after = traced.before.objects, traced.after.objects
        slack = _SLACK * (os.cpu_count() or 1)
        found = set()
        for name, objects in estimated.items():
            lines = [name] if not name.startswith("kmalloc-") else _kmalloc_lines(name, after)
            if not any(line in after for line in lines):
                continue
            grown = sum(after.get(line, 0) - before.get(line, 0) for line in lines)
            if objects > slack and grown + slack < objects / 2:
                found.add(name)
        return found

    # ---- columns

    def _fill(
        self,
        build: RecordingBuilder,
        numbers: npt.NDArray[np.int64],
        named: Mapping[int, tuple[int, str]],
        weights: Floats,
        duration: int,
    ) -> None:
        """Fill in the columns by site, from the rows that became it."""
        final, start, kept = self.final, self.traced.start_ns, numbers >= 0
        sites = max(named, default=0) + 1
        rows, of, weight = final.sites[kept], numbers[kept], weights[kept]

        def total(name: str) -> npt.NDArray[np.int64]:
            return np.rint(np.bincount(of, rows[name] * weight, minlength=sites)).astype(np.int64)

        first = np.full(sites, duration, np.int64)
        np.minimum.at(first, of, (rows["first"].astype(np.int64) - start).clip(0, duration))
        last = np.zeros(sites, np.int64)
        np.maximum.at(last, of, (rows["last"].astype(np.int64) - start).clip(0, duration))

        by_key = dict(zip(_keys(final.sites), numbers.tolist(), strict=True))
        lookup = _looked_up(final.blocks, by_key)
        there = lookup >= 0
        living = final.blocks[there]
        blocks = np.zeros(len(living), BLOCK_DTYPE)
        blocks["address"], blocks["size"] = living["address"], living["bytes"]
        blocks["site"] = lookup[there]
        blocks["birth_ns"] = (living["birth"].astype(np.int64) - start).clip(0, duration)
        build.blocks(blocks)
        heavy = self.traced.weigh(living["size"])
        count = np.bincount(blocks["site"], heavy, minlength=sites)
        size = np.bincount(blocks["site"], heavy * blocks["size"], minlength=sites)

        times, counts, sizes = self._course(by_key, sites)
        peak = np.maximum(sizes.max(axis=0, initial=0.0), size)
        deaths = np.zeros((sites, AGE_BUCKETS), np.uint64)
        np.add.at(deaths, of, rows["ages"].astype(np.uint64))
        build.deaths(deaths)
        build.ranges(np.zeros(0, RANGE_DTYPE))  # mappings are a matter of programs
        build.timeline(
            Timeline(
                times_ns=times,
                live_bytes=np.rint(sizes.sum(axis=1)).astype(np.int64),
                live_counts=np.rint(counts.sum(axis=1)).astype(np.int64),
                site_bytes=sizes.astype(np.float32),
                site_counts=np.rint(counts).astype(np.uint32),
            )
        )
        columns = {
            "allocs": total("allocs"),
            "alloc_bytes": total("alloc_bytes"),
            "frees": total("frees"),
            "freed_bytes": total("freed_bytes"),
            "live_count": np.rint(count).astype(np.int64),
            "live_bytes": np.rint(size).astype(np.int64),
            "peak_bytes": np.rint(peak).astype(np.int64),
            "first_birth_ns": first,
            "last_birth_ns": last,
        }
        for site, (node, kind) in named.items():
            build.site(node, kind, **{name: int(told[site]) for name, told in columns.items()})

    def _course(
        self, by_key: Mapping[_Key, int], sites: int
    ) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
        """Return the moments of the looks, and what each site held then: counts and bytes."""
        looks = self.traced.looks
        times = np.array([moment.now_ns - self.traced.start_ns for moment, _ in looks], np.int64)
        counts, sizes = np.zeros((len(looks), sites)), np.zeros((len(looks), sites))
        for at, (_, told) in enumerate(looks):
            of = _looked_up(told, by_key)
            rows, of = told[of >= 0], of[of >= 0]
            weight = self.traced.weigh(rows["size"])
            held = (rows["allocs"].astype(float) - rows["frees"]) * weight
            held_bytes = (rows["alloc_bytes"].astype(float) - rows["freed_bytes"]) * weight
            counts[at] = np.bincount(of, held, minlength=sites).clip(min=0)
            sizes[at] = np.bincount(of, held_bytes, minlength=sites).clip(min=0)
        return times, counts, sizes

    def _held(self, numbers: npt.NDArray[np.int64]) -> dict[int, Held]:
        comms = {
            int(row["tgid"]): bytes(row["comm"]).decode("utf-8", "replace")
            for row in self.final.tasks
        }
        by_key = dict(zip(_keys(self.final.sites), numbers.tolist(), strict=True))
        interrupts = {
            int(number)
            for row, number in zip(self.final.sites, numbers, strict=True)
            if (stack := self.stacks.get(int(row["stack"]))) is not None and stack.interrupt
        }
        blocks = self.final.blocks
        weighed = self.traced.weigh(blocks["size"]) * blocks["bytes"]
        sums: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for site, tgid, size in zip(
            _looked_up(blocks, by_key).tolist(),
            blocks["tgid"].tolist(),
            weighed.tolist(),
            strict=True,
        ):
            if site >= 0:
                sums[site][tgid] += size
        return {site: Held(told, comms, site in interrupts) for site, told in sums.items()}

    # ---- what was seen

    def _coverage(self, weights: Floats) -> Coverage:
        traced, moment = self.traced, self.final.moment
        sampled = traced.one_in > 1 or traced.sample_bytes > 1
        troubles = []
        nested = moment.drops.get("nested_event", 0) * _RARE > moment.events
        if nested or any(moment.drops.get(name) for name in _LOSSY):
            troubles.append("incomplete")
        if self.end_ns - traced.start_ns < Options().kernel_s * 1e9:
            troubles.append("brief")
        notes = [*traced.notes, *self.final.notes]
        seen = float((self.final.sites["frees"] * weights).sum())
        frees = sum(moment.frees)
        if traced.one_in:
            seen = float(sum(moment.matched))
        if frees and traced.whole:
            share = percent_text(min(round(seen), frees), frees)
            notes.append(
                f"{share} of the frees were of blocks that were allocated while it traced: the rest"
                " was there before, and is not judged"
            )
        notes += [
            f"left out: {bytes_text(round(size))} of {_SERVES[what]}"
            for what, size in self.left_out.items()
            if size >= 1
        ]
        if not traced.movable:
            notes.append("pages that can move were not traced: page cache, memory of programs")
        if moment.runs:
            notes.append(_cost(moment, max(self.end_ns - traced.start_ns, 1)))
        return Coverage(
            mode="sampled" if sampled else "exact",
            sample_bytes=traced.sample_bytes if sampled and not traced.one_in else None,
            alloc_events=sum(moment.allocs),
            free_events=frees,
            dropped=dict(moment.drops),
            troubles=tuple(troubles),
            min_size=traced.min_size,
            max_size=traced.max_size,
            max_depth=_DEPTH,
            notes=tuple(notes),
        )


def _cost(moment: Moment, duration_ns: int) -> str:
    each = moment.run_ns / moment.runs
    share = each * moment.events / duration_ns
    return (
        f"tracing took about {each:.0f} ns for each of {count_text(moment.events)} events, together"
        f" {percent_text(round(share * 1e4), 10_000)} of one processor (measured on"
        f" {count_text(moment.runs)} of them)"
    )


def _keys(rows: npt.NDArray[np.void]) -> list[_Key]:
    """The parts of rows of sites or blocks that say which site it is."""
    rest = rows["size"].astype(np.uint64) << np.uint64(32)
    rest |= (rows["kind"].astype(np.uint64) << np.uint64(16)) | rows["flags"].astype(np.uint64)
    return list(zip(rows["stack"].tolist(), rows["cache"].tolist(), rest.tolist(), strict=True))


def _looked_up(rows: npt.NDArray[np.void], by_key: Mapping[_Key, int]) -> npt.NDArray[np.int64]:
    return np.array([by_key.get(key, -1) for key in _keys(rows)], np.int64)


def _bucket(size: int) -> str:
    """The line of slabinfo that kmalloc takes objects of this size from."""
    if size >= 1024 and size % 1024 == 0:
        return f"kmalloc-{size // 1024}k"
    return f"kmalloc-{size}" if size else ""


def _kmalloc_lines(name: str, lines: Mapping[str, int]) -> Sequence[str]:
    """`kmalloc-64` also is kmalloc-cg-64, kmalloc-rcl-64 and the like."""
    size = name.rsplit("-", 1)[-1]
    return [
        line
        for line in lines
        if line.startswith(("kmalloc-", "dma-kmalloc-")) and line.rsplit("-", 1)[-1] == size
    ]
