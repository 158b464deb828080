# SPDX-License-Identifier: Apache-2.0
"""Findings as Parquet, for DuckDB, pandas and Spark. Needs pyarrow, an extra of leakscope."""

from __future__ import annotations

import io
from importlib import import_module
from typing import TYPE_CHECKING, Any

from leakscope.errors import UsageError
from leakscope.report.export._rows import COLUMNS, rows
from leakscope.report.export._samples import version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.report.export import Exported

__all__ = ["write"]


def write(every: Sequence[Exported], root: str) -> bytes:
    """Return the file; `root` says nothing here. Raises `UsageError` without pyarrow."""
    del root
    try:
        pa: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError(
            "Parquet files are written by pyarrow, which is not installed",
            hint="pip install 'leakscope[parquet]', or take --to csv.",
        ) from error
    found = list(rows(every))
    schema = pa.schema(
        [
            (name, getattr(pa, {"bool": "bool_"}.get(kind, kind))())
            for name, kind in COLUMNS.items()
        ],
        metadata={"leakscope": version()},
    )
    columns = {name: [row[name] for row in found] for name in COLUMNS}
    out = io.BytesIO()
    parquet.write_table(pa.table(columns, schema=schema), out)
    return out.getvalue()
