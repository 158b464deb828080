# SPDX-License-Identifier: Apache-2.0
"""Lines and inlined functions of one file with debug information, read by drgn.

drgn is installed where it has a wheel (x86-64); elsewhere functions come from symbol tables
alone. One drgn program holds one file, so that files never get into each other's addresses.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from leakscope.errors import SymbolError
from leakscope.symbols._activation import Activation
from leakscope.symbols._nested import NestedFunctions

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Lines", "can_read_lines"]

_MANGLED = ("_Z", "_R")
_ALL_ADDRESSES = (0, (1 << 64) - 1)


@cache
def can_read_lines() -> bool:
    """Whether drgn is installed."""
    try:
        import drgn  # noqa: F401
    except ImportError:
        return False
    return True


class Lines:
    """The debug information of the file at `path`, and of `alt`, which dwz moved parts of it to.

    Raises `SymbolError` when drgn cannot use it.
    """

    def __init__(self, path: str, alt: str | None = None) -> None:
        import drgn

        self._nested = NestedFunctions(path)
        try:
            self._program: Any = drgn.Program(drgn.host_platform)
            # Files are found and their build-ids compared by us; drgn must not look for others.
            self._program.set_enabled_debug_info_finders([])
            module = self._program.extra_module(path, 0, create=True)
            module.address_range = _ALL_ADDRESSES
            module.try_file(path)
            if alt is not None and module.debug_file_status.name == "WANT_SUPPLEMENTARY":
                module.try_file(alt)
        except (LookupError, OSError, ValueError, RuntimeError) as error:
            raise SymbolError(f"the debug information of {path} cannot be read: {error}") from error
        if module.debug_file_status.name == "WANT_SUPPLEMENTARY":
            raise SymbolError(f"{path} needs the file that dwz moved parts of it to")
        if module.debug_file_status.name != "HAVE":
            raise SymbolError(f"the debug information of {path} cannot be read")

    @property
    def gave_up(self) -> bool:
        """Whether some inlined functions are missing because looking for them took too long."""
        return self._nested.gave_up

    def find(self, addresses: Iterable[int]) -> dict[int, tuple[Activation, ...]]:
        """Return the activations at each address that has a line, innermost first."""
        found: dict[int, tuple[Activation, ...]] = {}
        for address in addresses:
            try:
                places = self._program.source_location(address)
                chain = tuple([_activation(places, n) for n in range(len(places))])
                if len(chain) == 1 and (chain[0].name or "").startswith(_MANGLED):
                    # The name is the symbol's: drgn did not find the function.
                    chain = self._nested.find(address, chain[0]) or chain
                found[address] = chain
            except LookupError:
                continue
            except Exception as error:
                raise SymbolError(f"the debug information is damaged: {error}") from error
        return found


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
