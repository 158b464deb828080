# SPDX-License-Identifier: Apache-2.0
"""The kernel's own symbols, from /proc/kallsyms: which function an address is in.

The addresses are zero for those who may not see them (kernel.kptr_restrict, CAP_SYSLOG).
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Kallsyms", "KernelSymbol", "parse_kallsyms", "read_kallsyms"]

_MOST_BYTES = 256 << 20
_LONGEST = 1 << 20  # bytes of a function: what is further away is in no function that we know
_CODE = frozenset("tTwW")
_MOST_NAME = 512


class KernelSymbol(NamedTuple):
    """A function of the kernel. `module` is None for the kernel itself."""

    name: str
    module: str | None
    offset: int  # of the address that was looked up
    size: int | None = None  # up to the next symbol; None for the last one


class Kallsyms:
    """Functions by address."""

    def __init__(self, symbols: Iterable[tuple[int, str, str | None]]) -> None:
        """`symbols` are address, name and module; of several at one address the first counts."""
        ordered = sorted(symbols, key=lambda each: each[0])
        self._starts: Sequence[int] = [each[0] for each in ordered]
        self._symbols = ordered
        self._of_name = {each[1]: each[0] for each in reversed(ordered) if each[2] is None}

    def __len__(self) -> int:
        return len(self._symbols)

    def address(self, name: str) -> int | None:
        """Return where a function of the kernel itself begins; None for one that it has not."""
        return self._of_name.get(name)

    def find(self, address: int, *, exact: bool = False) -> KernelSymbol | None:
        """Return the function that an address is in; a return address belongs to the call before."""
        at = bisect.bisect_right(self._starts, address if exact else address - 1) - 1
        if at < 0 or address - self._starts[at] > _LONGEST:
            return None
        start = self._starts[at]
        at = bisect.bisect_left(self._starts, start)
        after = bisect.bisect_right(self._starts, start)
        size = self._starts[after] - start if after < len(self._starts) else None
        return KernelSymbol(self._symbols[at][1], self._symbols[at][2], address - start, size)


def parse_kallsyms(lines: Iterable[str]) -> Kallsyms:
    """Read lines "ADDRESS TYPE NAME [MODULE]"; those that are no functions are left out."""
    found = []
    for line in lines:
        words = line.split()
        if len(words) not in (3, 4) or words[1] not in _CODE or len(words[2]) > _MOST_NAME:
            continue
        try:
            address = int(words[0], 16)
        except ValueError:
            continue
        if 0 < address < 1 << 64:
            module = words[3][1:-1] if len(words) == 4 and words[3][0] == "[" else None
            found.append((address, words[2], module or None))
    return Kallsyms(found)


def read_kallsyms(path: str = "/proc/kallsyms") -> Kallsyms:
    """Return the symbols of this kernel: none where they are hidden, or the file is missing."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return parse_kallsyms(file.read(_MOST_BYTES).splitlines())
    except OSError:
        return Kallsyms(())
