# SPDX-License-Identifier: Apache-2.0
"""Whether a process has an `operator new` or `delete` beside those of the C++ library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.errors import SymbolError
from leakscope.symbols._files import find_files
from leakscope.symbols._tables import functions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from leakscope.model.frames import Module
    from leakscope.proc.elf_file import ElfFile

__all__ = ["has_own_operators"]

_OPERATORS = (b"_Znwm", b"_Znam", b"_ZdlPv", b"_ZdaPv")
# The name of a class that only the C++ library itself defines: it is linked in, without symbols.
_LINKED_IN = b"St9bad_alloc"
_LIBRARIES = ("libstdc++.", "libc++.", "libc++abi.", "libc.so", "ld-linux", "ld-musl")
_ALLOCATORS = ("libtcmalloc", "libjemalloc", "libmimalloc", "libleakscope")


def has_own_operators(
    modules: Sequence[Module], *, pid: int | None = None, authors: Iterable[int] = ()
) -> bool:
    """Whether one of the modules defines such an operator, exported or not.

    A module whose file cannot be read is taken to have none.
    """
    for module in modules:
        if not module.path.startswith("/") or module.path.rsplit("/", 1)[-1].startswith(
            (*_LIBRARIES, *_ALLOCATORS)
        ):
            continue
        files = find_files(module, debug_dirs=(), pid=pid, debuginfod=None, authors=authors)
        try:
            if files.binary is not None and _has(files.binary):
                return True
        except SymbolError:
            continue
        finally:
            files.close()
    return False


def _has(elf: ElfFile) -> bool:
    table = functions(elf)
    if any(table.has(each) for each in _OPERATORS):
        return True
    return not elf.has_symtab() and _LINKED_IN in (elf.section(".rodata") or b"")
