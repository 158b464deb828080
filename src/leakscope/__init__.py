# SPDX-License-Identifier: Apache-2.0
"""Find the line of code that makes memory grow.

`run` traces a program and returns its recordings, `load` reads one from a file, `analyse` judges
it; `scan` says what nothing points to in a running process, `watch` which processes grow,
`find` what grows in one of them, and who holds it; `diff` tells what changed between two of
anything, and `export` writes for other programs:

    run = leakscope.run(["./app", "--flag"], timeout="10m")
    for leak in run.leaks:
        print(leak.verdict, leak.live_bytes, leak.source)

Results have `report()`, `to_json()` and `to_dict()`; every error is a `LeakscopeError`.
Everything is loaded when it is first used: importing the package costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leakscope._library.analysing import analyse, load
    from leakscope._library.comparing import Diff, diff, export
    from leakscope._library.finding import Found, find
    from leakscope._library.results import Findings, Run, Scan, Watched
    from leakscope._library.running import run
    from leakscope._library.scanning import scan
    from leakscope._library.watching import watch
    from leakscope.errors import (
        LeakscopeError,
        RecordingError,
        SymbolError,
        TargetError,
        UsageError,
    )
    from leakscope.model.findings import Finding, Pattern, Verdict
    from leakscope.model.frames import Frame
    from leakscope.model.recordings import Recording

    __version__: str

__all__ = [
    "Diff",
    "Finding",
    "Findings",
    "Found",
    "Frame",
    "LeakscopeError",
    "Pattern",
    "Recording",
    "RecordingError",
    "Run",
    "Scan",
    "SymbolError",
    "TargetError",
    "UsageError",
    "Verdict",
    "Watched",
    "__version__",
    "analyse",
    "diff",
    "export",
    "find",
    "load",
    "run",
    "scan",
    "watch",
]

_HOMES = {
    "Diff": "leakscope._library.comparing",
    "Finding": "leakscope.model.findings",
    "Findings": "leakscope._library.results",
    "Found": "leakscope._library.finding",
    "Frame": "leakscope.model.frames",
    "LeakscopeError": "leakscope.errors",
    "Pattern": "leakscope.model.findings",
    "Recording": "leakscope.model.recordings",
    "RecordingError": "leakscope.errors",
    "Run": "leakscope._library.results",
    "Scan": "leakscope._library.results",
    "SymbolError": "leakscope.errors",
    "TargetError": "leakscope.errors",
    "UsageError": "leakscope.errors",
    "Verdict": "leakscope.model.findings",
    "Watched": "leakscope._library.results",
    "analyse": "leakscope._library.analysing",
    "diff": "leakscope._library.comparing",
    "export": "leakscope._library.comparing",
    "find": "leakscope._library.finding",
    "load": "leakscope._library.analysing",
    "run": "leakscope._library.running",
    "scan": "leakscope._library.scanning",
    "watch": "leakscope._library.watching",
}


class _Package(ModuleType):
    """The package, in which `scan` is the function although a part has that name too."""

    @property
    def scan(self) -> Any:
        from leakscope._library.scanning import scan as function

        return function

    @scan.setter
    def scan(self, value: Any) -> None:
        """Take no notice of the import system, which would put the part `leakscope.scan` here."""


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("leakscope")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+source"
