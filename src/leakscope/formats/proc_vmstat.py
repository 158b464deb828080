# SPDX-License-Identifier: Apache-2.0
"""Saved /proc/vmstat: pages of a machine by kind, and counters since it began.

    nr_free_pages 4728403
    nr_slab_unreclaimable 10993

A page is taken to be 4 KiB; kernel stacks are told in KiB.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Snapshot

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(rb"(?:^|\n)nr_free_pages \d{1,18}\r?\n")
_LINE = re.compile(r"([a-z][a-z0-9_]{2,60}) (\d{1,20})\s*")
_GAUGES = {
    "nr_anon_pages": "anon",
    "nr_shmem": "shmem",
    "nr_slab_unreclaimable": "slab_unreclaimable",
    "nr_slab_reclaimable": "slab_reclaimable",
    "nr_page_table_pages": "page_tables",
    "nr_kernel_stack": "kernel_stacks",
}
_FIRST = "nr_free_pages"
_PAGE = 4096


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is of /proc/vmstat."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each copy in the file. Raises `RecordingError`."""
    lines = TableLines(file, last=True)
    copies: list[tuple[int | None, dict[str, int]]] = []
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        if found[1] == _FIRST or not copies or found[1] in copies[-1][1]:
            if len(copies) >= MOST_ROWS:
                raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} copies of vmstat")
            copies.append((lines.time_ns, {}))
        copies[-1][1][found[1]] = min(int(found[2]), 1 << 60)
    full = [each for each in copies if _FIRST in each[1]]
    if not full:
        raise RecordingError(f"{file.path} has a line of /proc/vmstat in it, and no whole one")
    notes = (*lines.notes(), "counted in pages, which are taken to have 4 KiB: it does not tell")
    return tuple(_snapshot(*each, notes) for each in full)


def _snapshot(time_ns: int | None, values: dict[str, int], notes: tuple[str, ...]) -> Snapshot:
    machine = Subject("system", "machine", "the machine")
    sizes = {
        name: min(value, 1 << 48) * (1024 if name == "nr_kernel_stack" else _PAGE)
        for name, value in values.items()
        if name in _GAUGES or name == _FIRST
    }
    return Snapshot(
        source="/proc/vmstat",
        subject=machine,
        measures=tuple(
            Measure(machine, metric, "bytes", sizes[name])
            for name, metric in _GAUGES.items()
            if name in sizes
        ),
        time_ns=time_ns,
        of="of memory",
        facts=tuple(
            (name, sizes.get(name, value), "bytes" if name in sizes else "count")
            for name, value in values.items()
        ),
        notes=("a page is taken to be 4 KiB", *notes),
    )
