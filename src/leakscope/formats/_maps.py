# SPDX-License-Identifier: Apache-2.0
"""The copy of /proc/PID/maps that a heap profile ends with: which object an address is in."""

from __future__ import annotations

import bisect
import re
from typing import TYPE_CHECKING

from leakscope.errors import LeakscopeError
from leakscope.model.builder import BuiltFrame, RecordingBuilder
from leakscope.model.frames import Address, Module
from leakscope.proc.elf import ET_EXEC, read_elf

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Maps"]

_LINE = re.compile(
    rb"\s*([0-9a-f]{1,16})-([0-9a-f]{1,16})"
    rb"(?: [rwxsp-]{4} ([0-9a-f]{1,16}) [0-9a-f]+:[0-9a-f]+ \d+|:)\s*(.*)"
)
_MOST_LINES = 1 << 17
_MOST_MODULES = 60_000  # a node has 16 bits for it
_FIXED = 0x1000_0000  # programs that are not position-independent are linked below this
_DELETED = " (deleted)"


class Maps:
    """Lines of a maps file, and the frames that addresses are in.

    Programs below `fixed` are taken to have been linked there, where their files are not at hand.
    """

    def __init__(self, *, fixed: int = _FIXED) -> None:
        self._fixed = fixed
        self._spans: dict[str, list[tuple[int, int, int]]] = {}  # path: (start, end, offset)
        self._count = 0
        self._starts: list[int] = []
        self._sorted: list[tuple[int, int, str]] = []
        self._modules: dict[str, tuple[int | None, int]] = {}

    def add(self, line: bytes) -> bool:
        """Take a line; returns whether it was one of a maps file."""
        found = _LINE.fullmatch(line)
        if found is None or self._count >= _MOST_LINES:
            return False
        self._count += 1
        start, end = int(found[1], 16), int(found[2], 16)
        path = found[4].decode("utf-8", "replace").removesuffix(_DELETED)
        if path.startswith("/") and start < end:
            self._spans.setdefault(path, []).append((start, end, int(found[3] or b"0", 16)))
            self._starts = []
        return True

    def path(self, address: int) -> str | None:
        """Return the path of the object at `address`, None where there is none."""
        if not self._starts:
            self._sorted = sorted(
                (start, end, path) for path, spans in self._spans.items() for start, end, _ in spans
            )
            self._starts = [start for start, _, _ in self._sorted]
        at = bisect.bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._sorted[at][1]:
            return None
        return self._sorted[at][2]

    def frames(
        self, build: RecordingBuilder, addresses: Sequence[int], *, skip: str | None = None
    ) -> list[BuiltFrame]:
        """Return the frames of return addresses, innermost first.

        `skip` begins the file name of the allocator's library, whose inner frames are left out.
        """
        inner = 0
        if skip is not None:
            while inner < len(addresses) and _named(self.path(addresses[inner]), skip):
                inner += 1
        kept = addresses[inner:] or addresses  # rather the allocator's than none
        return [BuiltFrame(self.address(build, each)) for each in kept]

    def address(self, build: RecordingBuilder, address: int, *, exact: bool = False) -> Address:
        """Return where an address is; the object it is in becomes a module of the recording."""
        path = self.path(address if exact else max(address - 1, 0))
        if path is None:
            return Address(None, address, exact)
        if path not in self._modules:
            self._modules[path] = self._module(build, path)
        index, bias = self._modules[path]
        if index is None or address < bias:
            return Address(None, address, exact)
        return Address(index, address - bias, exact)

    def _module(self, build: RecordingBuilder, path: str) -> tuple[int | None, int]:
        if len(self._modules) >= _MOST_MODULES:
            return None, 0
        spans = sorted(self._spans[path])
        start, _, offset = spans[0]
        bias = _bias(path, start, offset, self._fixed)
        # No build-id: a file of that path here need not be the one that was mapped there.
        return build.module(Module(path, None, start, max(e for _, e, _ in spans), bias)), bias


def _bias(path: str, start: int, offset: int, below: int) -> int:
    try:
        fixed = read_elf(path).type == ET_EXEC
    except LeakscopeError:
        fixed = start < below
    return 0 if fixed else max(start - offset, 0)


def _named(path: str | None, prefix: str) -> bool:
    return path is not None and path.rsplit("/", 1)[-1].startswith(prefix)
