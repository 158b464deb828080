# SPDX-License-Identifier: Apache-2.0
"""`leakscope attach --follow`: a process and its descendants, until all are detached."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from leakscope.errors import LeakscopeError
from leakscope.recording import packed
from leakscope.words import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from leakscope.model.recordings import Recording
    from leakscope.trace.attach.family import Family
    from leakscope.trace.attach.session import Session

__all__ = ["Kept", "tell_family", "wait_family"]

_MOST_FILES, _MOST_EMPTY = 1024, 32  # recordings of descendants; and of such as hold nothing


@dataclass(slots=True)
class Kept:
    """Recordings of processes that were detached or have ended, each in its file at once."""

    root: int
    pack: Callable[[Recording], str]
    paths: list[str] = field(default_factory=list)
    has_root: bool = False  # whether `paths` begins with the program's own
    empty: int = 0
    left_out: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, recording: Recording, session: Session) -> None:
        """Write one, unless it holds nothing and there are many of that kind."""
        pid = session.plan.pid
        if len(self.paths) >= (_MOST_FILES if pid != self.root else 2 * _MOST_FILES):
            self.left_out += 1
            return
        if pid != self.root and not recording.sites["live_count"].any():
            self.empty += 1
            if self.empty > _MOST_EMPTY:
                self.left_out += 1
                return
        try:
            path = self.pack(recording)
        except LeakscopeError as error:
            self.problems.append(f"the recording of process {pid} could not be written: {error}")
            return
        # The program itself comes first, whenever it ended.
        self.has_root |= pid == self.root
        self.paths.insert(0 if pid == self.root else len(self.paths), path)

    def recordings(self, notes: list[str]) -> Iterator[tuple[str, Recording]]:
        """Read them again, one after the other; the first one gets `notes` into its coverage."""
        for number, path in enumerate(self.paths):
            recording = packed.read(path)
            if number == 0 and notes:
                coverage = recording.coverage
                coverage = replace(coverage, notes=(*coverage.notes, *notes))
                recording = replace(recording, coverage=coverage)
                packed.write(recording, path)
            yield path, recording


def wait_family(
    family: Family,
    stopped: Callable[[float], bool],
    for_s: float,
    every_s: float | None,
    snapshot: Callable[[Session], None],
) -> str:
    """Follow until the end, with snapshots of all; return why it came: "stop", "end", or ""."""
    end = time.monotonic() + for_s
    while (left := end - time.monotonic()) > 0:
        why = family.wait(min(left, every_s or left), stopped)
        if why:
            return why
        if every_s is not None and time.monotonic() < end:
            for session in family.sessions:
                snapshot(session)
    return ""


def tell_family(family: Family, kept: Kept, say: Callable[[str], None]) -> list[str]:
    """Say how it ended; return what belongs into the report."""
    if family.detached:
        say(
            f"{plural(family.detached, 'process', 'processes')} detached, and nothing of leakscope is left"
            f" there; none stood still for longer than {family.longest_ms:.1f} ms at a time"
        )
    for one in family.unclean:
        if not one.unmapped:
            say(
                f"process {one.pid}: the agent's memory stays in it, unused, because {one.reason}; later,"
                f" `leakscope detach {one.pid}` may take it out"
            )
        if one.foreign:
            say(
                f"process {one.pid}: {one.foreign} functions were changed by somebody else meanwhile, and"
                " left alone"
            )
    for problem in kept.problems:
        say(problem)
    notes = family.sentences()
    if kept.left_out:
        notes.append(
            f"{kept.left_out:,} recordings of descendants were not kept: they hold nothing, or there were"
            f" {_MOST_FILES:,} already"
        )
    for note in notes:
        say(note)
    return notes
