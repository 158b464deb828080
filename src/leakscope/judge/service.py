# SPDX-License-Identifier: Apache-2.0
"""What turns growth into a leak: evidence that the process serves, where a job would have ended.

A job that loads, works and ends grows for as long as it runs, and so does a leak. The course of
one site does not tell them apart; what the rest of the process does, and for how long, does.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.remarks import KERNEL

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.judge.lifetimes import SiteGrowth
    from leakscope.judge.options import Options
    from leakscope.model.recordings import Recording

    Flags = npt.NDArray[np.bool_]

__all__ = ["Service", "serving"]

# Signals by which a supervisor ends what would have gone on. A keyboard's and faults end jobs too.
_STOPPED = {f"killed by SIG{name}" for name in ("KILL", "TERM", "HUP")}


class Service(enum.Enum):
    """Why a growing site belongs to a process that serves, strongest first."""

    LEVEL = "level"  # the rest of the process reached its level, works on, and this grows
    STEADY = "steady"  # at one rate for minutes
    KILLED = "killed"  # it did not end by itself
    UNSEEN = "not examined"  # whether anything still points to the blocks is not known


def serving(
    recording: Recording,
    course: SiteGrowth,
    growing: Flags,
    unseen: Flags,
    slowing: Flags,
    options: Options,
    *,
    idle: bool,
) -> list[Service | None]:
    """Return for each site of `course` what says that it leaks; None where it may be a job's work.

    `growing` are those sites that grow until the end, or until all was given back, `unseen` those
    whose blocks are there and were not examined for what points to them, `slowing` those that
    grow ever more slowly; `idle` says
    that the process did nothing any more when it was ended.
    """
    found: list[Service | None] = [None] * len(course.sites)
    chosen = np.flatnonzero(growing)
    if not len(chosen):
        return found
    end = max(recording.duration_ns, 1)
    works = _working(recording, course.sites[chosen])
    level_ns, level = _level(recording, course.sites[chosen], options) if works.any() else (None, 0)
    # A job builds what it works on at many places at once; what is forgotten is so at few.
    few = len(chosen) <= max(options.few_sites, options.few_share * int(works.sum()))
    kernel = recording.process.exe == KERNEL
    if kernel:  # one descriptor that is forgotten is several allocations; nothing else may grow
        few = len(chosen) <= options.kernel_sites
    few &= not idle  # as after a start, with all tables filled
    killed = recording.process.ended in _STOPPED and end >= options.stopped_s * 1e9
    for i in chosen.tolist():
        if kernel and end < options.kernel_s * 1e9:
            continue
        since = int(recording.sites["first_birth_ns"][course.sites[i]])
        grown = float(course.sizes[i].max(initial=0.0))
        back = 2 * float(recording.sites["live_bytes"][course.sites[i]]) < grown
        least = options.given_back_s if back else options.serving_s
        if level_ns is not None:
            grown -= float(np.interp(level_ns, course.times_ns, course.sizes[i]))
            if (
                few
                and not slowing[i]
                and end - max(level_ns, since) >= least * 1e9
                and grown <= options.level_ratio * level
            ):
                found[i] = Service.LEVEL
                continue
        if not slowing[i] and end - since >= options.steady_s * 1e9:
            found[i] = Service.STEADY
        elif killed and few:
            found[i] = Service.KILLED
        elif unseen[i] and few:
            found[i] = Service.UNSEEN
    return found


def _working(recording: Recording, growing: npt.NDArray[np.int64]) -> Flags:
    """Other sites whose blocks come and go until the end."""
    table = recording.sites
    end = max(recording.duration_ns, 1)
    dead = recording.deaths.sum(axis=1)
    works: Flags = (dead >= 20) & (table["live_count"] * 4 <= dead)
    works &= (table["first_birth_ns"] <= 0.5 * end) & (table["last_birth_ns"] >= 0.9 * end)
    works[growing] = False
    return works


def _level(
    recording: Recording, growing: npt.NDArray[np.int64], options: Options
) -> tuple[int | None, float]:
    """When all other memory had reached its level and what that is; None if it did not."""
    timeline = recording.timeline
    end = max(recording.duration_ns, 1)
    # What was given back at the end stood until then.
    rows = timeline.times_ns <= 0.95 * end
    if np.count_nonzero(rows) < options.min_rows:
        return None, 0.0
    others = np.ones(len(recording.sites), dtype=bool)
    others[growing] = False
    rest = timeline.site_bytes[np.ix_(rows, others)].sum(axis=1, dtype=np.float64)
    times = timeline.times_ns[rows]
    level = float(np.median(rest[len(rest) // 2 :]))
    off = np.flatnonzero(np.abs(rest - level) > options.level * level)
    first = int(off[-1]) + 1 if len(off) else 0
    if first >= len(times) or times[first] > options.level_by * end:
        return None, 0.0
    return int(times[first]), level
