# SPDX-License-Identifier: Apache-2.0
"""Simulated processes whose truth is known: jobs, healthy services, and services that leak.

Each family draws one process: the lives of the blocks of its sites, and which sites leak. Times are
seconds, sizes bytes. The held-out set draws from wider ranges than the one that was tuned on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from leakscope.model.reachability import Reachability  # noqa: E402
from leakscope.model.recordings import Recording  # noqa: E402
from unit.judge.lives import NEVER, Lives, cache, lives, recording  # noqa: E402

__all__ = ["FAMILIES", "Family", "Truth"]

Dice = np.random.Generator


@dataclass
class Draw:
    """What a family draws: the sites of one process, and how it went."""

    seconds: float
    sites: list[Lives] = field(default_factory=list)
    leaking: set[int] = field(default_factory=set)
    ended: str = "exited"

    def add(self, site: Lives, *, leaks: bool = False) -> None:
        """Add one site, numbered from 1."""
        self.sites.append(site)
        if leaks:
            self.leaking.add(len(self.sites))


@dataclass(frozen=True)
class Truth:
    """A recording, and the numbers of the sites that leak in it."""

    recording: Recording
    leaking: frozenset[int]


@dataclass(frozen=True)
class Family:
    """A kind of process."""

    name: str
    leaks: bool
    fill: Callable[[Dice, bool], Draw]

    def draw(self, index: int, *, held_out: bool) -> Truth:
        """Return the process number `index` of this family."""
        dice = np.random.default_rng([7 if held_out else 3, _seed(self.name), index])
        made = self.fill(dice, held_out)
        result = recording(*made.sites, seconds=made.seconds, rows=int(dice.integers(33, 64)))
        process = replace(result.process, ended=made.ended, exit_status=None)
        # A process that is killed at once is not examined, and now and then another is not.
        if made.ended != "killed by SIGKILL" and dice.random() < 0.9:
            kinds = np.full(len(result.blocks), Reachability.REACHABLE, np.uint8)
            result = replace(result, reachability=kinds)
        return Truth(replace(result, process=process), frozenset(made.leaking))


def _seed(name: str) -> int:
    return int.from_bytes(name.encode()[:8].ljust(8), "little")


def _between(dice: Dice, low: float, high: float) -> float:
    """A number between two of different magnitude."""
    return float(np.exp(dice.uniform(np.log(low), np.log(high))))


def _when(dice: Dice, count: int, start: float, end: float) -> np.ndarray:
    """Times at a steady rate, or in bursts with pauses between them."""
    at = dice.uniform(start, end, count)
    if dice.random() < 0.3:
        pause = (end - start) / dice.integers(20, 60)
        at -= (at - start) % pause * dice.uniform(0.3, 0.9)
    return np.sort(at)


def _size(dice: Dice) -> int:
    return int(_between(dice, 24, 4096))


def _started(dice: Dice, made: Draw) -> None:
    """What every program has: what its start keeps, and short-lived blocks of its work."""
    for _ in range(int(dice.integers(1, 4))):
        count = int(dice.integers(1, 100))
        made.add(
            lives(dice.uniform(0, 0.03 * made.seconds, count), NEVER, int(_between(dice, 24, 512)))
        )
    count = int(dice.integers(500, 2000))
    age = dice.exponential(_between(dice, 1e-4, 1e-2), count)
    made.add(lives(_when(dice, count, 0.0, made.seconds), age, _size(dice)))


def _served(dice: Dice, made: Draw) -> None:
    """A service besides: tables of a size that work needs, requests that live for a while."""
    _started(dice, made)
    made.add(
        lives(dice.uniform(0, 0.05 * made.seconds, 300), NEVER, int(_between(dice, 300, 30_000)))
    )
    count = int(dice.integers(1000, 3000))
    age = dice.exponential(made.seconds * _between(dice, 1e-4, 1e-2), count)
    made.add(lives(_when(dice, count, 0.0, made.seconds), age, _size(dice)))


def _job(dice: Dice, held: bool) -> Draw:
    return Draw(_between(dice, 0.25, 1800.0 if held else 900.0))


def _service(dice: Dice, held: bool) -> Draw:
    return Draw(_between(dice, 4.0 if held else 6.0, 40_000.0))


# -- jobs: they load, work and end ----------------------------------------------------------------


def load(dice: Dice, held: bool) -> Draw:
    """Reads its input into memory for as long as it runs."""
    made = _job(dice, held)
    _started(dice, made)
    for _ in range(int(dice.integers(1, 4))):
        births = _when(
            dice, int(_between(dice, 50, 4000)), 0.0, made.seconds * dice.uniform(0.9, 1.0)
        )
        freed = 0.995 * made.seconds if dice.random() < 0.5 else NEVER
        made.add((births, np.full(len(births), freed), np.full(len(births), _size(dice))))
    return made


def results(dice: Dice, held: bool) -> Draw:
    """Works through its input and keeps a few results of each piece."""
    made = _job(dice, held)
    _started(dice, made)
    count = int(dice.integers(1000, 4000))
    age = np.where(
        dice.random(count) < dice.uniform(0.01, 0.3), NEVER, dice.exponential(1e-3, count)
    )
    made.add(lives(_when(dice, count, 0.0, made.seconds), age, _size(dice)))
    return made


def phases(dice: Dice, held: bool) -> Draw:
    """Loads, then works on what it has."""
    made = _job(dice, held)
    _started(dice, made)
    until = made.seconds * dice.uniform(0.1, 0.8)
    births = _when(dice, int(_between(dice, 50, 3000)), 0.0, until)
    freed = 0.995 * made.seconds if dice.random() < 0.5 else NEVER
    made.add((births, np.full(len(births), freed), np.full(len(births), _size(dice))))
    late = _when(dice, 400, until, made.seconds)
    made.add(lives(late, dice.exponential(0.02 * made.seconds, 400), _size(dice)))
    return made


def array(dice: Dice, held: bool) -> Draw:
    """Appends to one array that is moved as it grows."""
    made = _job(dice, held)
    _started(dice, made)
    births = _when(dice, int(_between(dice, 100, 2000)), 0.0, made.seconds)
    steps = np.arange(1, len(births) + 1)
    made.add((births, np.append(births[1:], NEVER), steps * _size(dice)))
    return made


def killed_job(dice: Dice, held: bool) -> Draw:
    """A job that somebody ended before it was done."""
    made = (load if dice.random() < 0.7 else phases)(dice, held)
    made.ended = str(dice.choice(["killed by SIGKILL", "killed by SIGINT", "killed by SIGTERM"]))
    return made


# -- healthy services -----------------------------------------------------------------------------


def steady(dice: Dice, held: bool) -> Draw:
    """Tables, requests, sessions that end."""
    made = _service(dice, held)
    _served(dice, made)
    age = dice.exponential(made.seconds * dice.uniform(0.02, 0.15), 1500)
    made.add(lives(_when(dice, 1500, 0.0, made.seconds), age, _size(dice)))
    return made


def full_cache(dice: Dice, held: bool) -> Draw:
    """A cache that fills to its bound, somewhere in the run or beyond it, and replaces then."""
    made = _service(dice, held)
    _served(dice, made)
    births = _when(dice, 2000, 0.0, made.seconds)
    slots = int(2000 * dice.uniform(0.05, 1.3 if held else 1.1))
    made.add(cache(dice, slots, births.tolist(), fifo=bool(dice.random() < 0.5)))
    return made


def interned(dice: Dice, held: bool) -> Draw:
    """Names of a limited set, met at a steady rate."""
    made = _service(dice, held)
    _served(dice, made)
    keys = dice.integers(0, int(_between(dice, 100, 1500)), 2500)
    if dice.random() < 0.5:
        keys = np.minimum(dice.zipf(1.3, 2500), 100_000)
    _, first = np.unique(keys, return_index=True)
    made.add(lives(np.sort(_when(dice, 2500, 0.0, made.seconds)[first]), NEVER, _size(dice)))
    return made


def flushed(dice: Dice, held: bool) -> Draw:
    """Collects, and gives all back at once, again and again."""
    made = _service(dice, held)
    _served(dice, made)
    births = _when(dice, 2000, 0.0, made.seconds)
    period = made.seconds / dice.uniform(1.5 if held else 2.5, 30.0)
    ends = (np.floor(births / period) + 1) * period
    made.add((births, ends, np.full(2000, _size(dice))))
    return made


def load_grows(dice: Dice, held: bool) -> Draw:
    """More and more clients, each of which leaves after a while."""
    made = _service(dice, held)
    _served(dice, made)
    births = made.seconds * dice.uniform(0, 1, 2500) ** dice.uniform(0.4, 0.8)
    age = dice.exponential(made.seconds * dice.uniform(0.02, 0.2), 2500)
    made.add(lives(np.sort(births), age, _size(dice)))
    return made


def sessions(dice: Dice, held: bool) -> Draw:
    """Sessions that end by a clock, some longer than the run."""
    made = _service(dice, held)
    _served(dice, made)
    age = made.seconds * _between(dice, 0.1, 2.0 if held else 1.2)
    made.add(lives(_when(dice, 2000, 0.0, made.seconds), age, _size(dice)))
    return made


def loaded(dice: Dice, held: bool) -> Draw:
    """Fills its tables for a while, then serves; gives them back when it ends, or is killed."""
    made = _service(dice, held)
    _served(dice, made)
    births = _when(dice, 500, 0.0, made.seconds * dice.uniform(0.02, 0.6))
    freed = 0.995 * made.seconds if dice.random() < 0.5 else NEVER
    made.add((births, np.full(500, freed), np.full(500, _size(dice))))
    if freed is NEVER and dice.random() < 0.5:
        made.ended = "killed by SIGTERM"
    return made


# -- services that leak ---------------------------------------------------------------------------


def recurrent(dice: Dice, held: bool) -> Draw:
    """Each request leaves a block in a list that nobody reads."""
    made = _service(dice, held)
    _served(dice, made)
    start = made.seconds * (dice.uniform(0.0, 0.4) if dice.random() < 0.3 else 0.0)
    births = _when(dice, int(_between(dice, 40, 2500)), start, made.seconds)
    made.add(lives(births, NEVER, _size(dice)), leaks=True)
    return made


def occasional(dice: Dice, held: bool) -> Draw:
    """A rare path forgets its block."""
    made = _service(dice, held)
    _served(dice, made)
    age = np.where(dice.random(3000) < dice.uniform(0.01, 0.1), NEVER, dice.exponential(2e-3, 3000))
    made.add(lives(_when(dice, 3000, 0.0, made.seconds), age, _size(dice)), leaks=True)
    return made


def at_exit(dice: Dice, held: bool) -> Draw:
    """A history that grows until the end frees it."""
    made = _service(dice, held)
    _served(dice, made)
    births = _when(dice, int(_between(dice, 60, 2000)), 0.0, 0.99 * made.seconds)
    until = np.full(len(births), 0.995 * made.seconds)
    made.add((births, until, np.full(len(births), _size(dice))), leaks=True)
    return made


def one_block(dice: Dice, held: bool) -> Draw:
    """One array that each request makes larger."""
    made = _service(dice, held)
    _served(dice, made)
    births = _when(dice, int(_between(dice, 100, 2000)), 0.0, made.seconds)
    steps = np.arange(1, len(births) + 1)
    made.add(
        (births, np.append(births[1:], NEVER), steps * int(_between(dice, 24, 512))), leaks=True
    )
    return made


def killed_leak(dice: Dice, held: bool) -> Draw:
    """A service that leaks and is ended by a signal."""
    made = (recurrent if dice.random() < 0.7 else occasional)(dice, held)
    made.ended = str(dice.choice(["killed by SIGKILL", "killed by SIGTERM"]))
    return made


def killed_alone(dice: Dice, held: bool) -> Draw:
    """A program that leaks, does little else, and is killed."""
    made = alone(dice, held)
    made.seconds = _between(dice, 0.5, 600.0)
    births = _when(dice, int(_between(dice, 40, 2000)), 0.0, made.seconds)
    made.sites = [lives(births, NEVER, _size(dice))]
    made.ended = "killed by SIGKILL"
    return made


def alone(dice: Dice, held: bool) -> Draw:
    """A leak and hardly anything else."""
    made = _service(dice, held)
    births = _when(dice, int(_between(dice, 40, 2000)), 0.0, made.seconds)
    made.add(lives(births, NEVER, _size(dice)), leaks=True)
    return made


FAMILIES = tuple(
    Family(fill.__name__.replace("_", " "), leaks, fill)
    for leaks, fills in (
        (False, (load, results, phases, array, killed_job)),
        (False, (steady, full_cache, interned, flushed, load_grows, sessions, loaded)),
        (True, (recurrent, occasional, at_exit, one_block, killed_leak, killed_alone, alone)),
    )
    for fill in fills
)
