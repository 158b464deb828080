# SPDX-License-Identifier: Apache-2.0
"""Saved /proc/PID/status: what a process holds, in lines such as `VmRSS:	    1168 kB`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines
from leakscope.formats._text import without_prefix
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Row, Snapshot

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_KNOWN = re.compile(
    rb"(?:^|\n)[^\n]{0,80}?VmRSS:[ \t]{0,20}\d{1,15} kB|(?:^|\n)Name:\t[^\n]{1,64}\r?\n(?:Umask|State|Tgid):\t"
)
_FIELD = re.compile(r"([A-Z]\w{1,30}):\s*(\d{1,15}) kB\s*")
_NAME, _PID, _THREADS = (re.compile(rf"{key}:\s*(.{{1,64}})") for key in ("Name", "Pid", "Threads"))
_GAUGES = {"RssAnon": "anon", "RssShmem": "shmem", "VmPTE": "page_tables", "VmSize": "virtual"}
_PARTS = ("RssAnon", "RssFile", "RssShmem")


@dataclass(slots=True)
class _Status:
    time_ns: int | None
    name: str = ""
    pid: int | None = None
    threads: int | None = None
    fields: dict[str, int] = field(default_factory=dict)


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has the status of a process."""
    return _KNOWN.search(head) is not None


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each status in the file. Raises `RecordingError`."""
    lines = TableLines(file, last=True)
    found: list[_Status] = []
    for raw in lines:
        line = without_prefix(raw)
        if (name := _NAME.fullmatch(line)) is not None:
            found.append(_Status(lines.time_ns, name[1].strip()))
        elif (one := _FIELD.fullmatch(line)) is not None:
            if not found or one[1] in found[-1].fields:
                before = found[-1] if found else None
                found.append(_Status(lines.time_ns))
                if before is not None:
                    found[-1].name, found[-1].pid = before.name, before.pid
            found[-1].fields[one[1]] = int(one[2]) * 1024
        elif found and (pid := _PID.fullmatch(line)) is not None:
            found[-1].pid = int(pid[1]) if pid[1].strip().isdecimal() else None
        elif found and (threads := _THREADS.fullmatch(line)) is not None:
            found[-1].threads = int(threads[1]) if threads[1].strip().isdecimal() else None
        if len(found) > MOST_ROWS:
            raise RecordingError(f"{file.path} has more than {MOST_ROWS:,} of them")
    full = [each for each in found if each.fields]
    if not full:
        who = f" ({found[0].name})" if found and found[0].name else ""
        raise RecordingError(
            f"{file.path} is the status of a process{who} without memory: a kernel thread, or one"
            " that has ended"
        )
    return tuple(_snapshot(each, lines) for each in full)


def _snapshot(status: _Status, lines: TableLines) -> Snapshot:
    subject = Subject(
        "process", "?" if status.pid is None else str(status.pid), status.name or "process",
        pid=status.pid,
    )  # fmt: skip
    fields = status.fields
    parts = [Row(name, fields[name]) for name in _PARTS if name in fields]
    measures = [
        Measure(subject, metric, "bytes", fields[name])
        for name, metric in _GAUGES.items()
        if name in fields
    ]
    if "RssAnon" not in fields and "VmRSS" in fields:  # before Linux 4.5
        measures.append(Measure(subject, "rss", "bytes", fields["VmRSS"]))
    if "VmSwap" in fields:
        measures.append(Measure(subject, "swap", "bytes", fields["VmSwap"]))
    facts = [(name, size, "bytes") for name, size in fields.items() if name not in _PARTS]
    if status.threads is not None:
        measures.append(Measure(subject, "threads", "count", status.threads))
        facts.append(("Threads", status.threads, "count"))
    return Snapshot(
        source="/proc/PID/status",
        subject=subject,
        rows=tuple(parts),
        measures=tuple(measures),
        time_ns=status.time_ns,
        total=sum(row.bytes or 0 for row in parts) if parts else None,
        of="resident",
        facts=tuple(facts),
        notes=lines.notes(),
    )
