# SPDX-License-Identifier: Apache-2.0
"""Lines and inlined functions of one file with debug information.

drgn reads them where it is installed; it has wheels for x86-64. One drgn program holds one file,
so that files never get into each other's addresses.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakscope.errors import SymbolError
from leakscope.symbols._activation import Activation
from leakscope.symbols._dwarf_process import ask

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Lines", "has_drgn"]

_MANGLED = ("_Z", "_R")
_TOP = (1 << 64) - 1
# Seconds that reading in Python may take for one file: beside drgn, and in its place.
_BESIDE_S, _INSTEAD_S = 20.0, 60.0


@cache
def has_drgn() -> bool:
    """Whether drgn is installed."""
    try:
        import drgn  # noqa: F401
    except ImportError:
        return False
    return True


class Lines:
    """The debug information of the file at `path`, and of `alt`, which dwz moved parts of it to.

    Raises `SymbolError` when it cannot be used.
    """

    def __init__(self, path: str, alt: str | None = None) -> None:
        self._path = path
        self._program: Any = _drgn_program(path, alt) if has_drgn() else None
        self._left_s = _BESIDE_S if self._program is not None else _INSTEAD_S
        self.gave_up = False
        """Whether something is missing because looking for it took too long."""

    def find(self, addresses: Iterable[int]) -> dict[int, tuple[Activation, ...]]:
        """Return the activations at each address that has a line, innermost first."""
        found: dict[int, tuple[Activation, ...]] = {}
        open_questions: list[tuple[int, Activation | None]] = []
        lineless: list[int] = []
        for address in addresses:
            if self._program is None:
                open_questions.append((address, None))
                continue
            chain = self._by_drgn(address)
            if chain:
                found[address] = chain
            if chain and all(each.line is None for each in chain):
                lineless.append(address)
            elif len(chain) == 1 and (chain[0].name or "").startswith(_MANGLED):
                # The name is the symbol's: drgn did not find the function.
                open_questions.append((address, chain[0]))
        if len(lineless) == len(found):
            # Functions and not one line: a line table that drgn does not read (clang's DWARF64).
            open_questions += [(address, None) for address in lineless]
        if open_questions and not self.gave_up:
            answers = ask(self._path, open_questions, self._left_s)
            found |= answers.found
            self._left_s -= answers.seconds
            self.gave_up = answers.gave_up
        return found

    def _by_drgn(self, address: int) -> tuple[Activation, ...]:
        try:
            places = self._program.source_location(address)
            return tuple([_activation(places, n) for n in range(len(places))])
        except LookupError:
            return ()
        except Exception as error:
            raise SymbolError(f"the debug information is damaged: {error}") from error


def _lowest_address(path: str) -> int:
    """Return where the first segment of an ELF file is to be loaded, 0 when it does not say.

    drgn takes the difference from the start of the address range for how far it was moved.
    """
    with Path(path).open("rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            return 0
        (offset,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(offset)
        table = file.read(size * count)
    rows = [table[at : at + size] for at in range(0, len(table) - 55, max(size, 56))]
    loaded = [struct.unpack_from("<Q", row, 16)[0] for row in rows if row[:4] == b"\x01\0\0\0"]
    return min(loaded, default=0)


def _drgn_program(path: str, alt: str | None) -> Any:
    import drgn

    try:
        program = drgn.Program(drgn.host_platform)
        # Files are found and their build-ids compared by us; drgn must not look for others.
        program.set_enabled_debug_info_finders([])
        module = program.extra_module(path, 0, create=True)
        module.address_range = (_lowest_address(path), _TOP)
        module.try_file(path)
        if alt is not None and module.debug_file_status.name == "WANT_SUPPLEMENTARY":
            module.try_file(alt)
    except (LookupError, OSError, ValueError, RuntimeError) as error:
        raise SymbolError(f"the debug information of {path} cannot be read: {error}") from error
    if module.debug_file_status.name == "WANT_SUPPLEMENTARY":
        raise SymbolError(f"{path} needs the file that dwz moved parts of it to")
    if module.debug_file_status.name != "HAVE":
        raise SymbolError(f"the debug information of {path} cannot be read")
    return program


def _activation(places: Any, number: int) -> Activation:
    # File names need not be UTF-8, and drgn then raises; one such name must not cost the others.
    try:
        place = places[number]
    except UnicodeDecodeError:
        return Activation(None, None, None, None)
    try:
        name = place.name() or None
    except UnicodeDecodeError:
        name = None
    return Activation(name, place.filename or None, place.line or None, place.column or None)
