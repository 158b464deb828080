# SPDX-License-Identifier: Apache-2.0
"""Findings as CSV (RFC 4180): a header, and a line for each. What nobody knows is empty."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from leakscope.report.export._rows import COLUMNS, rows
from leakscope.report.export._samples import encoded, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.report.export import Exported

__all__ = ["write"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the table; `root` says nothing here."""
    del root
    out = io.StringIO()
    table = csv.DictWriter(out, list(COLUMNS))
    table.writeheader()
    for row in rows(every):
        table.writerow({name: _text(v) if isinstance(v, str) else v for name, v in row.items()})
    return encoded(out.getvalue())


def _text(value: str) -> str:
    """A name that a spreadsheet would run as a formula begins with an apostrophe."""
    value = one_line(value)
    return f"'{value}" if value.startswith(_FORMULA) else value
