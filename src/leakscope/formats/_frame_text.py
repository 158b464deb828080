# SPDX-License-Identifier: Apache-2.0
"""A frame as valgrind's tools write it into their files."""

from __future__ import annotations

import re

from leakscope.model.builder import BuiltFrame
from leakscope.model.frames import Address, FrameName

__all__ = ["frame_of"]

_FRAME = re.compile(r"0x([0-9A-Fa-f]{1,16}): (.*)", re.DOTALL)
_PLACE = re.compile(r"(.+?):(\d{1,9})(?::(\d{1,9}))?")
_MOST_TEXT = 1 << 12


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
    before, bracket, place = function.rpartition(" (")
    if bracket and place.endswith(")"):
        at = _PLACE.fullmatch(place[:-1])
        if place.startswith("in "):
            function, module = before, place[3:-1]
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
