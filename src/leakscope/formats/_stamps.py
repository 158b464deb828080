# SPDX-License-Identifier: Apache-2.0
"""What a service puts before every line of a log, taken off before any reader sees it.

Continuous integration, containers, journals, `ts`, `grep -n` and mail do that. What it is, the
first lines tell: it must stand before nearly all of them, so that a line of a report that only
looks like it is left alone. Colours go too, and what a carriage return would overwrite.
A reader that needs the times gets them between two marks before each line.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MARK", "without_stamps"]

MARK = b"\x1e"
"""Stands before and behind a stamp that is kept: the record separator, which no report has."""

_HEAD = 1 << 14  # bytes that are looked at
_MOST_LINE = 1 << 20  # bytes; the parts of a longer line are taken as they come
_FEWEST = 3  # lines: fewer may be alike by chance
_SHARE = 0.9
_MOST_NESTED = 4

_DATE = rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_CLOCK = rb"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_MONTH = rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
_WHO = rb"([\w.-]{1,80} [\w./@-]{1,80}(?:\[[\w.]{1,20}\])?): "  # host and program of a journal
_SHAPES = tuple(
    re.compile(shape)
    for shape in (
        rb"[^\t\n]{1,200}\t[^\t\n]{1,200}\t(?:\xef\xbb\xbf)?(?=\d{4}-\d\d-\d\dT)",  # gh run view --log
        rb"(?:\xef\xbb\xbf)?" + _DATE + rb" \d\d[OE](?:[ +]|$)",  # GitLab
        _DATE + rb" (?:stdout|stderr) [FP](?: |$)",  # a container's log file
        _DATE + rb" " + _WHO,
        _DATE + rb" ([\w./-]{1,80}\[[\w.]{1,20}\]): ",  # Heroku
        rb"(?:\xef\xbb\xbf)?(?:\[" + _DATE + rb"\]|" + _DATE + rb")(?: |$)",
        _MONTH + rb" " + _WHO,
        _MONTH + rb"(?: |$)",
        rb"\[" + _CLOCK + rb"\](?: |$)",
        rb"\[ {0,8}\d{1,9}\.\d{1,9}s?\](?: |$)",  # seconds since the start
        rb"1\d{9}(?:\.\d{1,9})?(?: |$)",  # seconds since 1970
        _CLOCK + rb"(?:  ?|$)",
        rb"[\w.-]{1,80} {1,20}\|(?: |$)",  # docker compose
        rb">(?: |$)",  # mail
    )
)
_COLOUR = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b_bk;t=\d{1,20}\x07")
_NUMBERED = re.compile(rb" {0,8}(\d{1,9})[:\t]")  # grep -n, cat -n
# A word before all lines: [pod/name], test-suite.log:, or a bar.
_WORD = re.compile(rb"\[[^]\n+]{1,120}\] |[\w./@+-]{1,120}: |[\w./@-]{0,80} {0,20}\| ")
# What a log of a malloc hook begins its lines with: a function, its place, an address.
_OWN = re.compile(rb"(?i)alloc|free|new|delete|\.[a-z+]{1,4}:\d|0x")


@dataclass(frozen=True, slots=True)
class _Cleaner:
    shapes: tuple[re.Pattern[bytes], ...]
    coloured: bool
    kept: bool = False  # stamps stay, between marks

    def line(self, line: bytes) -> bytes:
        """Return a line, without its end, as it was written."""
        if self.coloured:
            line = _COLOUR.sub(b"", line)
        end = b"\r" if line.endswith(b"\r") else b""
        text = line.removesuffix(b"\r")
        text = text[text.rfind(b"\r") + 1 :]
        stamps = b""
        for shape in self.shapes:
            found = shape.match(text)
            if found is not None:
                stamps += found[0].replace(MARK, b"") + b" "
                text = text[found.end() :]
                text = text[text.rfind(b"\r") + 1 :]
        if self.kept and stamps:
            return MARK + stamps + MARK + text + end
        return text + end


def without_stamps(pieces: Iterator[bytes], *, kept: bool = False) -> Iterator[bytes]:
    """Yield what the pieces of a file hold, without what a service put before every line.

    With `kept` that stands before the line all the same, between two of `MARK`.
    """
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= _HEAD:
            break
    cleaner = _cleaner(head[:_HEAD], whole=len(head) <= _HEAD)
    if cleaner is None:
        if head:
            yield head
        yield from pieces
        return
    if kept:
        cleaner = replace(cleaner, kept=True)
    rest = b""
    for piece in itertools.chain((head,), pieces):
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        if lines:
            yield b"\n".join([*map(cleaner.line, lines), b""])
        if len(rest) > _MOST_LINE:
            yield cleaner.line(rest)
            rest = b""
    if rest and (last := cleaner.line(rest)):
        yield last


def _cleaner(head: bytes, *, whole: bool) -> _Cleaner | None:
    """Return what takes off the stamps, None for what has none or is no text."""
    if b"\0" in head:
        return None
    lines = head.split(b"\n")
    if not whole:
        lines.pop()
    coloured = _COLOUR.search(head) is not None
    overwritten = any(b"\r" in line.rstrip(b"\r") for line in lines)
    plain = _Cleaner((), coloured)
    lines = [text for line in lines if (text := plain.line(line).rstrip(b"\r"))]
    shapes: list[re.Pattern[bytes]] = []
    while len(lines) >= _FEWEST and len(shapes) < _MOST_NESTED:
        shape = _shape(lines)
        if shape is None:
            break
        shapes.append(shape)
        one = _Cleaner((shape,), coloured=False)
        lines = [text for line in lines if (text := one.line(line)).strip()]
    return _Cleaner(tuple(shapes), coloured) if shapes or coloured or overwritten else None


def _shape(lines: list[bytes]) -> re.Pattern[bytes] | None:
    for shape in _SHAPES:
        found = [match for line in lines if (match := shape.match(line)) is not None]
        # Who wrote a line does not change with every line: else it is the report's own text.
        names = {match[1] for match in found} if shape.groups else set()
        if len(found) >= _SHARE * len(lines) and len(names) * 2 <= max(len(found), 2):
            return shape
    numbers = [_NUMBERED.match(line) for line in lines]
    if all(
        a is not None and b is not None and int(a[1]) < int(b[1]) <= int(a[1]) + 50
        for a, b in itertools.pairwise(numbers)
    ):
        return _NUMBERED
    return _common(lines)


def _common(lines: list[bytes]) -> re.Pattern[bytes] | None:
    """Return the word, or the indent, that all lines begin with."""
    first, last = min(lines)[:200], max(lines)[:200]
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    common = first[: sum(1 for _ in pairs)]
    word = _WORD.match(common)
    indent = common[: len(common) - len(common.lstrip(b" \t"))]
    text = word[0] if word is not None and not _OWN.search(word[0]) else indent
    if not text:
        return None
    # An editor takes off the blank at the end of a line that has nothing else.
    return re.compile(re.escape(text) + rb"|" + re.escape(text.rstrip()) + rb"$")
