# SPDX-License-Identifier: Apache-2.0
"""The heaps of watched processes: walked when the watch begins and when it ends, and compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakscope.model.census import HeapGrowth
    from leakscope.scan.census import Census

__all__ = ["WatchedHeaps"]

_MOST = 4  # processes


@dataclass(slots=True)
class WatchedHeaps:
    """Walks the heaps of the first few of `pids` at once, and again when it is asked to compare.

    Each process stands still for a tenth of a second at most, each time. A traced process is left
    out: its recording tells more.
    """

    pids: Iterable[int]
    failures: dict[int, str] = field(default_factory=dict)  # why a heap was not walked
    _before: dict[int, Census] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from leakscope.scan import cancellable
        from leakscope.scan.census import count_heap
        from leakscope.trace.live_files import find_live_file

        for pid in sorted(self.pids)[:_MOST]:
            if find_live_file(pid) is not None:
                self.failures[pid] = f"it is traced: leakscope find {pid}"
                continue
            try:
                self._before[pid] = cancellable(lambda pid=pid: count_heap(pid))  # type: ignore[misc]
            except TargetError as error:
                self.failures[pid] = str(error)

    def compare(self) -> dict[int, HeapGrowth]:
        """Walk them again; return what grew, by pid."""
        from leakscope.scan import cancellable
        from leakscope.scan.census import grow_between

        found: dict[int, HeapGrowth] = {}
        for pid, before in self._before.items():
            try:
                found[pid] = cancellable(lambda before=before: grow_between(before))  # type: ignore[misc]
            except TargetError as error:
                self.failures[pid] = str(error)
        return found
