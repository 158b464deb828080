# SPDX-License-Identifier: Apache-2.0
"""Every value of a watch, one line each, for sqlite, DuckDB or a sheet."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from leakscope.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from leakscope.model.measures import Measure

__all__ = ["write_csv"]


def write_csv(rows: Iterable[tuple[float, Measure]], file: TextIO) -> None:
    """Write values with their times, in seconds since 1970."""
    out = csv.writer(file, lineterminator="\n")
    out.writerow(("time", "kind", "key", "name", "pid", "metric", "unit", "value"))
    for seconds, m in rows:
        who = (m.subject.kind, _cell(m.subject.key), _cell(m.subject.name), m.subject.pid)
        out.writerow((f"{seconds:.3f}", *who, m.metric, m.unit, m.value))


def _cell(text: str) -> str:
    """Keep a name from being taken for a formula by a sheet."""
    shown = printable(text)
    return f"'{shown}" if shown[:1] in {"=", "+", "-", "@"} else shown
