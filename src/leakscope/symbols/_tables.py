# SPDX-License-Identifier: Apache-2.0
"""The symbol tables of an ELF file, as columns sorted by address."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from leakscope.errors import SymbolError
from leakscope.proc.elf_file import MAX_SECTION, SHT_DYNSYM, SHT_NOBITS, SHT_SYMTAB

if TYPE_CHECKING:
    from collections.abc import Callable

    from leakscope.proc.elf_file import ElfFile

__all__ = ["SymbolTable", "functions", "variables"]

_STT_NOTYPE, _STT_OBJECT, _STT_FUNC, _STT_GNU_IFUNC = 0, 1, 2, 10

SYM_DTYPE = np.dtype(
    [
        ("name", "<u4"),
        ("info", "u1"),
        ("other", "u1"),
        ("shndx", "<u2"),
        ("value", "<u8"),
        ("size", "<u8"),
    ]
)


@dataclass(frozen=True, slots=True)
class SymbolTable:
    """Symbols sorted by address, of functions or of variables; columns of equal length.

    `rank` orders names of the same address: 0 global, 1 weak, 2 local.
    """

    start: npt.NDArray[np.uint64]
    size: npt.NDArray[np.uint64]
    name: npt.NDArray[np.uint32]
    rank: npt.NDArray[np.uint8]
    strings: bytes

    def __len__(self) -> int:
        return len(self.start)

    def find(self, address: int) -> str | None:
        """Return the name of the function that covers `address`, None when there is none.

        A symbol without a size reaches to the next symbol.
        """
        index = self._index(address)
        return None if index is None else self._text(int(self.name[index]))

    def size_at(self, address: int) -> int | None:
        """Return the bytes of the function that covers `address`, None when nobody says."""
        index = self._index(address)
        return None if index is None else int(self.size[index]) or None

    def _index(self, address: int) -> int | None:
        if not 0 <= address < 1 << 64:
            return None
        after = int(np.searchsorted(self.start, np.uint64(address), side="right"))
        best: tuple[int, int, int] | None = None
        # Functions rarely nest; a few steps back find the one that covers the address.
        for index in range(after - 1, max(after - 65, -1), -1):
            start, size = int(self.start[index]), int(self.size[index])
            if best is not None and start != best[0]:
                break
            if address < start + size or (size == 0 and index == after - 1):
                key = (start, int(self.rank[index]) + (3 if size == 0 else 0), index)
                if best is None or key[1] < best[1]:
                    best = key
        return None if best is None else best[2]

    def has(self, beginning: bytes) -> bool:
        """Whether a function's name begins like that."""
        known = set(self.name.tolist())
        at = self.strings.find(b"\0" + beginning)
        while at >= 0:
            if at + 1 in known:
                return True
            at = self.strings.find(b"\0" + beginning, at + 1)
        return False

    def _text(self, at: int) -> str | None:
        end = self.strings.find(b"\0", at)
        if end < 0 or end - at > 1 << 16 or end == at:
            return None
        return self.strings[at:end].decode("utf-8", "replace").split("@", 1)[0] or None


def functions(elf: ElfFile) -> SymbolTable:
    """Return the functions of the symbol tables. Empty when there are none.

    Raises `SymbolError` when they are damaged.
    """
    return _read(elf, _sorted_functions)


def variables(elf: ElfFile) -> SymbolTable:
    """Return the variables of the symbol tables, as `functions` does."""
    return _read(elf, _sorted_variables)


def _read(
    elf: ElfFile,
    choose: Callable[[list[npt.NDArray[np.void]], list[int], bytes], SymbolTable],
) -> SymbolTable:
    parts: list[npt.NDArray[np.void]] = []
    bases: list[int] = []
    strings = b""
    try:
        for section in elf.section_list:
            if section.type not in (SHT_SYMTAB, SHT_DYNSYM):
                continue
            if section.link >= len(elf.section_list):
                raise struct.error("a symbol table without its strings")
            names = elf.section_list[section.link]
            if names.type == SHT_NOBITS or section.size > MAX_SECTION // 2:
                continue
            table = elf.read(section.offset, section.size // 24 * 24)
            parts.append(np.frombuffer(table, SYM_DTYPE))
            bases.append(len(strings))
            strings += elf.read(names.offset, names.size) + b"\0"
    except struct.error as error:
        raise SymbolError(f"{elf.path} is a damaged ELF file: {error}") from error
    return choose(parts, bases, strings)


def _sorted_functions(
    parts: list[npt.NDArray[np.void]], bases: list[int], strings: bytes
) -> SymbolTable:
    wanted = []
    for part in parts:
        kind = part["info"] & 15
        # Code from assembler files may have no type; without a size too it is a mere label.
        code = (kind == _STT_FUNC) | (kind == _STT_GNU_IFUNC)
        wanted.append(code | ((kind == _STT_NOTYPE) & (part["size"] > 0)))
    return _sorted(parts, wanted, bases, strings)


def _sorted_variables(
    parts: list[npt.NDArray[np.void]], bases: list[int], strings: bytes
) -> SymbolTable:
    wanted = [((part["info"] & 15) == _STT_OBJECT) & (part["size"] > 0) for part in parts]
    return _sorted(parts, wanted, bases, strings)


def _sorted(
    parts: list[npt.NDArray[np.void]],
    chosen: list[npt.NDArray[np.bool_]],
    bases: list[int],
    strings: bytes,
) -> SymbolTable:
    starts, sizes, names, ranks = [], [], [], []
    for part, which, base in zip(parts, chosen, bases, strict=True):
        binding = part["info"] >> 4
        wanted = which & (part["shndx"] != 0) & (part["value"] != 0)
        starts.append(part["value"][wanted])
        sizes.append(part["size"][wanted])
        names.append(part["name"][wanted].astype(np.uint64) + base)
        ranks.append(np.array([2, 0, 1] + [2] * 13, np.uint8)[binding[wanted]])
    if not starts:
        none = np.zeros(0, np.uint64)
        return SymbolTable(none, none, none.astype(np.uint32), none.astype(np.uint8), b"")
    start, size = np.concatenate(starts), np.concatenate(sizes)
    name, rank = np.concatenate(names).astype(np.uint32), np.concatenate(ranks)
    order = np.lexsort((size, start))
    return SymbolTable(start[order], size[order], name[order], rank[order], strings)
