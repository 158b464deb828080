# SPDX-License-Identifier: Apache-2.0
"""A frame as tools write it: a function and, mostly in brackets, its place."""

from __future__ import annotations

import re

from leakscope.model.builder import BuiltFrame
from leakscope.model.frames import Address, FrameName

__all__ = ["frame_of", "function_and_file", "function_and_place"]

_FRAME = re.compile(r"0x([0-9A-Fa-f]{1,16}): (.*)", re.DOTALL)
_PLACE = re.compile(r"(.+?):(\d{1,9})(?::(\d{1,9}))?")
_MOST_TEXT = 1 << 12
# Behind the brackets of a function's parameters, and before a blank or the end.
_BEHIND = re.compile(
    r"(?: (?:const|volatile|noexcept|&&?|\(\.[\w.]{1,80}\)|\[[^]]{1,80}\]))*(?= |$)"
)
_BRACKETS = {"(": 1, "<": 1, "[": 1, "{": 1, ")": -1, ">": -1, "]": -1, "}": -1}
_OPERATOR = re.compile(
    r"operator(?:\(\)|\[\]|->\*?|<=>|<<=?|>>=?|[<>]=?|(?: (?:new|delete)(?:\[\])?(?=[ (]|$)))"
)


def frame_of(text: str) -> BuiltFrame | None:
    """Return the frame in such as `0x4005DB: main (alloctest.c:31)`, None where it is none.

    The place is FILE:LINE, FILE:LINE:COLUMN or `in MODULE`; the function `???` is not known.
    """
    found = _FRAME.fullmatch(text[:_MOST_TEXT])
    if found is None:
        return None
    address, function = Address(None, int(found[1], 16), exact=True), found[2]
    file = module = None
    line = column = None
    before, place = function_and_place(function)
    if place is not None:
        at = _PLACE.fullmatch(place)
        if place.startswith("in "):
            function, module = before, place[3:]
        elif at is not None:
            function, file, line = before, at[1], int(at[2])
            column = int(at[3]) if at[3] else None
    name = FrameName(
        function=None if function == "???" else function or None,
        file=file,
        line=line,
        column=column,
        module_path=module,
    )
    return BuiltFrame(address, None if name == FrameName() else name)


def function_and_place(text: str) -> tuple[str, str | None]:
    """Split `FUNCTION (PLACE)`; both can have brackets of their own. None: there is no place."""
    if not text.endswith(")"):
        return text, None
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        depth += (text[at] == ")") - (text[at] == "(")
        if depth == 0:
            if at == 0 or text[at - 1] == " ":
                return text[: max(at - 1, 0)], text[at + 1 : -1]
            return text, None
    before, bracket, place = text[:-1].rpartition(" (")  # a path with a bracket too many
    return (before, place) if bracket else (text, None)


def function_and_file(text: str) -> tuple[str, str]:
    """Split `FUNCTION FILE`, where the function can have blanks, and so can the file's path."""
    at = text.find(" /")
    if at <= 0:
        at = _end_of_name(text)
    if at <= 0:
        function, _, file = text.rpartition(" ")
        return function, file
    return text[:at], text[at + 1 :]


def _end_of_name(text: str) -> int:
    """Return where a function's name ends: behind its parameters, else at the first blank.

    Blanks within brackets do not count. 0: it cannot be told.
    """
    depth, at, blank = 0, 0, 0
    while at < len(text):
        if depth == 0 and (found := _OPERATOR.match(text, at)) is not None:
            at = found.end()
            if text[at : at + 1] == " " and not blank:
                blank = at
            continue
        char = text[at]
        if char == ">" and text[at - 1 : at] == "-":
            at += 1
            continue
        depth += _BRACKETS.get(char, 0)
        if depth < 0:
            return 0
        if char == " " and depth == 0 and not blank and not text[:at].endswith("operator"):
            blank = at
        at += 1
        # Parameters stand right behind a name, and what is behind them is no part of it.
        if char == ")" and depth == 0 and (found := _BEHIND.match(text, at)) is not None:
            opening = _opening(text, at)
            if opening > 0 and text[opening - 1] != " ":
                return found.end()
    return blank


def _opening(text: str, end: int) -> int:
    depth = 0
    for at in range(end - 1, -1, -1):
        depth += (text[at] == ")") - (text[at] == "(")
        if depth == 0:
            return at
    return 0
