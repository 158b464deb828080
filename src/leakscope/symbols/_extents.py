# SPDX-License-Identifier: Apache-2.0
"""Where functions begin, from the index of the unwind tables: stripped programs have it too."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import SymbolError

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.proc.elf_file import ElfFile

__all__ = ["function_entries"]

_SDATA4, _UDATA4, _PC_RELATIVE, _TO_THE_TABLE = 0x0B, 0x03, 0x10, 0x30
_MOST_ADDRESS = 1 << 62
_FIRST_ROW = 12  # four bytes of encodings, the address of the table, the number of rows


def function_entries(elf: ElfFile) -> npt.NDArray[np.int64]:
    """Return the addresses at which functions begin, ascending; empty when nothing tells.

    Only the encoding that all linkers write is read: a sorted table of 32-bit differences.
    """
    empty = np.zeros(0, np.int64)
    section = elf.sections.get(".eh_frame_hdr")
    try:
        data = elf.section(".eh_frame_hdr") if section is not None else None
    except (SymbolError, struct.error):
        return empty
    if section is None or data is None or len(data) < _FIRST_ROW or data[0] != 1:
        return empty
    if section.address > _MOST_ADDRESS:  # of a damaged file
        return empty
    if data[1] & 0x0F != _SDATA4 or data[2] != _UDATA4 or data[3] != _TO_THE_TABLE | _SDATA4:
        return empty
    (count,) = struct.unpack_from("<I", data, 8)
    count = min(count, (len(data) - _FIRST_ROW) // 8)
    rows = np.frombuffer(data, "<i4", 2 * count, _FIRST_ROW).reshape(-1, 2)
    return np.sort(rows[:, 0].astype(np.int64) + section.address)
