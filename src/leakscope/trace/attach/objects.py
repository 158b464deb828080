# SPDX-License-Identifier: Apache-2.0
"""The objects of a running process in the order of its loader, and where they define functions."""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import LeakscopeError
from leakscope.proc.elf_file import PT_DYNAMIC, PT_INTERP, PT_LOAD, ElfFile
from leakscope.proc.process import living_task

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from leakscope.proc.maps import Mapping

__all__ = ["MappedFunction", "Object", "Objects", "open_mapped", "read_objects"]

_AT_PHDR, _AT_PHNUM = 3, 5
_DT_DEBUG = 21
_MOST_OBJECTS = 4096
_FUNCTION = 2  # STT_FUNC
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"),
     ("size", "<u8")]
)  # fmt: skip
_LONGEST = 4096

Read = "Callable[[int, int], bytes]"


@dataclass(frozen=True, slots=True)
class MappedFunction:
    """A function that an object defines: its address in the process, and its bytes."""

    name: str
    address: int
    size: int  # bytes; 0: not known
    file_offset: int


@dataclass(slots=True)
class Object:
    """An ELF object of the process."""

    path: str
    low: int
    high: int
    bias: int
    mapping: Mapping  # the first one of its file
    functions: dict[str, MappedFunction] = field(default_factory=dict)
    file: dict[int, bytes] = field(default_factory=dict)  # code of its file, by offset

    @property
    def name(self) -> str:
        """Its file's name, without the folder."""
        return os.path.basename(self.path)  # noqa: PTH119 - of another root directory


@dataclass(frozen=True, slots=True)
class Objects:
    """What the loader of a process has loaded, the program itself first."""

    objects: tuple[Object, ...]
    main_program: int  # address of its ELF header
    debug: int  # of the loader's struct r_debug, 0: there is no loader
    notes: tuple[tuple[int, int], ...]  # of the kernel, AT_*


def open_mapped(pid: int, mapping: Mapping) -> int:
    """Return a descriptor of the very file that is mapped. Raises `OSError`."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    task = living_task(pid)
    with contextlib.suppress(OSError):
        return os.open(f"/proc/{task}/map_files/{mapping.span}", flags)
    fd = os.open(f"/proc/{task}/root{mapping.path}", flags)
    status = os.fstat(fd)
    same = status.st_ino == mapping.inode and not mapping.deleted
    if not same:
        os.close(fd)
        raise OSError(0, "its file was replaced")
    return fd


def read_objects(
    pid: int,
    mappings: Sequence[Mapping],
    read: Callable[[int, int], bytes],
    wanted: Collection[str],
) -> Objects:
    """Return the objects of a process, each with those of the `wanted` functions that it defines.

    Objects whose file cannot be read define none. Raises `ValueError` when the program's own
    headers make no sense.
    """
    notes = _notes(pid)
    auxiliary = dict(notes)
    headers_at, count = auxiliary.get(_AT_PHDR, 0), auxiliary.get(_AT_PHNUM, 0)
    start = _containing(mappings, headers_at)
    if start is None or not 0 < count <= 128:
        raise ValueError("where its program lies is not known")
    main = next(m for m in mappings if m.path == start.path and m.inode == start.inode)
    dynamic, static = _dynamic(read, headers_at, count, main)
    debug = _debug(read, dynamic) if dynamic and not static else 0
    found = [_object(pid, mappings, main, wanted, full=static)]
    if debug:
        for address in _links(read, debug):
            one = _containing(mappings, address)
            if one is None or not one.path.startswith("/") or one.path == main.path:
                continue
            first = next(m for m in mappings if m.path == one.path and m.inode == one.inode)
            found.append(_object(pid, mappings, first, wanted))
    return Objects(tuple(found), main.start, debug, notes)


def _notes(pid: int) -> tuple[tuple[int, int], ...]:
    with open(f"/proc/{living_task(pid)}/auxv", "rb") as file:  # noqa: PTH123 - not a file that has a size
        raw = file.read(4096)
    pairs = struct.iter_unpack("<QQ", raw[: len(raw) // 16 * 16])
    return tuple((int(kind), int(value)) for kind, value in pairs)


def _containing(mappings: Sequence[Mapping], address: int) -> Mapping | None:
    return next((m for m in mappings if m.start <= address < m.end), None)


def _dynamic(
    read: Callable[[int, int], bytes], at: int, count: int, main: Mapping
) -> tuple[tuple[int, int] | None, bool]:
    """Return where the program's dynamic section lies, and its size; and whether it has no loader."""
    raw = read(at, 56 * count)
    headers = [*struct.iter_unpack("<IIQQQQQQ", raw[: len(raw) // 56 * 56])]
    bias: int | None = None
    for kind, _, offset, address, *_ in headers:
        if kind == PT_LOAD and offset == main.offset & -4096:
            bias = main.start - (address & -4096)
            break
    static = all(kind != PT_INTERP for kind, *_ in headers)
    for kind, _, _, address, _, _, size, _ in headers if bias is not None else ():
        if kind == PT_DYNAMIC:
            return (bias + address, min(size, 1 << 16)), static
    return None, static


def _debug(read: Callable[[int, int], bytes], dynamic: tuple[int, int]) -> int:
    raw = read(*dynamic)
    for tag, value in struct.iter_unpack("<QQ", raw[: len(raw) // 16 * 16]):
        if tag == _DT_DEBUG:
            return int(value)
        if not tag:
            break
    return 0


def _links(read: Callable[[int, int], bytes], debug: int) -> list[int]:
    """Return the addresses of the dynamic sections of all objects, in the loader's order."""
    raw = read(debug, 16)
    at = struct.unpack("<QQ", raw)[1] if len(raw) == 16 else 0
    found: list[int] = []
    while at and len(found) < _MOST_OBJECTS:
        raw = read(at, 40)
        if len(raw) < 40:
            break
        _, _, dynamic, at, _ = struct.unpack("<5Q", raw)
        found.append(dynamic)
    return found


def _object(
    pid: int,
    mappings: Sequence[Mapping],
    first: Mapping,
    wanted: Collection[str],
    *,
    full: bool = False,
) -> Object:
    own = [m for m in mappings if m.path == first.path and m.inode == first.inode]
    one = Object(first.path, first.start, own[-1].end, 0, first)
    try:
        fd = open_mapped(pid, first)
    except OSError:
        return one
    with (
        contextlib.suppress(LeakscopeError, struct.error, ValueError, OSError, StopIteration),
        ElfFile(first.path, open_file=lambda _: fd, lenient=True) as file,
    ):
        _fill(one, file, wanted, full=full)
    return one


def _fill(one: Object, file: ElfFile, wanted: Collection[str], *, full: bool) -> None:
    """Look in the dynamic symbols; `full` is a program without a loader, which has others."""
    loads = [each for each in file.segments if each.type == PT_LOAD]
    lowest = next(each for each in loads if each.offset & -4096 == one.mapping.offset)
    one.bias = one.mapping.start - (lowest.address & -4096)
    one.high = max(one.bias + each.address + each.memory_size for each in loads)
    for table, strings in ((".symtab", ".strtab"),) if full else ((".dynsym", ".dynstr"),):
        found = file.section(table) or b"", file.section(strings) or b""
        _look(one, file, *found, wanted)
        if full and "malloc" not in one.functions:
            _look(one, file, *found, wanted, local=True)  # some linkers make it one


def _look(
    one: Object,
    file: ElfFile,
    table: bytes,
    strings: bytes,
    wanted: Collection[str],
    *,
    local: bool = False,
) -> None:
    symbols = np.frombuffer(table[: len(table) // _SYMBOL.itemsize * _SYMBOL.itemsize], _SYMBOL)
    kind, bind = symbols["info"] & 15, symbols["info"] >> 4
    usable = (kind == _FUNCTION) & (symbols["section"] != 0) & (symbols["value"] != 0)
    usable &= (bind == 0) if local else (bind == 1) | (bind == 2)
    usable &= symbols["name"] < max(len(strings) - 1, 0)
    chosen = np.flatnonzero(usable)
    text = np.frombuffer(strings, np.uint8)
    if not len(chosen):
        return
    firsts = {ord(name[0]) for name in wanted}
    initials = text[symbols["name"][chosen]]
    chosen = chosen[np.isin(initials, list(firsts))]
    longest = max(map(len, wanted)) + 1
    for index in chosen:
        at = int(symbols["name"][index])
        name = strings[at : at + longest].partition(b"\0")[0].decode("latin-1")
        if name not in wanted or name in one.functions:
            continue
        value, size = int(symbols["value"][index]), int(symbols["size"][index])
        for each in file.segments:
            left = each.address + each.file_size - value
            if each.type == PT_LOAD and each.flags & 1 and 0 < left <= each.file_size:
                offset = value - each.address + each.offset
                one.functions[name] = MappedFunction(name, one.bias + value, size, offset)
                one.file[offset] = file.read(offset, min(left, max(32, min(size, _LONGEST))))
                break
