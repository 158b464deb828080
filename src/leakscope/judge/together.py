# SPDX-License-Identifier: Apache-2.0
"""The same place in several processes is one finding: prefork workers, `make -j`, test runners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.model.amounts import sum_known

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakscope.model.findings import Finding, Findings

__all__ = ["Part", "SharedPlace", "leaking_places"]


@dataclass(frozen=True, slots=True)
class Part:
    """What one process holds at a place."""

    recording: str  # its label
    process: Findings
    finding: Finding  # the heaviest there
    bytes: int
    count: int | None  # None: the source does not count blocks


@dataclass(frozen=True, slots=True)
class SharedPlace:
    """One leaking place: a `Finding.place`, whichever process it is in. Heaviest part first."""

    parts: tuple[Part, ...]

    @property
    def worst(self) -> Part:
        """The process that holds the most there."""
        return self.parts[0]

    @property
    def bytes(self) -> int:
        """What all processes hold there."""
        return sum(part.bytes for part in self.parts)

    @property
    def count(self) -> int | None:
        """The blocks that these bytes are in."""
        return sum_known(part.count for part in self.parts)


def leaking_places(judged: Iterable[tuple[str, Findings]]) -> tuple[SharedPlace, ...]:
    """Return the places that leak in labelled processes, heaviest first.

    What one process counts as one place, `Finding.place`, is one in all of them.
    """
    places: dict[tuple[str, ...], list[Part]] = {}
    for label, findings in judged:
        here: dict[tuple[str, ...], list[Finding]] = {}
        for finding in findings.leaks:
            here.setdefault(finding.place, []).append(finding)
        for place, found in here.items():
            part = Part(
                label,
                findings,
                max(found, key=lambda each: each.leak_bytes),
                sum(each.leak_bytes for each in found),
                sum_known(each.leak_count for each in found),
            )
            places.setdefault(place, []).append(part)
    ordered = (SharedPlace(tuple(sorted(p, key=lambda part: -part.bytes))) for p in places.values())
    return tuple(sorted(ordered, key=lambda place: -place.bytes))
