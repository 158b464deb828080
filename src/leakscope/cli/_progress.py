# SPDX-License-Identifier: Apache-2.0
"""What takes so long, on a terminal that waits."""

from __future__ import annotations

import sys
import threading
from typing import Self, TextIO

__all__ = ["Progress"]

_BAR = 20  # characters


class Progress:
    """Says on standard error what takes so long, once it has taken two seconds.

    Silent when standard error is not a terminal.
    """

    def __init__(self, *, delay_s: float = 2.0, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._stage = "working"
        self._shown = False
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        if self._stream.isatty():
            self._timer = threading.Timer(delay_s, self._first)
            self._timer.daemon = True

    def __enter__(self) -> Self:
        if self._timer is not None:
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        with self._lock:
            self._timer = None
            if self._shown:
                self._put("")

    def stage(self, text: str) -> None:
        """Name what is being done now."""
        with self._lock:
            self._stage = text
            if self._shown:
                self._put(text)

    def share(self, path: str, share: float) -> None:
        """Show how much of a file has been read, as a bar."""
        if self._timer is not None:
            from leakscope.words import share_text

            done = round(share * _BAR)
            bar = "#" * done + "-" * (_BAR - done)
            self.stage(f"reading [{bar}] {share_text(share)} {path.rsplit('/', 1)[-1]}")

    def _first(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._shown = True
                self._put(self._stage)

    def _put(self, text: str) -> None:
        from leakscope.report.text import head, printable

        line = f"leakscope: {printable(text)} ..." if text else ""
        self._stream.write(f"\r\x1b[K{head(line, 79)}")
        self._stream.flush()
