# SPDX-License-Identifier: Apache-2.0
"""What all call stacks of a recording allocated and hold, as columns: for pages with flame graphs.

No loop here runs over blocks or sites, only over the nodes of the stacks, each once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.answers import FrameText, Lives, Profile
from leakscope.model.columns import Column
from leakscope.model.findings import Verdict
from leakscope.model.reachability import Reachability
from leakscope.model.recordings import AGE_BUCKETS
from leakscope.report.answers.places import place_of
from leakscope.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from leakscope.model.findings import Finding, Findings
    from leakscope.model.frames import Frame
    from leakscope.model.recordings import Recording

    Ints = npt.NDArray[np.int64]

__all__ = ["lives_of", "profile_of"]

_COURSES = 2048  # sites whose course over time is kept, heaviest first
_WINDOWS = 32  # parts of the run in which the living are counted by birth
_LOOKED_UP = 10_000  # addresses that no finding needs
_SLAB = 1 << 20  # blocks at once

_MEASURES = {
    "live_bytes": Column.LIVE_BYTES,
    "live_count": Column.LIVE_COUNT,
    "peak_bytes": Column.PEAK_BYTES,
    "alloc_bytes": Column.ALLOC_BYTES,
    "allocs": Column.ALLOCS,
    "frees": Column.FREES,
}


def profile_of(
    recording: Recording,
    findings: Findings,
    frames_of: Callable[[Ints, int], dict[int, tuple[Frame, ...]]],
) -> Profile | None:
    """Return the profile; None where the recording has no call stacks.

    `frames_of` returns the frames of nodes, innermost first: several where code was inlined. At
    most so many that nobody asked for before are looked up; the rest are known by their module.
    """
    sites = recording.sites
    if len(sites) < 2 or len(recording.nodes) < 2:
        return None
    places, parents, place, last = _tree(recording, frames_of)
    verdicts = np.zeros(len(sites), np.uint8)
    names = ("", *(str(each) for each in Verdict), "known")
    for finding in findings.findings:
        if finding.site is not None:
            word = str(finding.verdict) if finding.known is None else "known"
            verdicts[finding.site] = names.index(word)
    measures = {
        name: sites[column.site_field].astype(np.float64)
        for name, column in _MEASURES.items()
        if recording.knows(column) and column.site_field is not None
    }
    measures |= _lost(recording)
    # What neither holds nor allocated anything is no row.
    used = np.zeros(len(sites), bool)
    for each in measures.values():
        used |= each > 0
    kept = np.flatnonzero(used)
    course_of, courses = _courses(recording, kept)
    timeline = recording.timeline
    return Profile(
        places=places,
        parents=parents,
        place_of=place,
        numbers=kept.astype(np.int32),
        node_of=last[sites["node"][kept].astype(np.int64).clip(0, len(last) - 1)].astype(np.int32),
        kind_of=sites["kind"][kept],
        kinds=tuple(printable(kind) for kind in recording.kinds),
        verdicts=verdicts[kept],
        verdict_names=names,
        measures={name: each[kept] for name, each in measures.items()},
        times_ns=timeline.times_ns.astype(np.int64),
        live_bytes=timeline.live_bytes.astype(np.float64),
        courses=courses,
        course_of=course_of,
        resident_bytes=None
        if timeline.rss_bytes is None
        else timeline.rss_bytes.astype(np.float64),
    )


def _tree(
    recording: Recording, frames_of: Callable[[Ints, int], dict[int, tuple[Frame, ...]]]
) -> tuple[tuple[FrameText, ...], npt.NDArray[np.int32], npt.NDArray[np.int32], Ints]:
    """Return the places, the parent and place of each node, and where each of the recording's ended.

    A node of the recording is one node for each function that was inlined at its address.
    """
    nodes = recording.nodes
    wanted, weights = _wanted(recording)
    frames = frames_of(wanted[np.argsort(-weights, kind="stable")], _LOOKED_UP)
    modules = _unnamed(recording, places := [FrameText("(all)")])
    known: dict[FrameText, int] = {}
    seen: dict[int, int] = {}  # by identity of a frame: symbolisers share them
    parents: list[int] = [0]
    place: list[int] = [0]
    last = np.zeros(len(nodes), np.int64)
    above: list[int] = nodes["parent"].tolist()
    module_of: list[int] = nodes["module"].astype(np.int64).clip(0, len(modules) - 1).tolist()
    for node in wanted.tolist():
        parent = int(last[above[node]]) if above[node] < node else 0
        found = frames.get(node)
        if found is None:
            number = modules[module_of[node]]
            if place[parent] != number:  # one for all of them in a row
                parents.append(parent)
                place.append(number)
                parent = len(parents) - 1
            last[node] = parent
            continue
        for frame in reversed(found):
            known_as = seen.get(id(frame))
            if known_as is None:
                made = place_of(frame)
                known_as = known.setdefault(made, len(places))
                if known_as == len(places):
                    places.append(made)
                seen[id(frame)] = known_as
            number = known_as
            parents.append(parent)
            place.append(number)
            parent = len(parents) - 1
        last[node] = parent
    return tuple(places), np.array(parents, np.int32), np.array(place, np.int32), last


def _wanted(recording: Recording) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Return the nodes on the stack of any site, callers first, and the most bytes of one site below."""
    sites = recording.sites
    above: list[int] = recording.nodes["parent"].tolist()
    weight = [-1.0] * len(above)
    size = np.maximum(sites["alloc_bytes"], sites["live_bytes"]).astype(np.float64).tolist()
    for node, held in zip(sites["node"].tolist(), size, strict=True):
        if node < len(weight):
            weight[node] = max(weight[node], held)
    for node in range(len(above) - 1, 0, -1):
        parent = above[node]
        if weight[node] > weight[parent] and parent < node:  # anything else is damage
            weight[parent] = weight[node]
    found = np.array(weight)
    found[0] = -1.0
    wanted = np.flatnonzero(found >= 0)
    return wanted, found[wanted]


def _unnamed(recording: Recording, places: list[FrameText]) -> list[int]:
    """Append a place for the code of each module, and return their numbers; 0 is for no module."""
    numbers = []
    for path in ("?", *(module.path for module in recording.modules)):
        name = printable(path)
        numbers.append(len(places))
        places.append(
            FrameText(f"({name.rsplit('/', 1)[-1]}, not looked up)", None, None, name, own=False)
        )
    return numbers


def _lost(recording: Recording) -> dict[str, npt.NDArray[np.float64]]:
    """Return count and bytes of the lost blocks of each site, where somebody looked for pointers."""
    if recording.site_reach is not None:
        each = recording.site_reach
        return {
            f"lost_{what}": (each[f"definite_{what}"] + each[f"indirect_{what}"]).astype(np.float64)
            for what in ("bytes", "count")
        }
    reach = recording.reachability
    if reach is None or len(reach) != len(recording.blocks):
        return {}
    lost = (reach == Reachability.DEFINITELY_LOST) | (reach == Reachability.INDIRECTLY_LOST)
    blocks = recording.blocks[lost]
    of, sites = blocks["site"].astype(np.int64), len(recording.sites)
    return {
        "lost_bytes": np.bincount(of, blocks["size"], minlength=sites).astype(np.float64),
        "lost_count": np.bincount(of, minlength=sites).astype(np.float64),
    }


def _courses(
    recording: Recording, kept: Ints
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return the rows of the profile that have a course, and their live bytes over time."""
    table = recording.timeline.site_bytes
    if not len(table) or table.shape[1] != len(recording.sites):
        return np.zeros(0, np.int32), np.zeros((0, 0), np.float32)
    heaviest = table.max(axis=0)[kept]
    chosen = np.argsort(-heaviest, kind="stable")[:_COURSES]
    chosen = chosen[heaviest[chosen] > 0]
    return chosen.astype(np.int32), np.ascontiguousarray(table[:, kept[chosen]].T, np.float32)


def lives_of(recording: Recording, findings: Sequence[Finding]) -> dict[int, Lives]:
    """Return births and ages of the blocks of each finding's site, by site."""
    numbers = [finding.site for finding in findings if finding.site is not None]
    if not numbers or not recording.knows(Column.BLOCKS) or not recording.duration_ns:
        return {}
    row_of = np.full(len(recording.sites), -1, np.int64)
    row_of[numbers] = np.arange(len(numbers))
    end, tick = recording.duration_ns, recording.tick_ns
    births = np.zeros((len(numbers), _WINDOWS), np.int64)
    ages = np.zeros((len(numbers), AGE_BUCKETS), np.int64)
    edges = tick * 2.0 ** np.arange(AGE_BUCKETS)
    for table in (recording.blocks, recording.ranges):
        for start in range(0, len(table), _SLAB):
            part = table[start : start + _SLAB]
            row = row_of[part["site"]]
            mine = row >= 0
            row = row[mine]
            birth = part["birth_ns"][mine].astype(np.int64).clip(0, end)
            window = (birth * (_WINDOWS / (end + 1))).astype(np.int64)
            births += _counted(row, window, births.shape)
            bucket = np.searchsorted(edges, end - birth, side="right").clip(max=AGE_BUCKETS - 1)
            ages += _counted(row, bucket, ages.shape)
    dead = recording.deaths[numbers].astype(np.int64)
    below = np.cumsum(dead, axis=1)
    bucket99 = (below < (0.99 * below[:, -1])[:, None]).sum(axis=1).clip(max=AGE_BUCKETS - 1)
    found = {}
    for row, site in enumerate(numbers):
        found[site] = Lives(
            births=tuple(births[row].tolist()),
            ages_living=tuple(ages[row].tolist()),
            ages_dead=tuple(dead[row].tolist()),
            tick_ns=tick,
            lifetime_ns=float(edges[bucket99[row]]) if below[row, -1] else None,
        )
    return found


def _counted(row: Ints, column: Ints, shape: tuple[int, ...]) -> Ints:
    flat = np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1])
    return flat.reshape(shape).astype(np.int64)
