# SPDX-License-Identifier: Apache-2.0
"""What blocks look like, when nobody knows who allocated them.

A C++ object with virtual functions begins with the address of its class's table, which has a
symbol, and before which type information lies that has a name. Of anything else only the kind is
told, text or zeros, never what is in it.
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
from leakscope.symbols.classes import read_class_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from leakscope.proc.maps import Mapping
    from leakscope.target.memory import Memory

    Words = npt.NDArray[np.uint64]
    Codes = npt.NDArray[np.int32]

__all__ = ["classify", "look_at_lost"]

_LOOKED_AT = 4000
_HEAD = 4  # words of a block that are looked at
_TEXT = 16  # bytes of them that make a text
_MOST = 8
_MOST_CLASSES = 400  # whose names are looked up
_PIECE = 1 << 20
_TABLE = "vtable for "
_NAME_BYTES = 256

_OTHER, _ZEROS, _TEXTS, _POINTERS, _MIXED, _NUMBERS, _FLOATS = range(7)
_KINDS = (
    "other data",
    "zeros",
    "text",
    "pointers",
    "pointers and other data",
    "small numbers",
    "floating-point numbers",
)


def look_at_lost(
    memory: Memory,
    starts: Words,
    sizes: npt.NDArray[np.unsignedinteger],
    pid: int = 0,
) -> tuple[LostContent, ...]:
    """Return what the blocks are, by share of their bytes, the largest first.

    Looks at 4,000 of them at most, evenly over all. `pid` is that of the process whose files
    have the symbols, 0 for a core file.
    """
    if not len(starts):
        return ()
    chosen = np.unique(np.linspace(0, len(starts) - 1, _LOOKED_AT).astype(np.int64))
    codes, names = classify(memory, starts[chosen], sizes[chosen], pid=pid)
    weights = np.bincount(codes, sizes[chosen].astype(np.float64), len(names))
    seen: Counter[str] = Counter()
    for name, weight in zip(names, weights.tolist(), strict=True):
        seen[name] += weight
    total = sum(seen.values()) or 1
    found = [LostContent(what, size / total) for what, size in seen.most_common(_MOST) if size]
    return tuple(found)


def classify(
    memory: Memory, starts: Words, sizes: npt.NDArray[np.unsignedinteger], *, pid: int = 0
) -> tuple[Codes, list[str]]:
    """Return for each block a number, and by number what such blocks are called.

    `starts` ascend. Reads the first 32 bytes of each. `pid` as in `look_at_lost`.
    """
    heads = _read_heads(memory, starts, sizes)
    words = np.minimum(sizes // 8, _HEAD).astype(np.int64)
    inside = np.arange(_HEAD) < words[:, None]  # which words belong to the block
    maps = memory.mappings
    data, files = _ranges(maps)
    is_pointer = _within(heads, data) & (heads % 8 == 0)
    zero = heads == 0
    codes = np.zeros(len(starts), np.int32)
    codes[(_floats(heads) | zero | ~inside).all(axis=1)] = _FLOATS
    codes[(_small(heads) | ~inside).all(axis=1)] = _NUMBERS
    some = (is_pointer & inside).any(axis=1)
    codes[some & (is_pointer[:, :2] & inside[:, :2]).any(axis=1)] = _MIXED
    codes[some & (is_pointer | zero | ~inside).all(axis=1)] = _POINTERS
    codes[_texts(heads, sizes) & ~is_pointer[:, 0]] = _TEXTS
    codes[(zero | ~inside).all(axis=1) & (sizes >= 4)] = _ZEROS
    tables = _within(heads[:, 0], files) & (heads[:, 0] % 8 == 0) & inside[:, 0]
    named = _named(memory, heads[tables, 0], sizes[tables], maps, pid)
    names = [*_KINDS, *dict.fromkeys(named.values())]
    if named:
        place = {name: number for number, name in enumerate(names)}
        known = np.array(sorted(named), np.uint64)
        numbers = np.array([place[named[int(word)]] for word in known], np.int32)
        at = np.minimum(np.searchsorted(known, heads[:, 0]), len(known) - 1)
        hit = tables & (known[at] == heads[:, 0])
        codes[hit] = numbers[at[hit]]
    return codes, names


def _read_heads(memory: Memory, starts: Words, sizes: npt.NDArray[np.unsignedinteger]) -> Words:
    """Return the first words of each block, zeros beyond its end."""
    found = np.zeros((len(starts), _HEAD), np.uint64)
    maps = memory.mappings
    places = [mapping.start for mapping in maps]
    at = 0
    while at < len(starts):
        base = int(starts[at])
        number = bisect_right(places, base) - 1
        limit = min(base + _PIECE, maps[number].end) if number >= 0 else base + 1
        stop = max(int(np.searchsorted(starts, np.uint64(max(limit, base + 1)))), at + 1)
        size = int(starts[stop - 1]) + 8 * _HEAD - base
        raw = memory.read(base, size)
        piece = np.frombuffer(raw + bytes(-(-size // 8) * 8 - len(raw)), np.uint64)
        first = ((starts[at:stop] - np.uint64(base)) // 8).astype(np.int64)
        for word in range(_HEAD):
            found[at:stop, word] = piece[np.minimum(first + word, len(piece) - 1)]
        at = stop
    words = (sizes // 8).astype(np.int64)
    left = (sizes % 8).astype(np.uint64)  # bytes of a word that the block has only a part of
    for word in range(_HEAD):
        part = np.where(words == word, left, np.uint64(0))
        mask = (np.uint64(1) << (part * np.uint64(8))) - np.uint64(1)
        found[:, word] = np.where(words > word, found[:, word], found[:, word] & mask)
    return found


def _ranges(maps: Sequence[Mapping]) -> tuple[Words, Words]:
    """Return where data is, and where the data of files is: a range a row, ascending."""
    data = [(m.start, m.end) for m in maps if "x" not in m.permissions and m.path[:2] != "[v"]
    files = [(m.start, m.end) for m in maps if "x" not in m.permissions and m.path.startswith("/")]
    return (
        np.array(data, np.uint64).reshape(-1, 2),
        np.array(files, np.uint64).reshape(-1, 2),
    )


def _within(words: Words, ranges: Words) -> npt.NDArray[np.bool_]:
    if not len(ranges):
        return np.zeros(words.shape, np.bool_)
    at = np.searchsorted(ranges[:, 0], words, side="right").astype(np.int64) - 1
    found: npt.NDArray[np.bool_] = (at >= 0) & (words < ranges[np.maximum(at, 0), 1])
    return found


def _floats(heads: Words) -> npt.NDArray[np.bool_]:
    """Which words may be doubles between 1e-19 and 1e19."""
    exponent = (heads >> np.uint64(52)) & np.uint64(0x7FF)
    return (exponent >= 0x3C0) & (exponent <= 0x43F)


def _small(heads: Words) -> npt.NDArray[np.bool_]:
    low, high = heads & np.uint64(0xFFFFFFFF), heads >> np.uint64(32)
    return (low < 1 << 16) & (high < 1 << 16)


def _texts(heads: Words, sizes: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.bool_]:
    """Sixteen printable bytes, or at least four and a zero behind them."""
    raw = np.ascontiguousarray(heads).view(np.uint8).reshape(len(heads), 8 * _HEAD)[:, :_TEXT]
    good = (raw >= 32) & (raw < 127) | (raw == 9) | (raw == 10) | (raw == 13)
    good |= np.arange(_TEXT) >= sizes[:, None]
    length = np.where(good.all(axis=1), _TEXT, np.argmin(good, axis=1))
    ends = raw[np.arange(len(raw)), np.minimum(length, _TEXT - 1)] == 0
    found: npt.NDArray[np.bool_] = (length == _TEXT) & (sizes >= 4) | (length >= 4) & ends
    return found


def _named(
    memory: Memory,
    words: Words,
    sizes: npt.NDArray[np.unsignedinteger],
    maps: Sequence[Mapping],
    pid: int,
) -> dict[int, str]:
    """Return what blocks are that begin with these addresses of a file's data."""
    unique, where = np.unique(words, return_inverse=True)
    weights = np.bincount(where, sizes.astype(np.float64), len(unique))
    chosen = unique[np.argsort(-weights, kind="stable")[:_MOST_CLASSES]].tolist()
    places = [mapping.start for mapping in maps]
    by_file: dict[str, list[int]] = {}
    for word in chosen:
        by_file.setdefault(maps[bisect_right(places, word) - 1].path, []).append(word)
    names: dict[int, str] = {}
    for path, some in by_file.items():
        names |= _classes(memory, path, some, maps, pid)
    return names


def _classes(
    memory: Memory, path: str, words: list[int], maps: Sequence[Mapping], pid: int
) -> dict[int, str]:
    names: dict[int, str] = {}
    module = mapped_module(path, maps, pid)
    if module is not None:
        found = find_variables(module, [word - module.bias for word in words], pid or None)
        for word in words:
            name, offset = found.get(word - module.bias, ("", 0))
            if name.startswith(_TABLE):
                names[word] = name.removeprefix(_TABLE)
            elif name and not offset:
                names[word] = f"@{name}"
    unnamed = [word for word in words if names.get(word, "@").startswith("@")]
    mangled = {word: _type_name(memory, word, maps) for word in unnamed}
    readable = read_class_names({name for name in mangled.values() if name})
    names |= {word: readable[name] for word, name in mangled.items() if name in readable}
    file = Path(path).name
    return {
        word: f"data that begins with the address of {name[1:]}, of {file}"
        if name.startswith("@")
        else f"{name} objects, of {file}"
        for word, name in names.items()
    }


def _type_name(memory: Memory, table: int, maps: Sequence[Mapping]) -> str:
    """Return the name in the type information of a table of virtual functions; "" if it is none."""
    starts = [mapping.start for mapping in maps]

    def in_file(address: int) -> bool:
        at = bisect_right(starts, address) - 1
        return at >= 0 and address < maps[at].end and maps[at].path.startswith("/")

    def word(address: int) -> int:
        raw = memory.read(address, 8)
        return int.from_bytes(raw, "little") if len(raw) == 8 else 0

    information = word(table - 8)
    if information % 8 or not in_file(information):
        return ""
    place = word(information + 8)
    if not in_file(place):
        return ""
    text = memory.read(place, _NAME_BYTES).split(b"\0")[0]
    return text.decode("ascii") if text.isascii() and text.decode("ascii").isprintable() else ""
