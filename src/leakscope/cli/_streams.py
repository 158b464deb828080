# SPDX-License-Identifier: Apache-2.0
"""Saying what went wrong, and keeping quiet when nobody listens any more."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

from leakscope.errors import UsageError

if TYPE_CHECKING:
    from leakscope.errors import LeakscopeError

__all__ = ["complain", "open_standard_streams", "require_output", "silence"]

_closed: set[str] = set()  # names of the standard streams that were closed when we were started


def open_standard_streams() -> None:
    """Open what was closed when we were started, to nothing.

    Else the next file that is opened would be taken for the standard output. A program that
    we start finds it closed, as it would without us.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            _closed.add(name)
            descriptor = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            if descriptor != number:
                os.dup2(descriptor, number, inheritable=False)
                os.close(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def require_output() -> None:
    """Refuse to make a report that nobody would get. Raises `UsageError`."""
    if "stdout" in _closed:
        raise UsageError(
            "the standard output is closed, so nobody would see the report",
            hint="Open it, or name a file with --report-file.",
        )


def complain(error: LeakscopeError) -> None:
    """Tell the user on standard error what happened and what to try, if anybody can be told."""
    from leakscope.report.text import printable

    try:
        print(f"leakscope: {printable(str(error))}", file=sys.stderr)
        if error.hint:
            print(f"  {printable(error.hint)}", file=sys.stderr)
        sys.stderr.flush()
    except (OSError, ValueError):
        silence(sys.stderr)  # the exit status still says that it failed


def silence(stream: TextIO) -> None:
    """Send what is still to be flushed to `stream` nowhere: its reader has gone."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return  # not a stream of the operating system
