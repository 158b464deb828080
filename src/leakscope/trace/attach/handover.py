# SPDX-License-Identifier: Apache-2.0
"""The agent for running processes as a file, and the structure that it is handed at its start.

The other side is native/agent/door_inject.h.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leakscope import _native
from leakscope.errors import SymbolError, TargetError
from leakscope.proc.elf_file import PT_LOAD, ElfFile

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HANDOVER", "NOTES", "Agent", "Entry", "load_agent", "offset_of"]

MAGIC, VERSION = 0x4A4E494550435341, 1
NOTES = 48
PAGE = 4096
ALLOCATOR, OPERATORS, MAPPINGS, LOADER, CALLS = range(1, 6)

HANDOVER = np.dtype(
    [
        ("magic", "<u8"), ("version", "<u4"), ("bytes", "<u4"),
        ("region", "<u8"), ("region_bytes", "<u8"),
        ("live_bytes", "<u8"), ("slots_at", "<u8"), ("tid_offset_at", "<u8"),
        ("live", "<u8"), ("stamp", "<u8"),
        ("arena", "<u8"), ("arena_bytes", "<u8"),
        ("recording", "<u8"), ("recording_bytes", "<u8"), ("budget_bytes", "<u8"),
        ("main_program", "<u8"), ("debug", "<u8"),
        ("allocator_low", "<u8"), ("allocator_high", "<u8"),
        ("sample_bytes", "<u8"), ("min_size", "<u8"), ("max_size", "<u8"),
        ("depth", "<u4"), ("wraps_new", "<u4"),
        ("pid", "<u4"), ("paused", "<u4"),
        ("pid_namespace", "<u8"), ("beat_ns", "<u8"), ("setup_ns", "<u8"), ("lonely", "<u8"),
        ("crowded", "<u8"),
        ("notes", "<u8", (NOTES, 2)),
        ("exe", "S512"), ("boot_id", "S40"), ("allocator", "S128"),
    ]
)  # fmt: skip
"""struct ls_handover."""

_ENTRY = np.dtype([("name", "S48"), ("group", "<u8"), ("hook", "<u8"), ("real", "<u8")])
_RELATIVE, _GLOBAL, _SLOT, _WORD = 8, 6, 7, 1  # R_X86_64_…
_RELA = np.dtype([("offset", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"),
     ("size", "<u8")]
)  # fmt: skip


def offset_of(structure: np.dtype[np.void], name: str) -> int:
    """Return where a field of a structure is, in bytes."""
    return int(dict(structure.fields or {})[name][1])


@dataclass(frozen=True, slots=True)
class Entry:
    """A function that the agent can stand in for."""

    name: str
    group: int
    hook: int  # address of what stands in for it, in the image


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent's file, as it is to lie in memory."""

    image: bytes  # from its first to its last page, not relocated
    text: tuple[int, int]  # offsets of its code, whole pages
    relocations: tuple[tuple[int, int], ...]  # offset, value at base 0
    handover: int  # offset of struct ls_handover
    entries: int  # and of the table of entries
    table: tuple[Entry, ...]
    live_bytes: int
    slots_at: int
    tid_offset_at: int

    def placed(
        self,
        base: int,
        values: Mapping[str, object],
        reals: Mapping[str, int],
        words: Mapping[int, int],
    ) -> bytes:
        """Return the image for the address `base`.

        `values` go into the structure that is handed over, `reals` are the addresses of the real
        functions by name, `words` are written at offsets.
        """
        image = bytearray(self.image)
        for offset, value in self.relocations:
            struct.pack_into("<Q", image, offset, value + base)
        given = np.frombuffer(image, HANDOVER, 1, self.handover)
        for name, given_value in values.items():
            given[name][0] = given_value
        rows = np.frombuffer(image, _ENTRY, len(self.table), self.entries)
        for row, entry in zip(rows, self.table, strict=True):
            row["real"] = reals.get(entry.name, 0)
        for offset, word in words.items():
            struct.pack_into("<Q", image, offset, word)
        return bytes(image)


@functools.cache
def load_agent() -> Agent:
    """Read the agent's file. Raises `TargetError` when it is not there or not one we know."""
    path = _native.path(_native.INJECTED)
    try:
        with ElfFile(str(path)) as file:
            return _read(file)
    except (SymbolError, struct.error, KeyError, ValueError) as error:
        raise TargetError(
            f"the agent for running processes cannot be used: {error}",
            hint="Install leakscope again.",
        ) from error


def _read(file: ElfFile) -> Agent:
    loads = [segment for segment in file.segments if segment.type == PT_LOAD]
    size = max(each.address + each.memory_size for each in loads) + PAGE - 1 & -PAGE
    image = bytearray(size)
    text = (0, 0)
    for each in loads:
        image[each.address : each.address + each.file_size] = file.read(each.offset, each.file_size)
        if each.flags & 1:
            end = each.address + each.memory_size + PAGE - 1 & -PAGE
            text = each.address & -PAGE, end
    symbols = np.frombuffer(file.section(".dynsym") or b"", _SYMBOL)
    names = file.section(".dynstr") or b""
    exported = {
        names[s["name"] : names.index(b"\0", s["name"])].decode(): int(s["value"])
        for s in symbols
        if s["section"]
    }
    relocations = tuple(_relocations(file, symbols))
    values = dict(relocations)
    handover, entries = exported["leakscope_handover"], exported["leakscope_entries"]
    given = np.frombuffer(bytes(image), HANDOVER, 1, handover)[0]
    if (int(given["magic"]), int(given["version"]), int(given["bytes"])) != (
        MAGIC,
        VERSION,
        HANDOVER.itemsize,
    ):
        raise ValueError(f"{file.path} belongs to another version")
    hook = offset_of(_ENTRY, "hook")
    table: list[Entry] = []
    while True:
        at = entries + len(table) * _ENTRY.itemsize
        row = np.frombuffer(bytes(image[at : at + _ENTRY.itemsize]), _ENTRY)[0]
        if not row["name"]:
            break
        table.append(Entry(bytes(row["name"]).decode(), int(row["group"]), values[at + hook]))
    return Agent(
        bytes(image),
        text,
        relocations,
        handover,
        entries,
        tuple(table),
        int(given["live_bytes"]),
        values[handover + offset_of(HANDOVER, "slots_at")],
        values[handover + offset_of(HANDOVER, "tid_offset_at")],
    )


def _relocations(file: ElfFile, symbols: np.ndarray) -> list[tuple[int, int]]:
    found = []
    for name in (".rela.dyn", ".rela.plt"):
        for each in np.frombuffer(file.section(name) or b"", _RELA):
            kind, offset, addend = int(each["type"]), int(each["offset"]), int(each["addend"])
            symbol = symbols[int(each["symbol"])]
            if kind == _RELATIVE:
                found.append((offset, addend))
            elif kind in (_GLOBAL, _SLOT, _WORD):
                if symbol["section"]:  # else one of the host's, and weak: it stays 0
                    found.append((offset, int(symbol["value"]) + (addend if kind == _WORD else 0)))
            else:
                raise ValueError(f"{file.path} has a relocation of kind {kind}")
    return found
