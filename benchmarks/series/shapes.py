# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG001, ARG005 - every shape has the same three parameters
"""Simulators of truth: the courses memory, descriptors and slabs take, with the answer known.

Each shape is a function (t in hours, rng) -> values around `LEVEL`; noise is added apart. Shapes of the
held-out set use other parameters (periods, time constants, heights) than those of the training set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
LEVEL = 400.0 * (1 << 20)


@dataclass(frozen=True)
class Shape:
    """A named course: `draw(t, rng, held_out)` gives values in units of the level (1.0 = the level)."""

    name: str
    leaks: bool
    draw: Callable[[Array, np.random.Generator, bool], Array]
    hours: float = 6.0
    noise: tuple[float, float] = (
        0.01,
        0.5,
    )  # standard deviation of the level, AR(1) coefficient at 10 s
    level: float = LEVEL
    unit: str = "bytes"
    step_s: float = 10.0
    age_h: float = 0.0  # of the process when the watch begins
    ramp: bool = False  # a straight ramp until its bound or first fall: until then nothing tells it from a leak


def noise(n: int, sigma: float, phi: float, rng: np.random.Generator) -> Array:
    """Stationary AR(1) noise, made by convolution (the kernel is cut where it is below 1e-6)."""
    white = rng.standard_normal(n + 4000)
    if phi <= 0:
        return sigma * white[-n:]
    length = min(4000, int(np.ceil(np.log(1e-6) / np.log(phi))))
    return (
        sigma
        * np.sqrt(1 - phi * phi)
        * np.convolve(white, phi ** np.arange(length), "full")[: n + 4000][-n:]
    )


def leak(rate: float) -> Callable[[Array, np.random.Generator, bool], Array]:
    return lambda t, rng, held: 1.0 + rate * t


def warm_up(t: Array, rng: np.random.Generator, held: bool) -> Array:
    tau = rng.uniform(0.1, 0.6) if held else rng.uniform(0.15, 0.5)
    return 0.5 + 0.5 * (1 - np.exp(-t / tau))


def cache(t: Array, rng: np.random.Generator, held: bool) -> Array:
    end = rng.uniform(1.0, 3.5) if held else rng.uniform(1.5, 3.0)
    return 0.4 + 0.6 * np.minimum(t / end, 1.0)


def gc(rate: float) -> Callable[[Array, np.random.Generator, bool], Array]:
    def draw(t: Array, rng: np.random.Generator, held: bool) -> Array:
        period = rng.uniform(0.05, 0.5) if held else rng.uniform(0.1, 0.4)
        return 1.0 + rate * t + rng.uniform(0.2, 0.6) * ((t / period + rng.uniform()) % 1.0)

    return draw


def season(t: Array, rng: np.random.Generator, held: bool) -> Array:
    sharp = rng.uniform(0.8, 1.4) if held else 1.0
    wave = np.sin(2 * np.pi * (t / 24 + rng.uniform()))
    return 1.0 + rng.uniform(0.05, 0.3) * np.sign(wave) * np.abs(wave) ** sharp


def step(t: Array, rng: np.random.Generator, held: bool) -> Array:
    return 1.0 + rng.uniform(0.1, 0.6) * (t > rng.uniform(0.15, 0.85) * t[-1])


def pools(t: Array, rng: np.random.Generator, held: bool) -> Array:
    """Workers forked and reaped: a level that hops among a few integers."""
    hops = rng.integers(2, 9 if held else 7, size=int(t[-1] * 12) + 2) * 0.05
    return 0.8 + hops[(t * 12).astype(int)]


def fragmentation(t: Array, rng: np.random.Generator, held: bool) -> Array:
    """Grows by ever rarer steps to a plateau."""
    tau = rng.uniform(0.3, 0.9) if held else rng.uniform(0.4, 0.8)
    return 0.7 + 0.3 * np.floor(20 * (1 - np.exp(-t / tau))) / 20


def logs(t: Array, rng: np.random.Generator, held: bool) -> Array:
    return 0.1 + 0.9 * ((t / rng.uniform(0.5, 1.5) + rng.uniform()) % 1.0)


def flat(t: Array, rng: np.random.Generator, held: bool) -> Array:
    return np.ones_like(t)


def late_leak(t: Array, rng: np.random.Generator, held: bool) -> Array:
    return warm_up(t, rng, held) + 0.03 * t


def walk(t: Array, rng: np.random.Generator, held: bool) -> Array:
    """A random walk of 0.1 % a sample: no direction, and no memory of a level either."""
    return 1.0 + np.cumsum(0.001 * rng.standard_normal(len(t)))


def bursts(t: Array, rng: np.random.Generator, held: bool) -> Array:
    """Leaks 6 % an hour for some minutes, rests for about as long, and so on: 3 % in all."""
    period = rng.uniform(0.2, 0.8) if held else rng.uniform(0.3, 0.7)
    phase = (t / period + rng.uniform()) % 1.0
    return 1.0 + 0.06 * np.cumsum(phase < 0.5) * (t[1] - t[0])


def season_leak(t: Array, rng: np.random.Generator, held: bool) -> Array:
    return season(t, rng, held) + 0.1 * t / 24


def step_leak(t: Array, rng: np.random.Generator, held: bool) -> Array:
    """A deployment in the first half: the level jumps, and from then on it leaks 5 % an hour."""
    at = rng.uniform(0.1, 0.5) * t[-1]
    return 1.0 + rng.uniform(0.1, 0.6) * (t > at) + 0.05 * np.maximum(0.0, t - at)


def batch(shortest: float, longest: float) -> Callable[[Array, np.random.Generator, bool], Array]:
    """A job that loads its input at an even pace, for so many minutes, and then works on it."""

    def draw(t: Array, rng: np.random.Generator, held: bool) -> Array:
        wider = 1.1 if held else 1.0
        end = rng.uniform(shortest / wider, longest * wider) / 60
        return 0.05 + 0.95 * np.minimum(t / end, 1.0)

    return draw


def batch_in_a_row(t: Array, rng: np.random.Generator, held: bool) -> Array:
    """Job after job in one process: each loads, works on and gives back what it loaded."""
    y = np.full_like(t, 0.2)
    at = rng.uniform(0.0, 0.2)
    while at < t[-1]:
        load, work = rng.uniform(0.03, 0.3 if held else 0.25), rng.uniform(0.02, 0.3)
        during = (t >= at) & (t < at + load + work)
        y[during] += rng.uniform(0.4, 1.6) * np.minimum((t[during] - at) / load, 1.0)
        at += load + work + rng.uniform(0.02, 0.2)
    return y


def batch_in_a_server(t: Array, rng: np.random.Generator, held: bool) -> Array:
    """A server that rests, and once loads a data set within 2 to 12 minutes, to keep it."""
    at = rng.uniform(0.2, 0.8 if held else 0.7) * t[-1]
    return 1.0 + rng.uniform(0.3, 3.0) * np.clip((t - at) / (rng.uniform(2, 12) / 60), 0.0, 1.0)


def batch_by_files(t: Array, rng: np.random.Generator, held: bool) -> Array:
    """Reads 4 to 12 files with work between them, and keeps what it read."""
    y = np.full_like(t, 0.1)
    at = 0.0
    for _ in range(rng.integers(4, 14 if held else 13)):
        load = rng.uniform(0.02, 0.08)
        y += rng.uniform(0.05, 0.2) * np.clip((t - at) / load, 0.0, 1.0)
        at += load + rng.uniform(0.02, 0.3)
    return y


# New shapes go to the end: a shape's place is part of its seed.
SHAPES: tuple[Shape, ...] = (
    Shape("leak 1 %/h, white 5 %", True, leak(0.01), noise=(0.05, 0.0)),
    Shape("leak 1 %/h, AR(1) 0.5, 5 %", True, leak(0.01), noise=(0.05, 0.5)),
    Shape("leak 1 %/h, AR(1) 0.8, 5 %", True, leak(0.01), noise=(0.05, 0.8)),
    Shape("leak 1 %/h, AR(1) 0.9, 5 %", True, leak(0.01), noise=(0.05, 0.9)),
    Shape("leak 3 %/h, AR(1) 0.8, 5 %", True, leak(0.03), noise=(0.05, 0.8)),
    Shape("leak 10 %/h, white 5 %", True, leak(0.10), noise=(0.05, 0.0)),
    Shape("leak 10 %/h, AR(1) 0.5, 5 %", True, leak(0.10), noise=(0.05, 0.5)),
    Shape("leak 10 %/h, AR(1) 0.8, 5 %", True, leak(0.10), noise=(0.05, 0.8)),
    Shape("leak 3 %/h below a GC sawtooth", True, gc(0.03)),
    Shape("leak 3 %/h after a warm-up", True, late_leak),
    Shape(
        "fd leak, 12 an hour",
        True,
        lambda t, r, h: 1 + np.floor(t * 12) / 200,
        level=200.0,
        unit="count",
    ),
    Shape("slab growth 2 %/h", True, leak(0.02)),
    Shape("flat, white 5 %", False, flat, noise=(0.05, 0.0)),
    Shape("flat, AR(1) 0.8, 5 %", False, flat, noise=(0.05, 0.8)),
    Shape("flat, AR(1) 0.9, 5 %", False, flat, noise=(0.05, 0.9)),
    Shape("warm-up then flat", False, warm_up),
    Shape("cache filling to its bound", False, cache, ramp=True),
    Shape("GC sawtooth", False, gc(0.0)),
    Shape("step", False, step),
    Shape("fork pools", False, pools),
    Shape("fragmentation plateau", False, fragmentation),
    Shape("log-rotated tmpfs", False, logs, ramp=True),
    Shape("daily season, 3 days", False, season, hours=72.0, step_s=60.0),
    Shape("leak 10 %/h, process 3 h old", True, leak(0.10), age_h=3.0),
    Shape("leak 10 %/h, white 5 %, process 3 h old", True, leak(0.10), noise=(0.05, 0.0), age_h=3),
    Shape("leak 30 %/h, process 3 h old", True, leak(0.30), age_h=3.0),
    Shape("leak 3 %/h in bursts", True, bursts),
    Shape("leak 10 %/day below a season, 5 days", True, season_leak, hours=120.0, step_s=60.0),
    Shape("flat, process 3 h old", False, flat, age_h=3.0),
    Shape("GC sawtooth, process 3 h old", False, gc(0.0), age_h=3.0),
    Shape("fork pools, process 3 h old", False, pools, age_h=3.0),
    Shape("random walk, process 3 h old", False, walk, noise=(0.0, 0.0), age_h=3.0),
    Shape("leak 5 %/h since a step", True, step_leak),
    Shape("leak 10 %/min", True, leak(6.0), hours=2.0),
    Shape("leak 10 %/min, white 3 %, process 3 h old", True, leak(6.0), 2.0, (0.03, 0.0), age_h=3),
    Shape("batch job that loads 2 to 35 min", False, batch(2, 35)),
    Shape("batch job that loads 45 to 100 min", False, batch(45, 100), ramp=True),
    Shape("batch jobs in a row", False, batch_in_a_row),
    Shape("a server loads a data set, process 3 h old", False, batch_in_a_server, age_h=3.0),
    Shape("batch job that reads files", False, batch_by_files),
)
