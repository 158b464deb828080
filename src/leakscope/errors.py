# SPDX-License-Identifier: Apache-2.0
"""The one error tree: what happened, why we think so, what to try.

LeakscopeError
├── TargetError        the program or process cannot be traced or read as asked
├── RecordingError     a recording or foreign file cannot be read or written
├── SymbolError        symbols were asked for and cannot be had
└── UsageError         the request itself makes no sense

Only `leakscope.cli` turns these into text and an exit status (2).
"""

from __future__ import annotations

__all__ = ["LeakscopeError", "RecordingError", "SymbolError", "TargetError", "UsageError"]


class LeakscopeError(Exception):
    """One clear sentence naming the file or pid and the reason; `hint` is the next step."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint is not None:
            self.add_note(hint)  # so that a traceback shows it too


class TargetError(LeakscopeError):
    """The program or process cannot be traced or read as asked."""


class RecordingError(LeakscopeError):
    """A recording or foreign file cannot be read or written."""


class SymbolError(LeakscopeError):
    """Symbols were asked for and cannot be had."""


class UsageError(LeakscopeError):
    """The request itself makes no sense."""
