# SPDX-License-Identifier: Apache-2.0
"""Lines and inlined functions of one file with debug information.

drgn reads them where it is installed; it has wheels for x86-64. One drgn program holds one file,
so that files never get into each other's addresses.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from leakscope.errors import SymbolError
from leakscope.model.frames import plain_name
from leakscope.symbols._activation import Activation
from leakscope.symbols._dwarf_process import ask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from leakscope.proc.elf_file import ElfFile

__all__ = ["Lines", "has_drgn"]

_MANGLED = ("_Z", "_R")
_MOST_INDEXED = 256 << 20  # bytes: drgn reads them all before it finds a function by its name
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
    """The debug information of a file, and of `alt`, which dwz moved parts of it to.

    Raises `SymbolError` when it cannot be used.
    """

    def __init__(self, file: ElfFile, alt: ElfFile | None = None) -> None:
        self._file = file
        self._program: Any = _drgn_program(file, alt) if has_drgn() else None
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
            answers = ask(self._file, open_questions, self._left_s)
            found |= answers.found
            self._left_s -= answers.seconds
            self.gave_up = answers.gave_up
        return found

    def returns(self, function: str, file: str | None) -> str | None:
        """Return what kind of thing a function returns, as `Code.returns` says it.

        `function` is its name with namespaces and template arguments, and maybe with a result
        and parameters, as it comes demangled. Only drgn knows.
        """
        info = self._file.sections.get(".debug_info")
        if self._program is None or (info is not None and info.size > _MOST_INDEXED):
            return None
        name = plain_name(function)
        for where in (file, None):
            try:
                kind = self._program.function(name, where).type_.type
            except (LookupError, UnicodeDecodeError):
                continue
            except Exception:  # noqa: BLE001
                return None  # damage: the lines are there all the same
            return _returned(kind)
        return None

    def _by_drgn(self, address: int) -> tuple[Activation, ...]:
        try:
            places = self._program.source_location(address)
            return tuple([_activation(places, n) for n in range(len(places))])
        except LookupError:
            return ()
        except Exception as error:
            raise SymbolError(f"the debug information is damaged: {error}") from error


def _returned(kind: Any) -> str:
    name = kind.kind.name
    while name == "TYPEDEF":
        kind = kind.type
        name = kind.kind.name
    if name == "POINTER":
        pointed = kind.type
        while pointed.kind.name == "TYPEDEF":
            pointed = pointed.type
        return "bytes" if pointed.kind.name == "VOID" or _is_byte(pointed) else "object"
    if name == "VOID":
        return "nothing"
    return "object" if name in {"CLASS", "STRUCT", "UNION"} else "value"


def _is_byte(kind: Any) -> bool:
    return bool(kind.kind.name == "INT" and kind.size == 1)


def _drgn_program(file: ElfFile, alt: ElfFile | None) -> Any:
    import drgn

    path, handle = file.path, file.handle

    try:
        program = drgn.Program(drgn.host_platform)
        # Files are found and their build-ids compared by us; drgn must not look for others.
        program.set_enabled_debug_info_finders([])
        module = program.extra_module(path, 0, create=True)
        # drgn takes the difference from the start of this range for how far it was moved.
        module.address_range = (file.lowest_address, _TOP)
        module.try_file(handle)
        if alt is not None and module.debug_file_status.name == "WANT_SUPPLEMENTARY":
            module.try_file(alt.handle)
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
