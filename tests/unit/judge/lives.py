# SPDX-License-Identifier: Apache-2.0
"""Recordings made from lists of births and deaths, as a simulation knows them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from leakscope.model.frames import Address, Frame, Module
from leakscope.model.recordings import (
    AGE_BUCKETS,
    BLOCK_DTYPE,
    NODE_DTYPE,
    RANGE_DTYPE,
    SITE_DTYPE,
    Coverage,
    Kind,
    Process,
    Recording,
    Timeline,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

TICK = float(1 << 20)
NEVER = np.inf
ROWS = 40

Lives = tuple[np.ndarray, np.ndarray, np.ndarray]  # births s, deaths s, sizes


def lives(births: Any, lifetimes: Any, size: int | np.ndarray = 100) -> Lives:
    born = np.asarray(births, float)
    return born, born + np.broadcast_to(lifetimes, born.shape), np.broadcast_to(size, born.shape)


def recording(*sites: Lives, seconds: float = 10.0, rows: int = ROWS) -> Recording:
    """One site for each of `sites`, numbered from 1, after `seconds` of running."""
    table = np.zeros(len(sites) + 1, SITE_DTYPE)
    deaths = np.zeros((len(sites) + 1, AGE_BUCKETS), np.uint64)
    times = np.linspace(seconds / rows, seconds * (1 - 0.01 / rows), rows)
    counts = np.zeros((rows, len(table)), np.uint32)
    sizes = np.zeros((rows, len(table)), np.float32)
    blocks = []
    for number, site_lives in enumerate(sites, 1):
        born, died, size = (part[site_lives[0] < seconds] for part in site_lives)
        dead = died < seconds
        ages = ((died - born)[dead] * 1e9 / TICK).astype(np.int64)
        buckets = np.where(ages > 0, np.floor(np.log2(np.maximum(ages, 1))) + 1, 0).astype(int)
        np.add.at(deaths[number], buckets.clip(max=AGE_BUCKETS - 1), 1)
        for row, time in enumerate(times):
            alive = (born <= time) & (died > time)
            counts[row, number], sizes[row, number] = alive.sum(), size[alive].sum()
        site = table[number]
        site["node"], site["kind"], site["depth"] = number, Kind.MALLOC, 1
        site["allocs"], site["alloc_bytes"] = len(born), size.sum()
        site["frees"], site["freed_bytes"] = dead.sum(), size[dead].sum()
        site["live_count"], site["live_bytes"] = (~dead).sum(), size[~dead].sum()
        site["peak_bytes"] = max(sizes[:, number].max(), size[~dead].sum())
        if len(born):
            site["first_birth_ns"], site["last_birth_ns"] = born.min() * 1e9, born.max() * 1e9
        part = np.zeros((~dead).sum(), BLOCK_DTYPE)
        part["site"], part["size"] = number, size[~dead]
        part["birth_ns"] = born[~dead] * 1e9
        blocks.append(part)
    all_blocks = np.concatenate([np.zeros(0, BLOCK_DTYPE), *blocks])
    all_blocks["address"] = np.arange(len(all_blocks)) * 64 + 0x10000
    nodes = np.zeros(len(table), NODE_DTYPE)
    nodes["module"], nodes["offset"] = 1, np.arange(len(table)) * 16
    return Recording(
        process=Process(pid=7, exe="/opt/app", ended="exited", exit_status=0),
        modules=(Module("/opt/app", "ab" * 20, 0x1000, 0x9000, 0x1000),),
        nodes=nodes,
        sites=table,
        blocks=all_blocks,
        ranges=np.zeros(0, RANGE_DTYPE),
        deaths=deaths,
        timeline=Timeline(
            times_ns=(times * 1e9).astype(np.int64),
            live_bytes=sizes.sum(axis=1).astype(np.int64),
            live_counts=counts.sum(axis=1).astype(np.int64),
            site_bytes=sizes,
            site_counts=counts,
        ),
        coverage=Coverage(),
        tick_ns=TICK,
        duration_ns=int(seconds * 1e9),
    )


def stack(*names: str, module: str = "/opt/app", **kw: Any) -> tuple[Frame, ...]:
    return tuple(
        replace(
            Frame(
                Address(0, 16 * i), module_path=module, function=name, file="/src/a.c", line=i + 1
            ),
            **kw,
        )
        for i, name in enumerate(names)
    )


def frames_of(site: int) -> tuple[Frame, ...]:
    return stack(f"f{site}", "main")


def cache(
    generator: np.random.Generator, slots: int, births: Sequence[float], *, fifo: bool = False
) -> Lives:
    """A cache that replaces a random entry, or the oldest, when it is full."""
    holds: list[int] = []
    born = np.sort(np.asarray(births, float))
    died = np.full(len(born), NEVER)
    for i, time in enumerate(born):
        if len(holds) == slots:
            at = 0 if fifo else int(generator.integers(slots))
            died[holds.pop(at)] = time
        holds.append(i)
    return born, died, np.full(len(born), 100)
