# SPDX-License-Identifier: Apache-2.0
"""An open ELF file: identity, segments, sections, links. The one reader for all that need it.

Files come from untrusted recordings and may be damaged on purpose. Only regular files are
opened, every read is bounded by the file's real size, compressed data by a fixed limit,
and anything that contradicts itself raises `SymbolError` with one sentence.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from leakscope.errors import SymbolError
from leakscope.proc.rights import open_named

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ElfFile", "ElfSegment", "Section", "crc32_of"]

SHT_SYMTAB, _SHT_NOTE, SHT_NOBITS, SHT_DYNSYM = 2, 7, 8, 11
_SHF_COMPRESSED = 0x800
PT_LOAD, PT_DYNAMIC, PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_NT_GNU_BUILD_ID = 3

MAX_SECTION = 2 << 30  # bytes of one section that we are ready to hold
_MAX_NOTES = 1 << 20
_MAX_SECTIONS = 1 << 20
_MAX_MINI = 64 << 20  # unpacked .gnu_debugdata; a few MiB in practice
_ZLIB_RATIO = 1040  # deflate cannot shrink more than 1032:1


def crc32_of(elf: ElfFile) -> int:
    """Return the CRC that `.gnu_debuglink` keeps of a whole file."""
    import zlib

    value, at = 0, 0
    while at < elf.size:
        chunk = os.pread(elf.fd, min(elf.size - at, 1 << 20), at)
        if not chunk:
            break
        value = zlib.crc32(chunk, value)
        at += len(chunk)
    return value


@dataclass(frozen=True, slots=True)
class Section:
    """One section header."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


@dataclass(frozen=True, slots=True)
class ElfSegment:
    """One program header; sizes in bytes."""

    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int


class ElfFile:
    """An open ELF file, 64-bit and little-endian unless it is `lenient`. A context manager."""

    def __init__(
        self,
        path: str,
        data: bytes | None = None,
        open_file: Callable[[str], int] = open_named,
        *,
        lenient: bool = False,
        most: int = MAX_SECTION,
    ) -> None:
        """Open the file at `path` by `open_file`, or read `data` that was found in it.

        When it is `lenient`, a file that a loader would take is taken: one whose sections are
        damaged has none, and of one of another class only `bits`, `little`, `machine` and `type`
        are read. Nothing is read at once that is larger than `most` bytes.
        Raises `SymbolError` when it is missing, not a regular file, not ELF or damaged.
        """
        self.path = path
        self._lenient = lenient
        self._most = most
        self._data = data
        self.fd = -1
        try:
            if data is None:
                self.fd = open_file(path)
                self.size = os.fstat(self.fd).st_size
            else:
                self.size = len(data)
            self._read_headers()
        except OSError as error:
            self.close()
            raise SymbolError(f"cannot read {path}: {error.strerror}") from error
        except struct.error as error:
            self.close()
            raise SymbolError(f"{path} is a damaged ELF file: {error}") from error
        except BaseException:
            self.close()
            raise

    @property
    def handle(self) -> str:
        """A path to the very file that is open, whatever lies at `path` by now."""
        handle = f"/proc/self/fd/{self.fd}"
        return handle if os.path.lexists(handle) else self.path

    @property
    def owner(self) -> int:
        """The user it belongs to: the author of what it says."""
        return os.fstat(self.fd).st_uid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def read(self, offset: int, count: int) -> bytes:
        """Return exactly `count` bytes at `offset` or raise `struct.error`."""
        if count < 0 or offset < 0 or offset + count > self.size or count > self._most:
            raise struct.error(f"{count} bytes at {offset} lie outside the file")
        if self._data is not None:
            return self._data[offset : offset + count]
        parts = []
        while count > 0:
            part = os.pread(self.fd, min(count, 1 << 30), offset)
            if not part:
                raise struct.error("the file became shorter while it was read")
            parts.append(part)
            offset += len(part)
            count -= len(part)
        return b"".join(parts)

    def _read_headers(self) -> None:
        header = self.read(0, min(64, self.size))
        if header[:4] != b"\x7fELF":
            raise SymbolError(f"{self.path} is not an ELF {'program' if self._lenient else 'file'}")
        if len(header) < (20 if self._lenient else 64):
            raise struct.error("it ends within its header")
        if self._lenient and (header[4] not in (1, 2) or header[5] not in (1, 2)):
            raise struct.error("unknown class or byte order")
        self.bits, self.little = 32 * header[4], header[5] == 1
        self.type, self.machine = struct.unpack_from("<HH" if self.little else ">HH", header, 16)
        self.segments: list[ElfSegment] = []
        self.sections: dict[str, Section] = {}
        self.section_list: list[Section] = []
        if self.bits != 64 or not self.little:
            if self._lenient:
                return
            raise SymbolError(f"{self.path} is not a 64-bit little-endian ELF file")
        phoff, shoff = struct.unpack_from("<QQ", header, 32)
        phentsize, phnum, shentsize, shnum, shstrndx = struct.unpack_from("<HHHHH", header, 54)
        if phnum and phentsize != 56:
            raise struct.error("program headers of an unknown size")
        table = self.read(phoff, 56 * phnum) if phnum else b""
        for kind, flags, offset, address, _, filesz, memsz, _ in struct.iter_unpack(
            "<IIQQQQQQ", table
        ):
            self.segments.append(ElfSegment(kind, flags, offset, address, filesz, memsz))
        if shoff:
            try:
                self._read_sections(shoff, shentsize, shnum, shstrndx)
            except struct.error:
                # The loader never looks at sections: a program without good ones still runs.
                if not self._lenient:
                    raise

    def _read_sections(self, start: int, entry: int, count: int, names_at: int) -> None:
        if entry != 64:
            raise struct.error("section headers of an unknown size")
        if count == 0 or names_at == 0xFFFF:  # too many for the header: kept in section 0
            first = struct.unpack("<IIQQQQIIQQ", self.read(start, 64))
            count = count or first[5]
            names_at = first[6] if names_at == 0xFFFF else names_at
        if count > min(_MAX_SECTIONS, self.size // 64):
            raise struct.error(f"{count} sections do not fit in the file")
        raw = [*struct.iter_unpack("<IIQQQQIIQQ", self.read(start, 64 * count))]
        if names_at >= count:
            return
        _, _, _, _, offset, size, *_ = raw[names_at]
        names = self.read(offset, size)
        for name, kind, flags, address, offset, size, link, *_ in raw:
            end = names.find(b"\0", name)
            text = names[name:end].decode("utf-8", "replace") if 0 <= end < name + 256 else ""
            section = Section(text, kind, flags, address, offset, size, link)
            self.section_list.append(section)
            self.sections.setdefault(text, section)

    def section(self, name: str) -> bytes | None:
        """Return the unpacked bytes of a section, None when the file has none of that name.

        Raises `SymbolError` when it is damaged, too large or packed in an unknown way.
        """
        found = self.sections.get(name)
        if found is None or found.type == SHT_NOBITS:
            old = self.sections.get(name.replace(".", ".z", 1)) if name[:7] == ".debug_" else None
            return None if old is None else self._unpack_old(old)
        import zlib

        try:
            data = self.read(found.offset, found.size)
            if not found.flags & _SHF_COMPRESSED:
                return data
            kind, _, size, _ = struct.unpack_from("<IIQQ", data)
            if kind == 1:
                return self._inflate(data[24:], size, name)
            if kind == 2:
                return self._unzstd(data[24:], size, name)
            raise struct.error(f"{name} is compressed in an unknown way")
        except (struct.error, zlib.error) as error:
            raise SymbolError(f"{self.path} is a damaged ELF file: {error}") from error

    def _unpack_old(self, section: Section) -> bytes:
        data = self.read(section.offset, section.size)
        if data[:4] != b"ZLIB":
            return data
        (size,) = struct.unpack_from(">Q", data, 4)
        return self._inflate(data[12:], size, section.name)

    def _inflate(self, data: bytes, size: int, name: str) -> bytes:
        if size > min(MAX_SECTION, len(data) * _ZLIB_RATIO):
            raise struct.error(f"{name} claims an impossible size of {size} bytes")
        import zlib

        unpacked = zlib.decompressobj().decompress(data, size)
        if len(unpacked) != size:
            raise struct.error(f"{name} is shorter than it claims")
        return unpacked

    def _unzstd(self, data: bytes, size: int, name: str) -> bytes:
        try:
            from compression import zstd  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise SymbolError(
                f"{name} of {self.path} is packed with zstd, which this Python cannot read",
                hint="Use Python 3.14, or run objcopy --decompress-debug-sections on a copy.",
            ) from None
        if size > MAX_SECTION:
            raise struct.error(f"{name} claims an impossible size of {size} bytes")
        unpacked: bytes = zstd.ZstdDecompressor().decompress(data, max_length=size)
        if len(unpacked) != size:
            raise struct.error(f"{name} is shorter than it claims")
        return unpacked

    def build_id(self) -> str | None:
        """Return the GNU build-id as lower-case hex, None when the file has none."""
        # Sections first: a debug file keeps program headers of segments that it lacks.
        places = [(s.offset, s.size) for s in self.section_list if s.type == _SHT_NOTE]
        places += [(s.offset, s.file_size) for s in self.segments if s.type == _PT_NOTE]
        for offset, claimed in places:
            size = min(claimed, _MAX_NOTES, self.size - offset)
            found = _gnu_build_id(self.read(offset, size)) if size > 0 else None
            if found is not None:
                return found
        return None

    def debug_link(self) -> tuple[str, int] | None:
        """Return the file name and CRC of `.gnu_debuglink`."""
        data = self.section(".gnu_debuglink")
        if data is None:
            return None
        end = data.find(b"\0")
        at = (end + 4) & ~3
        if end <= 0 or end > 4096 or at + 4 > len(data):
            return None
        name = os.fsdecode(data[:end])
        # Only a plain name: a path in it would lead anywhere on the disk.
        return (name, *struct.unpack_from("<I", data, at)) if "/" not in name else None

    def alt_link(self) -> tuple[str, str] | None:
        """Return the path and build-id of the file that dwz moved common parts to."""
        data = self.section(".gnu_debugaltlink")
        end = -1 if data is None else data.find(b"\0")
        if data is None or end <= 0 or end > 4096 or len(data) - end > 65:
            return None
        return os.fsdecode(data[:end]), data[end + 1 :].hex()

    @property
    def has_debug_info(self) -> bool:
        """Whether DWARF with lines is in this very file."""
        for name in (".debug_info", ".zdebug_info"):
            section = self.sections.get(name)
            if section is not None and section.type != SHT_NOBITS and section.size > 0:
                return True
        return False

    @property
    def lowest_address(self) -> int:
        """Where its first segment is to be loaded, 0 when it does not say.

        The first, not the lowest: vmlinux has data of each CPU, at address 0, behind its code.
        """
        return next((s.address for s in self.segments if s.type == PT_LOAD), 0)

    def has_symtab(self) -> bool:
        """Whether the full symbol table is there, not only the dynamic one."""
        return any(s.type == SHT_SYMTAB and s.size > 24 for s in self.section_list)

    def mini_debug_info(self) -> ElfFile | None:
        """Return the small ELF file inside `.gnu_debugdata` (Fedora, Red Hat), or None."""
        data = self.section(".gnu_debugdata")
        if data is None:
            return None
        import lzma

        try:
            unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=256 << 20)
            return ElfFile(f"{self.path} (.gnu_debugdata)", unpacker.decompress(data, _MAX_MINI))
        except lzma.LZMAError as error:
            raise SymbolError(f"{self.path} is a damaged ELF file: {error}") from error


def _gnu_build_id(notes: bytes) -> str | None:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        value = at + 12 + ((name_size + 3) & ~3)
        if kind == _NT_GNU_BUILD_ID and name_size == 4 and notes[at + 12 : at + 16] == b"GNU\0":
            if 0 < size <= 64 and value + size <= len(notes):
                return notes[value : value + size].hex()
            return None
        at = value + ((size + 3) & ~3)
    return None
