# SPDX-License-Identifier: Apache-2.0
"""Bounded reads of the kernel's text files that never fail because something went away."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_BYTES", "read_lines", "read_number", "read_text"]

MAX_BYTES = 16 << 20


def read_text(path: str, limit: int = MAX_BYTES) -> str | None:
    """Return the file's text, or None when it is not there or may not be read.

    Lines end in a newline and nothing else: names may hold every other character.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        parts: list[bytes] = []
        size = 0
        # The kernel hands out most of these files a page at a time.
        while size < limit and (part := os.read(fd, min(1 << 16, limit - size))):
            parts.append(part)
            size += len(part)
    except OSError:
        return None
    finally:
        os.close(fd)
    return os.fsdecode(b"".join(parts))


def read_lines(path: str) -> Iterator[str]:
    """Yield the file's lines however many there are; none when it is not there or forbidden."""
    try:
        with open(path, "rb", buffering=1 << 16) as file:
            for line in file:
                yield os.fsdecode(line.removesuffix(b"\n"))
    except OSError:
        return


def read_number(path: str) -> int | None:
    """Return the one number in the file; None when there is none ("max" included)."""
    text = (read_text(path, 64) or "").strip()
    return int(text) if text.isascii() and text.isdecimal() else None
