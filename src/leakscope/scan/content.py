# SPDX-License-Identifier: Apache-2.0
"""What lost blocks look like, when nobody knows who allocated them.

A C++ object with virtual functions begins with the address of its class's table, which has a
symbol. Of anything else only the kind is told, text or zeros, never what is in it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakscope.model.heap import LostContent
from leakscope.proc.modules import mapped_module
from leakscope.symbols import find_variables

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from leakscope.proc.maps import Mapping
    from leakscope.target.memory import Memory

__all__ = ["look_at_lost"]

_LOOKED_AT = 4000
_HEAD = 16
_MOST = 8
_TABLE = "vtable for "


def look_at_lost(
    memory: Memory,
    starts: npt.NDArray[np.uint64],
    sizes: npt.NDArray[np.unsignedinteger],
    pid: int = 0,
) -> tuple[LostContent, ...]:
    """Return what the blocks are, by share of their bytes, the largest first.

    Looks at 4,000 of them at most, evenly over all. `pid` is that of the process whose files
    have the symbols, 0 for a core file.
    """
    if not len(starts):
        return ()
    chosen = np.unique(np.linspace(0, len(starts) - 1, _LOOKED_AT).astype(np.int64)).tolist()
    maps = memory.mappings
    places = [mapping.start for mapping in maps]
    seen: Counter[str] = Counter()
    tables: dict[str, Counter[int]] = {}  # of each module: address, bytes of such objects
    for at in chosen:
        size = int(sizes[at])
        head = memory.read(int(starts[at]), min(size, _HEAD))
        word = int.from_bytes(head[:8], "little") if len(head) >= 8 else 0
        path = _module_at(word, maps, places)
        if path:
            tables.setdefault(path, Counter())[word] += size
        else:
            seen[_kind(head)] += size
    for path, words in tables.items():
        names = _classes(path, list(words), maps, pid)
        for word, size in words.items():
            seen[names.get(word, "other data")] += size
    total = sum(seen.values()) or 1
    return tuple(LostContent(what, size / total) for what, size in seen.most_common(_MOST))


def _module_at(word: int, maps: Sequence[Mapping], places: list[int]) -> str:
    """Return the file whose data the word may point to; "" when it is no such pointer."""
    at = bisect_right(places, word) - 1
    if word % 8 or at < 0 or word >= maps[at].end or "x" in maps[at].permissions:
        return ""
    return maps[at].path if maps[at].path.startswith("/") else ""


def _classes(path: str, words: list[int], maps: Sequence[Mapping], pid: int) -> dict[int, str]:
    module = mapped_module(path, maps, pid)
    if module is None:
        return {}
    found = find_variables(module, [word - module.bias for word in words], pid or None)
    names: dict[int, str] = {}
    for word in words:
        name, _ = found.get(word - module.bias, ("", 0))
        if name.startswith(_TABLE):
            names[word] = f"{name.removeprefix(_TABLE)} objects, of {Path(path).name}"
    return names


def _kind(head: bytes) -> str:
    if len(head) >= 4 and not any(head):
        return "zeros"
    text = head.rstrip(b"\0")
    # Sixteen printable bytes, or a short string to its end.
    if len(text) >= 4 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in text):
        return "text"
    return "other data"
