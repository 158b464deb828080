# SPDX-License-Identifier: Apache-2.0
"""Findings as rows of a table, each with the same columns, for CSV and Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leakscope.report.export._samples import frame_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from leakscope.report.export import Exported

__all__ = ["COLUMNS", "rows"]

COLUMNS = {
    "recording": "string",
    "pid": "int64",
    "executable": "string",
    "verdict": "string",
    "is_leak": "bool",
    "known": "string",
    "change": "string",
    "kind": "string",
    "confidence": "float64",
    "live_bytes": "int64",
    "live_count": "int64",
    "lost_bytes": "int64",
    "lost_count": "int64",
    "leak_bytes": "int64",
    "peak_bytes": "int64",
    "allocation_count": "int64",
    "free_count": "int64",
    "growth_bytes_per_s": "float64",
    "function": "string",
    "file": "string",
    "line": "int64",
    "fingerprint": "string",
    "stable_fingerprint": "string",
    "stack": "string",
    "sentence": "string",
}
"""The columns and their types. What nobody knows is null, or empty in CSV."""


def rows(every: Sequence[Exported]) -> Iterator[dict[str, Any]]:
    """Yield a row for each finding, heaviest first in each process."""
    for one in every:
        process = one.findings.process
        for finding in one.findings.findings:
            source = finding.source
            names = (frame_name(frame) for frame in finding.stack if not frame.artificial)
            row = {
                "recording": one.label,
                "pid": process.pid,
                "executable": process.exe,
                "verdict": finding.verdict.value,
                "is_leak": finding.is_leak,
                "known": finding.known,
                "change": finding.change,
                "kind": finding.kind,
                "confidence": finding.confidence,
                "live_bytes": finding.live_bytes,
                "live_count": finding.live_count,
                "lost_bytes": finding.lost_bytes,
                "lost_count": finding.lost_count,
                "leak_bytes": finding.leak_bytes if finding.verdict.is_leak else 0,
                "peak_bytes": finding.peak_bytes,
                "allocation_count": finding.allocs,
                "free_count": finding.frees,
                "growth_bytes_per_s": finding.rate,
                "function": None if source is None else frame_name(source),
                "file": None if source is None else source.file,
                "line": None if source is None else source.line,
                "fingerprint": finding.fingerprint,
                "stable_fingerprint": finding.stable_fingerprint,
                "stack": " < ".join(names),
                "sentence": finding.sentence,
            }
            yield {
                name: value.encode("utf-8", "backslashreplace").decode()
                if isinstance(value, str)
                else value
                for name, value in row.items()
            }
