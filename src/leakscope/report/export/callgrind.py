# SPDX-License-Identifier: Apache-2.0
"""A profile of callgrind whose costs are bytes and blocks: KCachegrind shows who holds what.

A function's own cost is what it asked the allocator for; a call's is what was allocated below it.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from leakscope.report.export._samples import (
    command_of,
    encoded,
    frame_name,
    one_line,
    samples,
    version,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.frames import Frame
    from leakscope.report.export import Exported

__all__ = ["write"]

_Function = tuple[str, str, str]  # object, file, name
_EVENTS = ("Held", "Blocks", "Lost")


class _Costs(Counter[int]):
    """A sum of each of `_EVENTS`, by its index."""

    def text(self) -> str:
        """Return the costs of a line."""
        return " ".join(str(self[at]) for at in range(len(_EVENTS)))


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the file; `root` says nothing here."""
    del root
    own: dict[_Function, dict[int, _Costs]] = defaultdict(lambda: defaultdict(_Costs))
    calls: dict[_Function, dict[tuple[int, _Function, int], _Costs]]
    calls = defaultdict(lambda: defaultdict(_Costs))
    total = _Costs()
    for _, sample in samples(every):
        numbers = (sample.held_bytes, sample.held_count, sample.lost_bytes)
        costs = _Costs(dict(enumerate(numbers)))
        total.update(costs)
        places = [(_function(frame), frame.line or 0) for frame in sample.stack]
        inner, line = places[0]
        own[inner][line].update(costs)
        # A call on the way of a recursion counts once.
        edges = {
            (outer, (at, callee, callee_line)): None
            for (callee, callee_line), (outer, at) in itertools.pairwise(places)
        }
        for outer, call in edges:
            calls[outer][call].update(costs)
    lines = [
        "# callgrind format",
        "version: 1",
        f"creator: leakscope {version()}",
        f"cmd: {command_of(every)}",
        "positions: line",
        "event: Held : bytes held",
        "event: Blocks : blocks held",
        "event: Lost : bytes that nothing points to",
        f"events: {' '.join(_EVENTS)}",
        f"summary: {total.text()}",
        "",
    ]
    for function in sorted({*own, *calls}):
        path, file, name = function
        lines += [f"ob={path}", f"fl={file}", f"fn={name}"]
        lines += [f"{line} {costs.text()}" for line, costs in sorted(own[function].items())]
        for (line, callee, callee_line), costs in sorted(calls[function].items()):
            lines += [f"cob={callee[0]}", f"cfi={callee[1]}", f"cfn={callee[2]}"]
            lines += [f"calls={max(costs[1], 1)} {callee_line}", f"{line} {costs.text()}"]
        lines.append("")
    lines.append(f"totals: {total.text()}")
    return encoded("\n".join(lines) + "\n")


def _function(frame: Frame) -> _Function:
    return one_line(frame.module_path or "???"), one_line(frame.file or "???"), frame_name(frame)
