# SPDX-License-Identifier: Apache-2.0
"""Find the line of code that makes memory grow.

`run` traces a program and returns its recordings, `load` reads one from a file,
`analyse` judges it:

    for recording in leakscope.run(["./app", "--flag"]).recordings:
        for finding in leakscope.analyse(recording).leaks:
            print(finding.verdict, finding.live_bytes, finding.source)

Everything is loaded when it is first used: importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leakscope._analysis import analyse
    from leakscope._tracing import run
    from leakscope.errors import (
        LeakscopeError,
        RecordingError,
        SymbolError,
        TargetError,
        UsageError,
    )
    from leakscope.model.findings import Finding, Findings, Pattern, Verdict
    from leakscope.model.frames import Frame
    from leakscope.model.recordings import Recording
    from leakscope.recording import load

    __version__: str

__all__ = [
    "Finding",
    "Findings",
    "Frame",
    "LeakscopeError",
    "Pattern",
    "Recording",
    "RecordingError",
    "SymbolError",
    "TargetError",
    "UsageError",
    "Verdict",
    "__version__",
    "analyse",
    "load",
    "run",
]

_HOMES = {
    "Finding": "leakscope.model.findings",
    "Findings": "leakscope.model.findings",
    "Frame": "leakscope.model.frames",
    "LeakscopeError": "leakscope.errors",
    "Pattern": "leakscope.model.findings",
    "Recording": "leakscope.model.recordings",
    "RecordingError": "leakscope.errors",
    "SymbolError": "leakscope.errors",
    "TargetError": "leakscope.errors",
    "UsageError": "leakscope.errors",
    "Verdict": "leakscope.model.findings",
    "analyse": "leakscope._analysis",
    "load": "leakscope.recording",
    "run": "leakscope._tracing",
}


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
