# SPDX-License-Identifier: Apache-2.0
"""What an ELF file says about how it will be started and where it keeps its debug info.

Reads headers, the dynamic section and the section names, never the code. Every read is
bounded: a damaged or hostile file gives a `TargetError`, not a crash or a huge buffer.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.errors import TargetError
from leakscope.proc.rights import open_named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["MACHINES", "Elf", "parse_elf", "read_elf"]

MACHINES = {
    2: "SPARC",
    3: "i386",
    8: "MIPS",
    20: "PowerPC",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    43: "sparc64",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
"""Names of `e_machine`, as `uname -m` gives them where it has one."""

ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 1, 4, 5, 6, 10
_DT_GNU_HASH, _DT_FLAGS_1 = 0x6FFFFEF5, 0x6FFFFFFB
_DF_1_PIE = 0x08000000

_MAX_TABLE = 4 << 20  # no program header, section or dynamic table we want is larger
_MAX_NAME = 4096
_MAX_CHAIN = 1 << 16  # symbols that may share one hash bucket


@dataclass(frozen=True, slots=True)
class Elf:
    """Headers of one ELF file.

    Of files that are not 64-bit little-endian, only `bits`, `little`, `machine` and `type`
    are read.
    """

    path: str
    bits: int  # 32 or 64
    little: bool
    machine: str
    type: int  # e_type
    interpreter: str | None = None
    needed: tuple[str, ...] = ()
    dynamic: bool = False  # has a dynamic section
    pie: bool = False  # marked as a position-independent program
    exports: frozenset[str] = frozenset()  # those of the names asked for that it defines
    sections: frozenset[str] = frozenset()
    build_id: str | None = None  # lower-case hex
    debug_link: str | None = None  # file name of the separate debug file

    @property
    def has_debug_info(self) -> bool:
        """Whether DWARF is in this very file."""
        return ".debug_info" in self.sections or ".zdebug_info" in self.sections

    @property
    def is_go(self) -> bool:
        """Whether the Go linker made it."""
        return ".go.buildinfo" in self.sections


def read_elf(path: str | Path, exports: tuple[str, ...] = (), *, root: str | None = None) -> Elf:
    """Read the headers of the file at `path`, which belongs to the root directory `root`.

    `exports` are the names of dynamic symbols to look for. Raises `TargetError` when the
    file cannot be read, is not ELF, or contradicts itself.
    """
    try:
        fd = open_named(str(path), root=root)
    except OSError as error:
        raise TargetError(f"cannot read {path}: {error.strerror}") from error
    try:
        return parse_elf(fd, str(path), exports)
    except (struct.error, OSError) as error:
        raise TargetError(
            f"{path} is a damaged ELF file: {error}",
            hint="Copy or build the program again.",
        ) from error
    finally:
        os.close(fd)


def parse_elf(fd: int, path: str, exports: tuple[str, ...] = ()) -> Elf:
    """Like `read_elf`, from an open file. Raises `struct.error` when the file is damaged."""
    ident = os.pread(fd, 64, 0)
    if len(ident) < 20 or ident[:4] != b"\x7fELF":
        raise TargetError(f"{path} is not an ELF program")
    if ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise struct.error("unknown class or byte order")
    bits, little = 32 * ident[4], ident[5] == 1
    e_type, e_machine = struct.unpack_from("<HH" if little else ">HH", ident, 16)
    machine = MACHINES.get(e_machine, f"machine {e_machine}")
    if bits != 64 or not little:
        return Elf(path, bits, little, machine, e_type)
    return _Reader(fd, ident).read(path, machine, e_type, exports)


class _Reader:
    def __init__(self, fd: int, header: bytes) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        (self.phoff, self.shoff) = struct.unpack_from("<QQ", header, 32)
        (self.phentsize, self.phnum, self.shentsize, self.shnum, self.shstrndx) = (
            struct.unpack_from("<HHHHH", header, 54)
        )
        self.loads: list[tuple[int, int, int]] = []  # address, file bytes, offset
        self.tags: dict[int, int] = {}

    def bytes_at(self, offset: int, count: int) -> bytes:
        if count > _MAX_TABLE or offset + count > self.size:
            raise struct.error(f"a table of {count} bytes at {offset} lies outside the file")
        data = os.pread(self.fd, count, offset)
        if len(data) != count:
            raise struct.error("the file is shorter than its headers say")
        return data

    def string(self, table: bytes, at: int) -> str:
        end = table.find(b"\0", at, at + _MAX_NAME)
        if at >= len(table) or end < 0:
            raise struct.error("a name lies outside its table")
        return table[at:end].decode("utf-8", "replace")

    def read(self, path: str, machine: str, e_type: int, exports: tuple[str, ...]) -> Elf:
        interpreter: str | None = None
        needed: tuple[str, ...] = ()
        found = frozenset[str]()
        dynamic: tuple[int, int] | None = None
        if self.phnum and self.phentsize != 56:
            raise struct.error("program headers of an unknown size")
        table = self.bytes_at(self.phoff, 56 * self.phnum) if self.phnum else b""
        for p_type, _, offset, address, _, filesz, _, _ in struct.iter_unpack("<IIQQQQQQ", table):
            if p_type == _PT_LOAD:
                self.loads.append((address, filesz, offset))
            elif p_type == _PT_INTERP:
                raw = self.bytes_at(offset, min(filesz, _MAX_NAME))
                interpreter = raw.split(b"\0")[0].decode("utf-8", "surrogateescape")
            elif p_type == _PT_DYNAMIC:
                dynamic = (offset, filesz)
        if dynamic is not None:
            needed, found = self.dynamic_section(*dynamic, exports)
        sections = dict(self.section_table())
        return Elf(
            path,
            64,
            True,
            machine,
            e_type,
            interpreter=interpreter,
            needed=needed,
            dynamic=dynamic is not None,
            pie=bool(self.tags.get(_DT_FLAGS_1, 0) & _DF_1_PIE),
            exports=found,
            sections=frozenset(sections),
            build_id=self.build_id(sections),
            debug_link=self.debug_link(sections),
        )

    def dynamic_section(
        self, offset: int, size: int, exports: tuple[str, ...]
    ) -> tuple[tuple[str, ...], frozenset[str]]:
        names: list[int] = []
        raw = self.bytes_at(offset, min(size, self.size - offset) // 16 * 16)
        for tag, value in struct.iter_unpack("<QQ", raw):
            if tag == 0:
                break
            if tag == _DT_NEEDED:
                names.append(value)
            self.tags[tag] = value
        if _DT_STRTAB not in self.tags:
            return (), frozenset()
        at = self.file_offset(self.tags[_DT_STRTAB])
        strings = self.bytes_at(at, min(self.tags.get(_DT_STRSZ, 0), self.size - at, _MAX_TABLE))
        needed = tuple(self.string(strings, name) for name in names)
        return needed, frozenset(name for name in exports if self.defines(name, strings))

    def file_offset(self, address: int) -> int:
        for start, size, offset in self.loads:
            if start <= address < start + size:
                return offset + address - start
        raise struct.error(f"address {address:#x} is in no segment")

    def defines(self, name: str, strings: bytes) -> bool:
        if _DT_SYMTAB not in self.tags:
            return False
        symbols = self.file_offset(self.tags[_DT_SYMTAB])
        for index in self.candidates(name.encode()):
            st_name, _, _, shndx = struct.unpack("<IBBH", self.bytes_at(symbols + 24 * index, 8))
            if shndx and st_name < len(strings) and self.string(strings, st_name) == name:
                return True
        return False

    def candidates(self, name: bytes) -> Iterator[int]:
        """Symbol numbers in the hash bucket of `name`."""
        if _DT_GNU_HASH in self.tags:
            table = self.file_offset(self.tags[_DT_GNU_HASH])
            buckets, first, blooms, _ = struct.unpack("<IIII", self.bytes_at(table, 16))
            if not buckets:
                return
            value = 5381
            for char in name:
                value = (value * 33 + char) & 0xFFFFFFFF
            start = table + 16 + 8 * blooms
            (index,) = struct.unpack("<I", self.bytes_at(start + 4 * (value % buckets), 4))
            for step in range(_MAX_CHAIN if index >= first else 0):
                at = start + 4 * buckets + 4 * (index - first + step)
                (chain,) = struct.unpack("<I", self.bytes_at(at, 4))
                if (chain ^ value) >> 1 == 0:
                    yield index + step
                if chain & 1:
                    return
        elif _DT_HASH in self.tags:
            table = self.file_offset(self.tags[_DT_HASH])
            buckets, chains = struct.unpack("<II", self.bytes_at(table, 8))
            if not buckets:
                return
            value = 0
            for char in name:
                value = (value << 4) + char
                value = (value ^ (value >> 24 & 0xF0)) & 0x0FFFFFFF
            at = table + 8 + 4 * (value % buckets)
            for _ in range(_MAX_CHAIN):
                (index,) = struct.unpack("<I", self.bytes_at(at, 4))
                if index == 0 or index >= chains:
                    return
                yield index
                at = table + 8 + 4 * buckets + 4 * index

    def section_table(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Names of the sections with their offset and size in the file."""
        if not self.shnum or self.shentsize != 64 or self.shstrndx >= self.shnum:
            return
        try:
            raw = self.bytes_at(self.shoff, 64 * self.shnum)
            offset, size = struct.unpack_from("<QQ", raw, 64 * self.shstrndx + 24)
            strings = self.bytes_at(offset, size)
            for name, offset, size in struct.iter_unpack("<I20xQQ24x", raw):
                yield self.string(strings, name), (offset, size)
        except struct.error:
            # The loader never looks at sections, so a program without good ones still runs.
            return

    def build_id(self, sections: dict[str, tuple[int, int]]) -> str | None:
        note = self.small_section(sections, ".note.gnu.build-id")
        if len(note) < 16 or note[12:16] != b"GNU\0":
            return None
        (size,) = struct.unpack_from("<I", note, 4)
        return note[16 : 16 + size].hex() or None

    def debug_link(self, sections: dict[str, tuple[int, int]]) -> str | None:
        name = self.small_section(sections, ".gnu_debuglink").split(b"\0")[0]
        return name.decode("utf-8", "surrogateescape") or None

    def small_section(self, sections: dict[str, tuple[int, int]], name: str) -> bytes:
        offset, size = sections.get(name, (0, 0))
        return self.bytes_at(offset, size) if size <= _MAX_NAME else b""
