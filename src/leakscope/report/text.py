# SPDX-License-Identifier: Apache-2.0
"""Names and other texts as terminals show them.

Every name that comes from a traced program (functions, paths, source lines) is hostile
input: `printable` is the only way it gets into a report, and what it returns never
moves the cursor, changes a colour or starts a new line.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = [
    "cells",
    "clip_left",
    "clip_right",
    "head",
    "name_within",
    "printable",
]

_NAMED_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    """Return `text` with every control, format and invalid character as a visible escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    named = _NAMED_ESCAPES.get(character)
    if named is not None:
        return named
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# ASCII with the bars of a plot and our own marks: a screen has many of these at every look.
_NARROW = re.compile("[\x20-\x7e\u2580-\u259f\u2026\u00b7\u2192]*")


def cells(text: str) -> int:
    """Return how many terminal columns printable `text` takes."""
    if text.isascii() or _NARROW.fullmatch(text):
        return len(text)
    return sum(_cell(c) for c in text)


def _cell(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def head(text: str, room: int) -> str:
    """Return the longest beginning of `text` that fits in `room` columns."""
    if cells(text) <= room:
        return text
    used = 0
    for index, character in enumerate(text):
        used += _cell(character)
        if used > room:
            return text[:index]
    return text


def _tail(text: str, room: int) -> str:
    """The longest end of `text` that fits in `room` columns."""
    used = 0
    for index in range(len(text) - 1, -1, -1):
        used += _cell(text[index])
        if used > room:
            return text[index + 1 :]
    return text


def clip_left(text: str, room: int, ellipsis: str) -> str:
    """Cut a path from the left, at a slash when there is one, so that its end stays."""
    if cells(text) <= room:
        return text
    tail = _tail(text, max(room - cells(ellipsis), 1))
    slash = tail.find("/")
    if 0 <= slash < len(tail) // 2:
        tail = tail[slash:]
    return head(ellipsis + tail, room)


def clip_right(text: str, room: int, ellipsis: str) -> str:
    """Cut a source line from the right."""
    if cells(text) <= room:
        return text
    return head(text, max(room - cells(ellipsis), 0)).rstrip() + ellipsis


def name_within(name: str, room: int, ellipsis: str) -> str:
    """Shorten a function name to `room` columns, losing the least telling parts first.

    Template arguments go first, then the parameter list, then the middle.
    """
    if cells(name) <= room:
        return name
    if not name.startswith("<"):  # Rust's `<T as Trait>::f` says it all between the brackets
        name = _fold(name, "<", ">", ellipsis)
        if cells(name) <= room:
            return name
    name = _fold(name, "(", ")", ellipsis)
    if cells(name) <= room:
        return name
    room = max(room - cells(ellipsis), 1)
    front = room * 2 // 3
    return head(name, front) + ellipsis + _tail(name, room - front)


# Brackets that belong to an operator's name and open nothing.
_OPERATOR = re.compile(r"\boperator\s*(?:\(\)|<=>|->\*?|<<=?|>>=?|[<>]=?)")


def _fold(name: str, opening: str, closing: str, ellipsis: str) -> str:
    """Replace what stands between outermost brackets; an unbalanced name is left alone."""
    parts: list[str] = []
    depth = 0
    index = 0
    while index < len(name):
        operator = _OPERATOR.match(name, index) if name[index] == "o" else None
        token = operator.group() if operator else name[index]
        index += len(token)
        if token == opening:
            depth += 1
            if depth > 1:
                continue
        elif token == closing:
            depth -= 1
            if depth < 0:
                return name
            if depth > 0:
                continue
            if name[index - 2] != opening:
                parts.append(ellipsis)
        elif depth > 0:
            continue
        parts.append(token)
    return "".join(parts) if depth == 0 else name
