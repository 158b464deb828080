# SPDX-License-Identifier: Apache-2.0
"""`leakscope.find`: does a process leak, what, how fast, and who holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope import _numpy  # noqa: F401 - before anything that imports numpy
from leakscope._finding import find as search
from leakscope._library import values
from leakscope._library.results import Result, fields_of
from leakscope.errors import UsageError
from leakscope.model import found as model
from leakscope.report import find as report
from leakscope.scan.subject import check_pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from leakscope._library.results import Look
    from leakscope._library.values import Duration

__all__ = ["Found", "find"]


@dataclass(frozen=True, slots=True)
class Found(model.Found, Result):
    """The answer on one process. Times are seconds, sizes bytes, rates bytes a second."""

    def to_json(self) -> str:
        """Return the document that `leakscope find --json` writes; it has a published schema."""
        return report.to_json(self)

    def _text(self, look: Look) -> str:
        """Return the text that `leakscope find` shows, ending in a newline."""
        return report.render_found(self, look.ink)


def find(
    target: int | str,
    *,
    duration: Duration = 30.0,
    stop: bool = True,
    max_pause: Duration = 0.1,
    progress: Callable[[str], None] | None = None,
) -> Found:
    """Say whether a process leaks, what and how fast, and who holds it.

    `target` is a pid or a program's name; of several processes the one that grows fastest is
    chosen. It is looked at for about `duration`. With `stop` its heap is walked twice, and each time
    it stands still for `max_pause` at most; without, only what /proc tells is known. `progress` is
    told what is done next.

    The result has `verdict` ("leak", "growing", "kept by the allocator", "no growth"), `kind` (what
    grows), `rate` (bytes a second), `heap`, `next_step` and, as every result, `report()`,
    `to_json()` and `to_dict()`.

    Raises `TargetError` when there is no such process, when it may not be looked at or when it ends
    meanwhile, and `UsageError` for values that make no sense.
    """
    pause, seconds = values.duration("max_pause", max_pause), values.duration("duration", duration)
    check_pause(0.0 if pause is None else pause)
    if seconds is None:
        raise UsageError("nothing says how long to look", hint="Give duration=30.")
    name = target if isinstance(target, str) else str(values.whole("target", target))
    found = search(name, seconds=seconds, stop=stop, max_pause_s=pause or 0.0, say=progress)
    return Found(**fields_of(found))
