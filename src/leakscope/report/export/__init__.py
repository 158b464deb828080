# SPDX-License-Identifier: Apache-2.0
"""Findings for other programs: one module a format, and its line in `EXPORTS`.

A module has `write(every, root) -> bytes`: what was found in each process, and the directory that
the paths of source files are relative to where the format wants them so.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.model.findings import Findings
    from leakscope.model.recordings import Timeline

__all__ = ["EXPORTS", "Export", "Exported", "exported"]


class Exported(NamedTuple):
    """What was found in one process. `timeline` is None where its course is not known."""

    label: str
    findings: Findings
    timeline: Timeline | None = None


class Export(NamedTuple):
    """A format: its module, and what opens it."""

    module: str
    line: str


class _Module(Protocol):
    def write(self, every: Sequence[Exported], root: str) -> bytes: ...


EXPORTS = {
    "pprof": Export("pprof", "go tool pprof, Pyroscope, Parca: what is held, by stack"),
    "folded": Export("folded", "flamegraph.pl, inferno, Firefox Profiler: a line a stack"),
    "speedscope": Export("speedscope", "speedscope.app"),
    "massif": Export("massif", "ms_print, massif-visualizer: with the course over time"),
    "callgrind": Export("callgrind", "KCachegrind, callgrind_annotate: bytes instead of cycles"),
    "heaptrack": Export("heaptrack", "heaptrack_print, heaptrack_gui"),
    "dhat": Export("dhat", "valgrind's dh_view.html, Firefox Profiler"),
    "sarif": Export("sarif", "GitHub code scanning, editors: SARIF 2.1.0, what leaks"),
    "junit": Export("junit", "Jenkins, GitLab, nearly every CI: a test case a leaking place"),
    "github": Export("github", "annotations of GitHub Actions, on standard output"),
    "gitlab": Export("gitlab", "GitLab's code quality widget"),
    "csv": Export("csv", "spreadsheets: a line a finding"),
    "parquet": Export("parquet", "DuckDB, pandas, Spark: a row a finding (needs pyarrow)"),
}


def exported(name: str, every: Sequence[Exported], root: str) -> bytes:
    """Return the file of a format of `EXPORTS`. Raises `UsageError` where it cannot be."""
    module = cast("_Module", import_module(f"{__name__}.{EXPORTS[name].module}"))
    return module.write(every, root)
