# SPDX-License-Identifier: Apache-2.0
"""What a watched process holds at this moment: memory by kind, descriptors, threads, its heap."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from leakscope.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Collection

    from leakscope.model.series import Subject
    from leakscope.workflow.watching import Judgement

__all__ = ["accounts", "held"]

_MOST = 4  # processes


def accounts(
    judgement: Judgement, only: Collection[int], *, heap: bool = False
) -> dict[str, list[str]]:
    """Return what the first few processes hold that leak or are among `only`, by their subjects' keys."""
    leaking = [cause.trend.series.subject for cause in judgement.causes]
    asked = [t.series.subject for t in judgement.trends if t.series.subject.pid in only]
    found: dict[str, list[str]] = {}
    for key, subject in {s.key: s for s in (*leaking, *asked) if s.kind == "process"}.items():
        if len(found) < _MOST and (lines := held(subject, heap=heap)):
            found[key] = lines
    return found


def held(subject: Subject, *, heap: bool = False) -> list[str]:
    """Return what a process holds now; nothing when it is gone, or its number another's.

    With `heap` its heap is walked too, for which it stands still for some milliseconds.
    """
    from leakscope.observe.process import account_of, points_to
    from leakscope.proc.process import read_start
    from leakscope.report.watch import held_lines

    pid, began = subject.pid or 0, subject.key.partition("@")[2].partition("+")[0]
    account = account_of(pid)
    if account is None or str(read_start(pid)) != began:
        return []
    lines = held_lines(
        f"{subject.name} (pid {pid})",  # as the rest of the report calls it
        account.lines,
        (("RSS", account.rss), ("PSS", account.pss), ("USS", account.uss)),
        (
            ("descriptors", account.descriptors),
            ("point to", points_to(pid)),
            ("threads", account.threads),
            ("began in", _thread_starts(pid)),
        ),
    )
    if heap:
        lines += _heap(pid)
    return lines


def _thread_starts(pid: int) -> list[tuple[str, int]]:
    """Name the functions in which the threads of a process began."""
    from leakscope.model.frames import Address
    from leakscope.observe.threads import thread_starts
    from leakscope.symbols import Symbolizer

    starts = thread_starts(pid)
    if len(starts) == 0:
        return []
    modules = list(dict.fromkeys(start.module for start in starts))
    places = {Address(modules.index(s.module), s.offset, exact=True): s for s in starts}
    counts: dict[str, int] = {}
    with Symbolizer(modules, debuginfod=False, pid=pid) as symbols:
        resolved = symbols.resolve(places)
    for address, start in places.items():
        frames = resolved.get(address, ())
        function = frames[-1].function if frames else None
        text = f"{function or hex(start.offset)} in {Path(start.module.path).name}"
        counts[text] = counts.get(text, 0) + start.count
    return sorted(counts.items(), key=lambda each: -each[1])


def _heap(pid: int) -> list[str]:
    from leakscope.report.watch import heap_lines
    from leakscope.scan.heap_account import account_heap

    try:
        return heap_lines(account_heap(pid))
    except TargetError as error:
        return [f"  its heap was not walked: {error}"]
