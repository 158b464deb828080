# SPDX-License-Identifier: Apache-2.0
"""What `jmap -histo` and `jcmd PID GC.class_histogram` print: a JVM's instances by class.

    8297:
     num     #instances         #bytes  class name (module)
       1:          5193         335688  [B (java.base@17.0.15)
    Total         20316        1045896

The module is there since Java 9. The lines with `->`, or without a `Total`, are of a cut file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.formats._tables import MOST_ROWS, TableLines
from leakscope.formats._text import plain_number
from leakscope.model.frames import FrameName
from leakscope.model.measures import Measure
from leakscope.model.series import Subject
from leakscope.model.snapshots import Row, Snapshot

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["class_name", "class_row", "read", "recognises"]

_KNOWN = re.compile(
    rb"#instances +#bytes +[cC]lass|(?:^|\n) *1: +[\d,]{1,20} +[\d,]{1,20} +\[?[A-Za-z]"
)
_ROW = re.compile(
    r"\s*\d{1,9}:\s+([\d,.']{1,24})\s+([\d,.']{1,24})\s+(\S{1,1000})(?: \((\S{1,300})\))?\s*"
)
_TOTAL = re.compile(r"Total\s+([\d,.']{1,24})\s+([\d,.']{1,24})\s*")
_PID = re.compile(r"(\d{1,10}):\s*")
_HEAD = re.compile(r"\s*num\s+#instances\s+#bytes")
_PRIMITIVES = dict(
    zip(
        "ZBCDFIJS",
        ["boolean", "byte", "char", "double", "float", "int", "long", "short"],
        strict=True,
    )
)


@dataclass(slots=True)
class _Table:
    time_ns: int | None
    pid: int | None
    classes: dict[str, list[int]] = field(default_factory=dict)
    total: tuple[int, int] | None = None


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` has a class histogram."""
    return _KNOWN.search(head) is not None


def class_name(name: str) -> str:
    """Return what Java programmers call a class: "[B" is "byte[]"."""
    inner = name.lstrip("[")
    depth = len(name) - len(inner)
    if not depth:
        return name
    if inner.startswith("L") and inner.endswith(";"):
        inner = inner[1:-1]
    return _PRIMITIVES.get(inner, inner) + "[]" * depth


def class_row(line: str) -> tuple[str, int, int] | None:
    """Return class, instances and bytes of one line of a histogram; None for another line."""
    row = _ROW.fullmatch(line)
    held, size = (None, None) if row is None else (_number(row[1]), _number(row[2]))
    if row is None or held is None or size is None:
        return None
    return class_name(row[3]), held, size


def read(file: ForeignFile) -> tuple[Snapshot, ...]:
    """Return each histogram in the file. Raises `RecordingError`."""
    lines = TableLines(file)
    tables: list[_Table] = []
    pid: int | None = None
    count = 0
    for line in lines:
        if _HEAD.match(line) is not None:
            if tables and not tables[-1].classes:
                tables.pop()
            tables.append(_Table(lines.time_ns, pid))
        elif (row := class_row(line)) is not None:
            if not tables or tables[-1].total is not None:
                tables.append(_Table(lines.time_ns, pid))
            if count >= MOST_ROWS:
                continue
            count += 1
            known = tables[-1].classes.setdefault(row[0], [0, 0])
            known[0] += row[1]
            known[1] += row[2]
        elif (total := _TOTAL.fullmatch(line)) is not None and tables:
            held, size = _number(total[1]), _number(total[2])
            if held is not None and size is not None:
                tables[-1].total = (held, size)
        elif (found := _PID.fullmatch(line)) is not None:
            pid = int(found[1])
    full = [each for each in tables if each.classes]
    if not full:
        raise RecordingError(f"{file.path} has the head of a class histogram, and no whole line")
    return tuple(_snapshot(each, lines) for each in full)


def _number(text: str) -> int | None:
    return plain_number(text.replace(".", "").replace("'", ""))


def _snapshot(table: _Table, lines: TableLines) -> Snapshot:
    rows = [
        Row(name, size, held, (FrameName(class_name=name, function=name, interpreter="java"),))
        for name, (held, size) in table.classes.items()
    ]
    rows.sort(key=lambda row: (-(row.bytes or 0), row.name))
    held, size = (sum(row.count or 0 for row in rows), sum(row.bytes or 0 for row in rows))
    notes = ["bytes are those of the instances alone, not of what they refer to", *lines.notes()]
    if table.total is None:
        notes.append("the table has no Total: it is cut, or somebody shortened it")
    elif table.total != (held, size):
        notes.append(
            f"its Total is {table.total[1]:,} bytes in {table.total[0]:,} instances, and the lines"
            f" here add up to {size:,} in {held:,}: it was shortened"
        )
        rows.append(
            Row("(not listed)", max(table.total[1] - size, 0), max(table.total[0] - held, 0))
        )
    total = table.total or (held, size)
    return Snapshot(
        source="a class histogram of a JVM",
        subject=Subject("jvm", str(table.pid or "jvm"), "java", pid=table.pid),
        rows=tuple(rows),
        measures=tuple(
            Measure(
                Subject("class", row.name, row.name), "instances_bytes", "bytes", row.bytes or 0
            )
            for row in rows
        ),
        time_ns=table.time_ns,
        total=total[1],
        total_count=total[0],
        of="of instances",
        things="instances",
        kind="class",
        facts=(("classes", len(table.classes), "count"),),
        notes=tuple(notes),
    )
