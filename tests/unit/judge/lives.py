# SPDX-License-Identifier: Apache-2.0
"""Recordings made from lists of births and deaths, as a simulation knows them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.columns import Column
from leakscope.model.frames import Address, Frame, Module
from leakscope.model.recordings import (
    BLOCK_DTYPE,
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
    process = Process(pid=7, exe="/opt/app", ended="exited", exit_status=0)
    build = RecordingBuilder(process, tick_ns=TICK, duration_ns=int(seconds * 1e9))
    module = build.module(Module("/opt/app", "ab" * 20, 0x1000, 0x9000, 0x1000))
    build.fills(*Column)
    times = np.linspace(seconds / rows, seconds * (1 - 0.01 / rows), rows)
    counts = np.zeros((rows, len(sites) + 1), np.uint32)
    sizes = np.zeros((rows, len(sites) + 1), np.float32)
    for number, site_lives in enumerate(sites, 1):
        born, died, size = (part[site_lives[0] < seconds] for part in site_lives)
        dead = died < seconds
        for row, time in enumerate(times):
            alive = (born <= time) & (died > time)
            counts[row, number], sizes[row, number] = alive.sum(), size[alive].sum()
        site = build.site(
            build.stack([BuiltFrame(Address(module, 16 * number))]),
            "malloc",
            allocs=len(born),
            alloc_bytes=int(size.sum()),
            frees=int(dead.sum()),
            freed_bytes=int(size[dead].sum()),
            peak_bytes=int(max(sizes[:, number].max(), size[~dead].sum())),
            first_birth_ns=int(born.min(initial=np.inf if len(born) else 0) * 1e9),
            last_birth_ns=int(born.max(initial=0) * 1e9),
        )
        build.died(site, (died - born)[dead] * 1e9)
        part = np.zeros((~dead).sum(), BLOCK_DTYPE)
        part["address"] = np.arange(len(part)) * 64 + 0x10000 * (number << 16)
        part["site"], part["size"] = site, size[~dead]
        part["birth_ns"] = born[~dead] * 1e9
        build.blocks(part)
    build.timeline(
        Timeline(
            times_ns=(times * 1e9).astype(np.int64),
            live_bytes=sizes.sum(axis=1).astype(np.int64),
            live_counts=counts.sum(axis=1).astype(np.int64),
            site_bytes=sizes,
            site_counts=counts,
        )
    )
    return build.build()


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
