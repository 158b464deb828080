# SPDX-License-Identifier: Apache-2.0
"""What an ELF file says about how it will be started and where it keeps its debug info.

Reads headers, the dynamic section and the section names, never the code. Every read is
bounded: a damaged or hostile file gives a `TargetError`, not a crash or a huge buffer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from leakscope.errors import SymbolError, TargetError
from leakscope.proc.elf_file import PT_DYNAMIC, PT_INTERP, PT_LOAD, ElfFile
from leakscope.proc.rights import open_named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from leakscope.proc.elf_file import ElfSegment

__all__ = ["MACHINES", "Elf", "read_elf"]

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

_DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 1, 4, 5, 6, 10
_DT_GNU_HASH, _DT_FLAGS_1 = 0x6FFFFEF5, 0x6FFFFFFB
_DF_1_PIE = 0x08000000

_MAX_TABLE = 4 << 20  # no program header, section or dynamic table we want is larger
_MAX_NAME = 4096
_DAMAGED = "Copy or build the program again."
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
    has_debug_info: bool = False  # DWARF is in this very file
    build_id: str | None = None  # lower-case hex
    debug_link: str | None = None  # file name of the separate debug file

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
        with ElfFile(
            str(path), open_file=partial(open_named, root=root), lenient=True, most=_MAX_TABLE
        ) as file:
            return _read(file, exports)
    except SymbolError as error:
        hint = _DAMAGED if isinstance(error.__cause__, struct.error) else None
        raise TargetError(str(error), hint=hint) from error
    except (struct.error, OSError) as error:
        raise TargetError(f"{path} is a damaged ELF file: {error}", hint=_DAMAGED) from error


def _read(file: ElfFile, exports: tuple[str, ...]) -> Elf:
    found = Elf(
        file.path,
        file.bits,
        file.little,
        MACHINES.get(file.machine, f"machine {file.machine}"),
        file.type,
    )
    if file.bits != 64 or not file.little:
        return found
    interpreter: str | None = None
    dynamic: ElfSegment | None = None
    for segment in file.segments:
        if segment.type == PT_INTERP:
            raw = file.read(segment.offset, min(segment.file_size, _MAX_NAME))
            interpreter = raw.split(b"\0")[0].decode("utf-8", "surrogateescape")
        elif segment.type == PT_DYNAMIC:
            dynamic = segment
    section = _Dynamic(file, dynamic) if dynamic is not None else None
    return replace(
        found,
        interpreter=interpreter,
        needed=section.needed if section is not None else (),
        dynamic=section is not None,
        pie=section is not None and bool(section.tags.get(_DT_FLAGS_1, 0) & _DF_1_PIE),
        exports=section.defined(exports) if section is not None else frozenset(),
        sections=frozenset(file.sections),
        has_debug_info=file.has_debug_info,
        build_id=_build_id(file),
        debug_link=_debug_link(file),
    )


def _build_id(file: ElfFile) -> str | None:
    # As little as the loader do we mind what is wrong with a section that it does not need.
    try:
        return file.build_id()
    except struct.error:
        return None


def _debug_link(file: ElfFile) -> str | None:
    try:
        link = file.debug_link()
    except SymbolError:
        return None
    return link[0] if link is not None else None


class _Dynamic:
    """The dynamic section: what the loader looks at."""

    def __init__(self, file: ElfFile, segment: ElfSegment) -> None:
        self.file = file
        self.loads = [s for s in file.segments if s.type == PT_LOAD]
        self.tags: dict[int, int] = {}
        self.strings = b""
        names: list[int] = []
        raw = file.read(
            segment.offset, min(segment.file_size, file.size - segment.offset) // 16 * 16
        )
        for tag, value in struct.iter_unpack("<QQ", raw):
            if tag == 0:
                break
            if tag == _DT_NEEDED:
                names.append(value)
            self.tags[tag] = value
        if _DT_STRTAB in self.tags:
            at = self.file_offset(self.tags[_DT_STRTAB])
            size = min(self.tags.get(_DT_STRSZ, 0), file.size - at, _MAX_TABLE)
            self.strings = file.read(at, size)
        else:
            names = []
        self.needed = tuple(self.string(name) for name in names)

    def defined(self, names: tuple[str, ...]) -> frozenset[str]:
        """Return those of the names that the file defines."""
        if _DT_STRTAB not in self.tags or _DT_SYMTAB not in self.tags:
            return frozenset()
        return frozenset(name for name in names if self.defines(name))

    def string(self, at: int) -> str:
        end = self.strings.find(b"\0", at, at + _MAX_NAME)
        if at >= len(self.strings) or end < 0:
            raise struct.error("a name lies outside its table")
        return self.strings[at:end].decode("utf-8", "replace")

    def file_offset(self, address: int) -> int:
        for load in self.loads:
            if load.address <= address < load.address + load.file_size:
                return load.offset + address - load.address
        raise struct.error(f"address {address:#x} is in no segment")

    def defines(self, name: str) -> bool:
        symbols = self.file_offset(self.tags[_DT_SYMTAB])
        for index in self.candidates(name.encode()):
            raw = self.file.read(symbols + 24 * index, 8)
            st_name, _, _, shndx = struct.unpack("<IBBH", raw)
            if shndx and st_name < len(self.strings) and self.string(st_name) == name:
                return True
        return False

    def candidates(self, name: bytes) -> Iterator[int]:
        """Symbol numbers in the hash bucket of `name`."""
        if _DT_GNU_HASH in self.tags:
            table = self.file_offset(self.tags[_DT_GNU_HASH])
            buckets, first, blooms, _ = struct.unpack("<IIII", self.file.read(table, 16))
            if not buckets:
                return
            value = 5381
            for char in name:
                value = (value * 33 + char) & 0xFFFFFFFF
            start = table + 16 + 8 * blooms
            (index,) = struct.unpack("<I", self.file.read(start + 4 * (value % buckets), 4))
            for step in range(_MAX_CHAIN if index >= first else 0):
                at = start + 4 * buckets + 4 * (index - first + step)
                (chain,) = struct.unpack("<I", self.file.read(at, 4))
                if (chain ^ value) >> 1 == 0:
                    yield index + step
                if chain & 1:
                    return
        elif _DT_HASH in self.tags:
            table = self.file_offset(self.tags[_DT_HASH])
            buckets, chains = struct.unpack("<II", self.file.read(table, 8))
            if not buckets:
                return
            value = 0
            for char in name:
                value = (value << 4) + char
                value = (value ^ (value >> 24 & 0xF0)) & 0x0FFFFFFF
            at = table + 8 + 4 * (value % buckets)
            for _ in range(_MAX_CHAIN):
                (index,) = struct.unpack("<I", self.file.read(at, 4))
                if index == 0 or index >= chains:
                    return
                yield index
                at = table + 8 + 4 * buckets + 4 * index
