# SPDX-License-Identifier: Apache-2.0
"""A regular file that somebody else wrote, read in pieces up to a bound."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Self

from leakscope.errors import RecordingError
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ForeignFile"]

_MOST = 256 << 20  # bytes
_PIECE = 1 << 16


class ForeignFile:
    """An open file. A context manager."""

    def __init__(self, path: str, descriptor: int, size: int) -> None:
        self.path = path
        self.size = size
        self._fd = descriptor

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ForeignFile | None:
        """Open a regular file; None for what is none, or cannot be opened: others say why."""
        name = os.fspath(path)
        try:
            # Not blocking: a FIFO of that name must not hold us up.
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (OSError, ValueError):
            return None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            return None
        return cls(name, fd, status.st_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def head(self, count: int) -> bytes:
        """Return the first `count` bytes, fewer where there are not so many."""
        try:
            return os.pread(self._fd, count, 0)
        except OSError as error:
            raise self._error(error) from error

    def pieces(self) -> Iterator[bytes]:
        """Yield the content from the start. Raises `RecordingError` when there is too much."""
        at = 0
        while True:
            try:
                piece = os.pread(self._fd, _PIECE, at)
            except OSError as error:
                raise self._error(error) from error
            if not piece:
                return
            at += len(piece)
            if at > _MOST:
                raise RecordingError(
                    f"{self.path} is larger than {bytes_text(_MOST)}, and no report of that length is read",
                    hint="Cut out the part that matters.",
                )
            yield piece

    def _error(self, error: OSError) -> RecordingError:
        return RecordingError(f"cannot read {self.path}: {error.strerror}")
