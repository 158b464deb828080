# SPDX-License-Identifier: Apache-2.0
"""The lines of a file that somebody else wrote, as bytes: for long files and exact formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakscope.formats._file import ForeignFile

__all__ = ["RawLines", "not_understood", "number"]

_MOST_LINE = 1 << 20  # bytes; what stands behind them in a line is dropped
_MOST_NUMBER = 1 << 62


class RawLines:
    """Yields the whole lines, without their ends.

    A last line without an end can be cut inside a number: it is in `rest`, and not yielded.
    """

    def __init__(self, file: ForeignFile, most: int = 256 << 20) -> None:
        self._pieces = file.pieces(most)
        self.rest = b""
        self.count = 0  # lines yielded so far

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if b"\n" not in piece:
                self.rest = (self.rest + piece)[:_MOST_LINE]
                continue
            first, *others = piece.split(b"\n")
            others.insert(0, self.rest + first)
            self.rest = others.pop()
            for line in others:
                self.count += 1
                yield line[:_MOST_LINE].rstrip(b"\r")


def number(text: bytes | str, base: int = 10) -> int | None:
    """Return a whole number that a program can have written; None for everything else."""
    if len(text) > 24 or not text.isascii():
        return None
    digits = text if isinstance(text, str) else text.decode("ascii")
    if "_" in digits:
        return None
    try:
        value = int(digits, base)
    except ValueError:
        return None
    return value if 0 <= value <= (_MOST_NUMBER if base == 10 else (1 << 64) - 1) else None


def not_understood(count: int) -> str:
    """Return the note on so many lines that are not of the format."""
    return f"{plural(count, 'line was', 'lines were')} not understood"
