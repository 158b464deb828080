# SPDX-License-Identifier: Apache-2.0
"""jemalloc's heap profiles (heap_v2) as recordings.

    heap_v2/524288                              mean bytes between samples
      t*: 28106: 56637512 [0: 0]                blocks: bytes [all ever; with prof_accum]
      t3: 352: 16777344 [0: 0] thread name
    @ 0x5f86da8 0x5f5a1dc                       return addresses, innermost first
      t*: 13: 6688 [0: 0]
    MAPPED_LIBRARIES:                           a copy of /proc/PID/maps

Counts are those of the samples; each stack is scaled by itself (jemalloc 5.3 writes numbers that
need just that). The first line t* is scaled alike, and is no sum of the others.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._bounds import MOST_FRAMES, MOST_RECORDS, NO_CHECK
from leakscope.formats._lines import RawLines, not_understood, number
from leakscope.formats._maps import Maps
from leakscope.formats._sampling import unsampled
from leakscope.model.builder import RecordingBuilder
from leakscope.model.recordings import Coverage

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile
    from leakscope.model.recordings import Recording

__all__ = ["read", "recognises"]

_HEAD = re.compile(rb"\s*heap_v2/(\d{1,18})\s*\n")
_COUNTS = re.compile(rb"\s*t\*: (\d{1,20}): (\d{1,20}) \[(\d{1,20}): (\d{1,20})\]")
_OFF = "jemalloc writes such a file where prof_active is off"


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is a heap profile of jemalloc."""
    return _HEAD.match(head.replace(b"\r", b"")) is not None


class _Profile:
    """What is in the file."""

    def __init__(self) -> None:
        self.stacks: dict[tuple[int, ...], tuple[int, int, int, int]] = {}
        self.header: tuple[int, int, int, int] | None = None
        self.maps = Maps()
        self.has_maps = False
        self.left_out = self.unknown = 0

    def read(self, lines: RawLines) -> None:
        current: tuple[int, ...] | None = None
        in_context = False
        for line in lines:
            if self.has_maps:
                self.maps.add(line)
            elif line.startswith(b"@"):
                # More than 512 frames, or a word that is no address: what comes before is kept.
                words = line[1:].split()[:MOST_FRAMES]
                current = tuple(a for w in words if (a := number(w, 16)) is not None)
                in_context = True
            elif (found := _COUNTS.match(line)) is not None:
                self._take(current if in_context else None, found)
            elif line.startswith(b"MAPPED_LIBRARIES:"):
                self.has_maps = True
            elif line.strip() and not line.lstrip().startswith((b"t", b"heap_v2/")):
                self.unknown += 1

    def _take(self, stack: tuple[int, ...] | None, found: re.Match[bytes]) -> None:
        told = [number(each) or 0 for each in found.groups()]
        counts = (told[0], told[1], told[2], told[3])
        if stack is None:
            self.header = counts
        elif stack in self.stacks or len(self.stacks) < MOST_RECORDS:
            self.stacks[stack] = counts
        else:
            self.left_out += 1


def read(file: ForeignFile) -> tuple[Recording, ...]:
    """Return the recording in the file. Raises `RecordingError`."""
    found = _HEAD.match(file.head(64).replace(b"\r", b""))
    period = (number(found[1]) if found else None) or 0
    if not period:
        raise RecordingError(f"{file.path} is no heap profile of jemalloc: it has no period")
    lines, profile = RawLines(file), _Profile()
    profile.read(lines)
    if profile.header is None and not profile.stacks:
        raise RecordingError(f"{file.path} is a heap profile of jemalloc without any number")
    build = RecordingBuilder()
    accumulated = any(counts[2] for counts in profile.stacks.values())
    for stack, counts in profile.stacks.items():
        count, size = unsampled(counts[0], counts[1], period)
        told = {"live_count": round(count), "live_bytes": round(size)}
        if accumulated:
            count, size = unsampled(counts[2], counts[3], period)
            told |= {"allocs": round(count), "alloc_bytes": round(size)}
        frames = profile.maps.frames(build, stack, skip="libjemalloc")
        build.site(build.stack(frames), "malloc", **told)
    if not profile.stacks:
        build.site(0, live_count=0, live_bytes=0)
    build.coverage = Coverage(
        mode="jemalloc's heap profile",
        sample_bytes=period if period > 1 else None,
        troubles=(NO_CHECK,),
        notes=tuple(_notes(file, lines, profile, period)),
    )
    return (build.build(),)


def _notes(file: ForeignFile, lines: RawLines, profile: _Profile, period: int) -> list[str]:
    notes = ["it is what was held when the file was written; nobody looked whether it is in use"]
    if period > 1:
        notes.append(
            f"one block in about {period:,} allocated bytes was looked at: the numbers are estimates"
        )
    if not profile.has_maps or lines.rest or file.cut:
        notes.append(f"the file is not whole: {file.cut or 'it ends too early'}")
    if profile.header is not None and not profile.stacks:
        notes.append(f"no allocation was sampled: {_OFF}, or little was allocated")
    if any(len(stack) <= 1 for stack in profile.stacks):
        notes.append("some stacks have one frame or none: jemalloc could not unwind them")
    if profile.left_out:
        notes.append(f"{profile.left_out:,} stacks beyond {MOST_RECORDS:,} were not read")
    if profile.unknown:
        notes.append(not_understood(profile.unknown))
    return notes
