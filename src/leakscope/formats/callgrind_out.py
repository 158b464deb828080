# SPDX-License-Identifier: Apache-2.0
"""Profiles of callgrind and cachegrind: they hold no memory, and what to run instead is said."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from leakscope.errors import RecordingError
from leakscope.formats._lines import RawLines

if TYPE_CHECKING:
    from leakscope.formats._file import ForeignFile

__all__ = ["read", "recognises"]

_CALLGRIND = re.compile(
    rb"\s*# callgrind format|\A(?:[a-z]+:[^\n]*\n|#[^\n]*\n|[ \t]*\n){0,30}creator: "
)
_CACHEGRIND = re.compile(rb"\s*desc: I1 cache:")
_XTREE = re.compile(rb"^creator: xtree-", re.MULTILINE)
_EVENTS = re.compile(rb"^events: ", re.MULTILINE)
_MOST_TEXT = 200


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is such a profile."""
    plain = head.replace(b"\r", b"")
    known = _CALLGRIND.match(plain) or _CACHEGRIND.match(plain)
    if _XTREE.search(plain[: 1 << 12]) is not None:  # memory in the same format
        return False
    return known is not None and _EVENTS.search(plain) is not None


def read(file: ForeignFile) -> NoReturn:
    """Raise `RecordingError`, which says what it is."""
    told: dict[bytes, str] = {}
    callgrind = _CALLGRIND.match(file.head(1 << 12)) is not None
    for line in RawLines(file):
        name, colon, text = line[: _MOST_TEXT * 2].partition(b":")
        if colon and name in {b"cmd", b"events", b"summary", b"totals"}:
            told.setdefault(name, text.strip().decode("utf-8", "replace")[:_MOST_TEXT])
    command, events = told.get(b"cmd", ""), told.get(b"events", "").split()
    counted = (told.get(b"summary") or told.get(b"totals") or "").split()
    number = counted[0] if counted and counted[0].isascii() and counted[0].isdigit() else None
    program = f" of {command}" if command else ""
    of = f" ({int(number):,} {events[0]})" if number and events else ""
    again = command or "PROGRAM"
    raise RecordingError(
        f"{file.path} is a profile by {'callgrind' if callgrind else 'cachegrind'}{program}{of}:"
        " it tells what was executed, and nothing of memory",
        hint=f"For leaks run: valgrind --leak-check=full {again}, or leakscope run -- {again}",
    )
