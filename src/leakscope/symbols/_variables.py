# SPDX-License-Identifier: Apache-2.0
"""The names of global and static variables, from a module's symbol tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import SymbolError
from leakscope.symbols._demangle import demangle
from leakscope.symbols._files import find_files
from leakscope.symbols._tables import variables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakscope.model.frames import Module
    from leakscope.symbols._tables import SymbolTable

__all__ = ["find_variables"]


def find_variables(
    module: Module, addresses: Iterable[int], pid: int | None = None
) -> dict[int, tuple[str, int]]:
    """Return by ELF virtual address the variable that covers it and the offset inside it.

    `pid` is the process that the module is mapped in. Addresses that no symbol covers are left out, and all of them when there are no symbols.
    """
    found: dict[int, tuple[str, int]] = {}
    files = find_files(module, pid=pid)
    try:
        wanted = sorted(set(addresses))
        for elf in (files.debug, files.binary):
            if elf is None:
                continue
            try:
                table = variables(elf)
            except SymbolError:
                continue
            for address in wanted:
                if address not in found and (hit := _find(table, address)) is not None:
                    found[address] = hit
    finally:
        files.close()
    readable = demangle({name for name, _ in found.values()})
    return {at: (readable.get(name, name), offset) for at, (name, offset) in found.items()}


def _find(table: SymbolTable, address: int) -> tuple[str, int] | None:
    name = table.find(address)
    if name is None:
        return None
    at = int(np.searchsorted(table.start, np.uint64(address), side="right")) - 1
    start = int(table.start[at])
    return name, address - start
