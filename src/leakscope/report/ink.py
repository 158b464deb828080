# SPDX-License-Identifier: Apache-2.0
"""What a terminal can show: its width, colours and characters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.report.text import cells, head, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ALARM", "CALM", "STEP", "WARNING", "Ink"]

# Colour codes. The meaning is never in the colour alone.
ALARM, WARNING, CALM, STEP = "1;31", "1;33", "1;32", "36"

_PROSE = 100  # longer lines of prose are hard to read
_TIED = re.compile(r"(?<=\d) (?=(?:%|[KMGTPE]iB|B|ns|µs|ms|s|min|h|days?)(?![a-zA-Z]))")


@dataclass(frozen=True, slots=True)
class Ink:
    """How to put marks on this terminal; `base` is the directory paths are shown relative to."""

    width: int = 80
    colour: bool = False
    unicode: bool = True
    base: str | None = None

    def paint(self, code: str, text: str) -> str:
        """Return `text` in the colour `code`, or as it is on a plain terminal."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text

    def paint_all(self, code: str, lines: Iterable[str]) -> list[str]:
        """Colour each line on its own: a colour that spans lines survives badly in pagers."""
        return [self.paint(code, line) for line in lines]

    def bold(self, text: str) -> str:
        """Return `text` emphasised."""
        return self.paint("1", text)

    def dim(self, text: str) -> str:
        """Return `text` toned down."""
        return self.paint("2", text)

    @property
    def ellipsis(self) -> str:
        """What stands for something left out."""
        return "…" if self.unicode else "..."

    @property
    def dot(self) -> str:
        """What separates facts on one line."""
        return " · " if self.unicode else ", "

    @property
    def marker(self) -> str:
        """What points at the line that matters."""
        return "▶" if self.unicode else ">"

    @property
    def bar(self) -> str:
        """What separates a line number from its source line."""
        return "│" if self.unicode else "|"

    def wrap(self, text: str, indent: str = "", hanging: str | None = None) -> list[str]:
        """Wrap a sentence to the width; `hanging` indents the lines after the first."""
        hanging = indent if hanging is None else hanging
        room = min(self.width, _PROSE)
        lines: list[str] = []
        line, used = indent, 0
        # A number and its unit stay together.
        for tied in _TIED.sub("\0", printable(text)).split():
            word = tied.replace("\0", " ")
            if used and cells(line) + 1 + cells(word) > room:
                lines.append(line)
                line, used = hanging, 0
            while word and cells(line) + (1 if used else 0) + cells(word) > room:
                piece = head(word, max(room - cells(line), 1)) or word[0]
                lines.append(line + piece)
                word, line, used = word[len(piece) :], hanging, 0
            if word:
                line += f" {word}" if used else word
                used += 1
        return [*lines, line] if used else lines
