# SPDX-License-Identifier: Apache-2.0
"""Saying what went wrong, and keeping quiet when nobody listens any more."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from leakscope.errors import LeakscopeError

__all__ = ["complain", "silence"]


def complain(error: LeakscopeError) -> None:
    """Tell the user on standard error what happened and what to try."""
    from leakscope.report._text import printable

    print(f"leakscope: {printable(str(error))}", file=sys.stderr)
    if error.hint:
        print(f"  {printable(error.hint)}", file=sys.stderr)


def silence(stream: TextIO) -> None:
    """Send what is still to be flushed to `stream` nowhere: its reader has gone."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return  # not a stream of the operating system
