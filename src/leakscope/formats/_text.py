# SPDX-License-Identifier: Apache-2.0
"""What the readers of text share: lines of bounded length, numbers, kinds of allocations.

Logs come through terminals, continuous integration and mail: colours, carriage returns and
NULs are taken out of every line, and `without_prefix` takes off what such a service put before it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from leakscope.model.builder import BuiltFrame
from leakscope.model.frames import Address, FrameName

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakscope.formats._file import ForeignFile

__all__ = ["LogLines", "allocation_kind", "frame", "plain_number"]
__all__ += ["without_colours", "without_prefix"]

_MOST_LINE = 1 << 14  # bytes; the rest of a longer line is not read
_MOST_NUMBER = 1 << 40  # so that a million of them can be added
_MOST_ADDRESS = (1 << 64) - 1

_COLOUR = re.compile("\x1b\\[[0-9;?]*[A-Za-z]")
_PREFIX = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z "  # GitHub's raw log
    r"|\d{1,6}: "  # ctest -V
    r"|[\w.-]{1,80}\s{1,20}\| "  # docker compose
    r"|\[\s{0,12}\d{1,12}\.\d{1,9}\](?:\[\s{0,9}[TC]\d{1,9}\])? "  # the kernel's log
    r"|[A-Z][a-z]{2}\s{1,2}\d{1,2} \d\d:\d\d:\d\d \S{1,80} kernel: "  # syslog
    r"|> "  # mail
)
_ALLOCATORS = {
    "calloc": "calloc",
    "realloc": "realloc",
    "reallocarray": "realloc",
    "memalign": "memalign",
    "posix_memalign": "memalign",
    "aligned_alloc": "memalign",
    "valloc": "memalign",
    "pvalloc": "memalign",
}


class LogLines:
    """The lines of a file, once. `cut` tells that the last one, just given, has no end."""

    def __init__(
        self, file: ForeignFile, most: int | None = None, *, stamped: bool = False
    ) -> None:
        self._pieces = file.pieces() if most is None else file.pieces(most, stamped=stamped)
        self.cut = False
        self.holes = 0  # NULs: parts of the file that nobody wrote

    def __iter__(self) -> Iterator[str]:
        rest = b""  # what of a line is not ended
        for piece in self._pieces:
            parts = (rest + piece).split(b"\n")
            rest = parts.pop()
            for part in parts:
                yield self._line(part)
            # Only the NULs of a hole make a line long that matters.
            if len(rest) > _MOST_LINE:
                self.holes += rest.count(0)
                rest = rest.replace(b"\0", b"")[:_MOST_LINE]
        if rest.strip(b"\0\r\n\t "):
            self.cut = True
            yield self._line(rest)
        else:
            self.holes += rest.count(0)

    def _line(self, raw: bytes) -> str:
        if b"\0" in raw:
            self.holes += raw.count(0)
            raw = raw.replace(b"\0", b"")
        text = raw[:_MOST_LINE].decode("utf-8", "replace")
        if "\x1b" in text:
            text = without_colours(text)
        return text.rstrip("\r\n")


def without_colours(text: str) -> str:
    """Take out what a terminal would colour the text by."""
    return _COLOUR.sub("", text)


def without_prefix(line: str) -> str:
    """Take off what continuous integration, containers, the kernel's log and mail put first."""
    for _ in range(4):
        found = _PREFIX.match(line)
        if found is None:
            break
        line = line[found.end() :]
    return line


def plain_number(text: str | None, base: int = 10) -> int | None:
    """A whole number that a program can have written, with commas; None for everything else."""
    if not text or len(text) > 30:
        return None
    digits = text.replace(",", "")
    if not digits.isascii() or not digits.isalnum():
        return None
    try:
        value = int(digits, base)
    except ValueError:
        return None
    return value if 0 <= value <= (_MOST_ADDRESS if base == 16 else _MOST_NUMBER) else None


def allocation_kind(function: str) -> str:
    """Return the kind of an allocation by the name of the function that made it."""
    name = function
    for before in ("___interceptor_", "__interceptor_", "__libc_"):
        name = name.removeprefix(before)
    if name.startswith(("operator new[]", "_Zna", "__builtin_vec_new")):
        return "new[]"
    if name.startswith(("operator new", "_Znw", "__builtin_new")):
        return "new"
    return _ALLOCATORS.get(name, "malloc")


def frame(
    address: int | Address | None = None,
    function: str | None = None,
    file: str | None = None,
    line: int | None = None,
    module: str | None = None,
    *,
    exact: bool = False,
    inlined: bool = False,
) -> BuiltFrame | None:
    """Make a frame of what a file tells of it; None where that is nothing."""
    where = Address(None, address, exact=exact) if isinstance(address, int) else address
    if line is not None and line >= 1 << 31:
        line = None
    name = FrameName(
        function=function or None,
        file=file or None,
        line=line,
        module_path=module or None,
        inlined=inlined,
    )
    if name == FrameName(inlined=inlined):
        return None if where is None else BuiltFrame(where)
    return BuiltFrame(where, name)
