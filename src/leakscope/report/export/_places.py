# SPDX-License-Identifier: Apache-2.0
"""What leaks, place by place, for the formats that CI shows beside the code."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

from leakscope.judge.places import is_runtime
from leakscope.judge.together import leaking_places
from leakscope.report.export._samples import base_name, frame_name, one_line
from leakscope.words import bytes_text, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from leakscope.judge.together import SharedPlace
    from leakscope.model.findings import Finding, Findings
    from leakscope.model.frames import Frame
    from leakscope.report.export import Exported

__all__ = ["Leak", "leaks", "over_budget", "relative_file", "undecided"]

_NAMED = 8  # functions of a stack in a message


class Leak(NamedTuple):
    """One leaking place. `file` is relative to the root where it lies below it, None where not."""

    place: SharedPlace
    finding: Finding  # the heaviest there
    file: str | None
    line: int
    title: str
    message: str
    fingerprint: str

    @property
    def stack(self) -> tuple[Frame, ...]:
        """Its call stack, without placeholders."""
        return tuple(frame for frame in self.finding.stack if not frame.artificial)


def leaks(every: Sequence[Exported], root: str) -> list[Leak]:
    """Return the places that leak, heaviest first, each with a fingerprint of its own."""
    found: list[Leak] = []
    used: dict[str, int] = {}
    for place in leaking_places([(one.label, one.findings) for one in every]):
        finding = place.worst.finding
        frame = _shown(finding, root)
        file = None if frame is None or frame.file is None else relative_file(frame.file, root)
        line = frame.line if frame is not None and frame.line else 1
        stable = finding.stable_fingerprint or finding.fingerprint
        # Two lines of one function are one stack to a rebuild, and two results.
        used[stable] = used.get(stable, 0) + 1
        number = f":{used[stable]}" if used[stable] > 1 else ""
        found.append(
            Leak(
                place, finding, file, line, _title(finding, place), _message(place), stable + number
            )
        )
    return found


def _shown(finding: Finding, root: str) -> Frame | None:
    """The frame to show: the line to look at, else the innermost one below the root."""
    candidates = (finding.source, *finding.stack)
    frames = [frame for frame in candidates if frame is not None and frame.file is not None]
    below = (frame for frame in frames if relative_file(frame.file or "", root) is not None)
    return next(below, None)


def relative_file(path: str, root: str) -> str | None:
    """Return the path of a source file from the root, None where it is not below it."""
    clean = posixpath.normpath(path)
    if not clean.startswith("/"):
        return None if clean.startswith("..") else one_line(clean)
    top = posixpath.normpath(root).rstrip("/") + "/"
    return one_line(clean[len(top) :]) if clean.startswith(top) else None


def _title(finding: Finding, place: SharedPlace) -> str:
    verb = "Lost" if finding.verdict.value == "lost" else "Leaking"
    blocks = "" if place.count is None else f" in {plural(place.count, 'block')}"
    return f"{verb} memory: {bytes_text(place.bytes)}{blocks}"


def _message(place: SharedPlace) -> str:
    finding = place.worst.finding
    source = finding.source
    parts = [one_line(finding.sentence)]
    if source is not None:
        parts.append(f"Allocated in {frame_name(source)}{_at(source)}.")
    names = [frame_name(frame) for frame in finding.stack if not is_runtime(frame)][:_NAMED]
    if len(names) > 1:
        parts.append(f"Stack: {' < '.join(names)}.")
    if len(place.parts) > 1:
        parts.append(f"In {plural(len(place.parts), 'process', 'processes')}.")
    if finding.next_step:
        parts.append(one_line(finding.next_step))
    return " ".join(part for part in parts if part)


def _at(frame: Frame) -> str:
    if frame.file is None:
        return f" of {base_name(frame.module_path)}" if frame.module_path else ""
    return one_line(f" at {frame.file}" + (f":{frame.line}" if frame.line else ""))


def over_budget(every: Iterable[Exported]) -> list[str]:
    """Return a sentence on each budget that is exceeded."""
    return [
        f"{one_line(use.pattern)} holds {bytes_text(use.bytes)} and may hold"
        f" {bytes_text(use.limit_bytes)}"
        for one in every
        for use in one.findings.budgets
        if use.exceeded
    ]


def undecided(every: Iterable[Exported]) -> list[tuple[str, Findings]]:
    """Return the processes of which the evidence says neither leak nor no leak."""
    return [(one.label, one.findings) for one in every if one.findings.undecided]
