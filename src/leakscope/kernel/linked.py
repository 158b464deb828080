# SPDX-License-Identifier: Apache-2.0
"""A module's file (.ko) with its debug information relocated, as if its sections were loaded.

In a .ko every section begins at zero and DWARF refers to symbols, so a code address alone means
nothing. Here the sections get addresses one after the other, the relocations of the debug
sections are applied, and the result is a file that any reader of DWARF understands.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import SymbolError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["Function", "KernelImage", "link_module", "read_image"]

_MOST_FILE = 1 << 30
_MOST_SECTIONS = 4096
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = np.dtype(
    [
        ("name", "<u4"), ("type", "<u4"), ("flags", "<u8"), ("addr", "<u8"), ("offset", "<u8"),
        ("size", "<u8"), ("link", "<u4"), ("info", "<u4"), ("align", "<u8"), ("entsize", "<u8"),
    ]
)  # fmt: skip
_SYM = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")]
)  # fmt: skip
_RELA = np.dtype([("offset", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS = 2, 4, 8
_SHF_ALLOC, _SHF_COMPRESSED = 2, 0x800
_ET_REL, _ET_DYN = 1, 3
_FUNC = 2
# Absolute relocations: machine, type: bytes.
_WIDTHS = {
    (62, 1): 8,
    (62, 10): 4,
    (62, 11): 4,
    (183, 257): 8,
    (183, 258): 4,
    (243, 2): 8,
    (243, 1): 4,
}
_BASE = 1 << 20


@dataclass(frozen=True, slots=True)
class Function:
    """A function in an image: where it begins, and bytes of its code."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class KernelImage:
    """The functions of vmlinux, or of a module, by name; several may share one."""

    functions: dict[str, list[Function]]
    build_id: str | None
    relocatable: bool

    def find(self, name: str, size: int | None) -> int | None:
        """Return where a function begins; with the same size where there are several of a name."""
        own = self.functions.get(name, [])
        if size is not None:
            same = [one for one in own if one.size == size]
            # The kernel counts up to the next symbol, so padding may be in its size.
            own = same or [one for one in own if 0 <= size - one.size < 64] or []
        return own[0].address if len({one.address for one in own}) == 1 else None


@dataclass(slots=True)
class _File:
    data: npt.NDArray[np.uint8]
    machine: int
    type: int
    section_at: int
    sections: npt.NDArray[np.void]
    names: list[str]


def _open(path: str) -> _File:
    """Read an ELF file of 64 bits, little-endian. Raises `SymbolError`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb"):
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= _MOST_FILE:
                raise SymbolError(f"{path} is no file of a size that can be read")
            # Mapped, not read: vmlinux with debug information may be larger than memory.
            data = np.frombuffer(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY), np.uint8)
    except (OSError, ValueError) as error:
        raise SymbolError(f"{path} cannot be read: {error}") from error
    try:
        head = _EHDR.unpack(data[: _EHDR.size].tobytes())
        ident, kind, machine, _, _, _, at, _, _, _, _, entry, count, strings = head
        if ident[:6] != b"\x7fELF\x02\x01" or entry != _SHDR.itemsize or count > _MOST_SECTIONS:
            raise SymbolError(f"{path} is no ELF file of 64 bits")
        table = data[at : at + count * entry]
        sections = table.view(_SHDR).copy()
        texts = _bytes(data, sections[strings])
        names = [_string(texts, int(offset)) for offset in sections["name"]]
    except (struct.error, ValueError, IndexError) as error:
        raise SymbolError(f"{path} is damaged") from error
    return _File(data, machine, kind, at, sections, names)


def _bytes(data: npt.NDArray[np.uint8], section: np.void) -> bytes:
    if section["type"] == _SHT_NOBITS:
        return b""
    start, size = int(section["offset"]), int(section["size"])
    if start + size > len(data):
        raise ValueError("a section beyond the end")
    return data[start : start + size].tobytes()


def _string(table: bytes, at: int) -> str:
    end = table.find(b"\0", at)
    return table[at : end if end >= 0 else None][:512].decode("utf-8", "replace")


def _places(table: bytes, name: str) -> Iterator[int]:
    """Yield where a name stands in a table of strings; names may share their ends."""
    text = name.encode() + b"\0"
    at = table.find(text)
    while at >= 0:
        yield at
        at = table.find(text, at + 1)


def _symbols(file: _File) -> tuple[npt.NDArray[np.void], bytes]:
    for section in file.sections:
        if section["type"] == _SHT_SYMTAB:
            raw = _bytes(file.data, section)
            table = np.frombuffer(raw[: len(raw) // _SYM.itemsize * _SYM.itemsize], _SYM)
            strings = _bytes(file.data, file.sections[int(section["link"])])
            return table, strings
    return np.zeros(0, _SYM), b""


def _bases(file: _File) -> npt.NDArray[np.uint64]:
    """Return an address for each section: its own, or one after the other in a .ko."""
    bases = file.sections["addr"].astype(np.uint64)
    if file.type != _ET_REL:
        return bases
    at = _BASE
    for index, section in enumerate(file.sections):
        if section["flags"] & _SHF_ALLOC:
            align = max(1, min(int(section["align"]), 1 << 16))
            at = (at + align - 1) // align * align
            bases[index] = at
            at += int(section["size"]) + 64
    return bases


def read_image(path: str, wanted: set[str]) -> KernelImage:
    """Return those functions of an image that are wanted, by name. Raises `SymbolError`."""
    file = _open(path)
    try:
        bases = _bases(file)
        table, strings = _symbols(file)
        functions: dict[str, list[Function]] = {}
        places = np.array([at for name in wanted for at in _places(strings, name)], np.uint32)
        for row in table[((table["info"] & 15) == _FUNC) & np.isin(table["name"], places)]:
            name = _string(strings, int(row["name"]))
            section = int(row["shndx"])
            if name in wanted and 0 < section < len(bases):
                base = int(bases[section]) if file.type == _ET_REL else 0
                functions.setdefault(name, []).append(
                    Function(base + int(row["value"]), int(row["size"]))
                )
        build_id = None
        for section, name in zip(file.sections, file.names, strict=True):
            if name == ".note.gnu.build-id" or (name == ".notes" and build_id is None):
                build_id = build_id_of(_bytes(file.data, section)) or build_id
    except (ValueError, IndexError, struct.error) as error:
        raise SymbolError(f"{path} is damaged") from error
    return KernelImage(functions, build_id, file.type == _ET_REL)


def build_id_of(notes: bytes) -> str | None:
    """Return the GNU build-id in the notes of an image, or of the kernel (/sys/kernel/notes)."""
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name = notes[at + 12 : at + 12 + name_size]
        start = at + 12 + (name_size + 3) // 4 * 4
        if kind == 3 and name == b"GNU\0" and 2 <= size <= 64:
            return notes[start : start + size].hex()
        at = start + (size + 3) // 4 * 4
    return None


def link_module(path: str, to: str) -> None:
    """Write `path`, a .ko, with its debug information relocated to `to`. Raises `SymbolError`."""
    file = _open(path)
    if file.type != _ET_REL:
        raise SymbolError(f"{path} is no kernel module")
    try:
        bases = _bases(file)
        table, _ = _symbols(file)
        inside = (table["shndx"] > 0) & (table["shndx"] < len(bases))
        values = table["value"].astype(np.uint64)
        values[inside] += bases[table["shndx"][inside]]
        for index, section in enumerate(file.sections):
            target = int(section["info"])
            if section["type"] != _SHT_RELA or not 0 < target < len(file.sections):
                continue
            if file.names[target].startswith(".debug_"):
                _relocate(file, file.sections[index], file.sections[target], values)
        file.sections["addr"] = np.where(file.sections["flags"] & _SHF_ALLOC, bases, 0)
        raw = file.sections.view(np.uint8)
        file.data[file.section_at : file.section_at + len(raw)] = raw
        file.data[16:18] = np.frombuffer(struct.pack("<H", _ET_DYN), np.uint8)
    except (ValueError, IndexError, struct.error) as error:
        raise SymbolError(f"{path} is damaged") from error
    with open(to, "wb") as out:
        out.write(file.data.data)


def _relocate(
    file: _File, relocations: np.void, target: np.void, values: npt.NDArray[np.uint64]
) -> None:
    """Apply the absolute relocations of one section."""
    if target["flags"] & _SHF_COMPRESSED or target["type"] == _SHT_NOBITS:
        return
    raw = _bytes(file.data, relocations)
    rows = np.frombuffer(raw[: len(raw) // _RELA.itemsize * _RELA.itemsize], _RELA)
    rows = rows[rows["symbol"] < len(values)]
    start, size = int(target["offset"]), int(target["size"])
    for (machine, kind), width in _WIDTHS.items():
        if machine != file.machine:
            continue
        own = rows[(rows["type"] == kind) & (rows["offset"] <= size - width)]
        results = values[own["symbol"]] + own["addend"].astype(np.uint64)
        places = own["offset"].astype(np.int64) + start
        parts = results.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width]
        file.data[places[:, None] + np.arange(width)] = parts
