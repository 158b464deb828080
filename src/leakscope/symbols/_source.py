# SPDX-License-Identifier: Apache-2.0
"""Show the source around a line, when the source is there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from leakscope.proc.rights import open_named

if TYPE_CHECKING:
    from leakscope.model.frames import Frame

__all__ = ["source_context"]

_MAX_BYTES = 32 << 20
_MAX_COLUMNS = 500
_MAX_LINES = 2_000_000
_TAB = 4


def source_context(frame: Frame, radius: int = 2) -> list[tuple[int, str]]:
    """Return (line number, text) for the lines around `frame.line`; empty when there are none.

    A relative file name is looked up from the current directory. Tabs become spaces, control
    characters visible escapes, long lines are cut. Not shown: what is no regular file or no
    text, and what somebody on whose word it is named may not read.
    """
    if frame.file is None or frame.line is None or frame.line < 1 or frame.line > _MAX_LINES:
        return []
    if "\0" in frame.file:
        return []
    authors, root = (frame.origin.authors, frame.origin.root) if frame.origin else ((), None)
    try:
        fd = open_named(frame.file, authors, root)
    except (OSError, ValueError):
        return []
    try:
        data = bytearray()
        while len(data) < _MAX_BYTES:
            part = os.read(fd, 1 << 18)
            data += part
            if not part or data.count(b"\n") > frame.line + radius:
                break
    except OSError:
        return []
    finally:
        os.close(fd)
    if b"\0" in data:
        return []
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if frame.line > len(lines):
        return []  # not the file that was compiled
    first = max(frame.line - max(radius, 0), 1)
    last = min(frame.line + max(radius, 0), len(lines))
    return [(number, _shown(lines[number - 1])) for number in range(first, last + 1)]


def _shown(line: bytes | bytearray) -> str:
    text = bytes(line[: _MAX_COLUMNS * 4]).decode("utf-8", "replace")
    text = text.rstrip("\r").expandtabs(_TAB)[:_MAX_COLUMNS]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
