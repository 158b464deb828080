# SPDX-License-Identifier: Apache-2.0
"""Turn addresses into functions, files and lines, many at a time."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from leakscope.errors import SymbolError
from leakscope.model.frames import Address, Code, Frame, Module, is_system_path
from leakscope.symbols._activation import Activation
from leakscope.symbols._cache import Cache, Located, default_folder
from leakscope.symbols._debuginfod import Debuginfod
from leakscope.symbols._demangle import demangle
from leakscope.symbols._extents import function_entries
from leakscope.symbols._files import ModuleFiles, find_files
from leakscope.symbols._lines import Lines, has_drgn
from leakscope.symbols._tables import functions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from leakscope.proc.elf_file import ElfFile
    from leakscope.symbols._tables import SymbolTable

__all__ = ["Symbolizer"]

_NAMED_IN_A_NOTE = 4


class Symbolizer:
    """Symbols of the modules of one recording. A context manager.

    Nothing raises for symbols that cannot be had: an address that stays unresolved still gives
    a `Frame`, and `notes` says what is missing, why, and what would help.
    """

    def __init__(
        self,
        modules: Sequence[Module],
        *,
        debug_dirs: Sequence[str] = (),
        debuginfod: bool | None = None,
        pid: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        authors: Iterable[int] = (),
    ) -> None:
        """Prepare for `modules`; files are opened when an address needs them.

        `debug_dirs` are searched first, each as a root file system, as a folder of debug files
        and as one with `.build-id` below it. `debuginfod` False never asks a server; None and
        True ask those of DEBUGINFOD_URLS. `pid` is the process while it runs: files are then
        seen as it sees them, which matters for containers. `cache_dir` replaces
        `$XDG_CACHE_HOME/leakscope/symbols`; an empty string switches the cache off. `authors`
        are the users on whose word the modules are named.
        """
        self._modules = tuple(modules)
        self._debug_dirs = tuple(debug_dirs)
        self._pid = pid
        self._authors = frozenset(authors)
        client = Debuginfod() if debuginfod is not False else None
        self._debuginfod = client if client is not None and client.urls else None
        self._cache: Cache | None = None
        if cache_dir is None:
            self._cache = Cache(default_folder())
        elif os.fspath(cache_dir):
            self._cache = Cache(Path(cache_dir))
        self._known: dict[int, dict[int, tuple[Located, ...]]] = {}
        self._open: dict[int, _Reader] = {}
        self._notes: list[str] = []
        self._without_lines: dict[int, bool] = {}  # module: whether functions at least are named

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files. Answers given so far stay valid."""
        for reader in self._open.values():
            reader.files.close()
        self._open.clear()

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be had for the addresses asked so far, and why."""
        notes = [*self._notes, *(self._debuginfod.notes if self._debuginfod is not None else ())]
        for named, own in itertools.product((True, False), (True, False)):
            paths = [
                self._modules[index].path
                for index, some in self._without_lines.items()
                if some is named and own is not is_system_path(self._modules[index].path)
            ]
            if paths:
                what = "functions but no lines for" if named else "no function names for"
                notes.append(f"{what} {_some(paths)}: {self._hint(len(paths), named, own)}")
        return tuple(dict.fromkeys(notes))

    def _hint(self, count: int, named: bool, own: bool) -> str:
        """What to do about modules without debug information, of one's own or the system's."""
        it = "it" if count == 1 else "them"
        server = "" if self._debuginfod is not None else " or set DEBUGINFOD_URLS"
        if own:
            return f"compile {it} with -g" if named else f"do not strip {it},{server}".rstrip(",")
        packages = "its debug package" if count == 1 else "their debug packages"
        return f"install {packages}{server}"

    def resolve(self, addresses: Iterable[Address]) -> dict[Address, tuple[Frame, ...]]:
        """Return the frames at each distinct address, innermost inlined function first.

        Every address asked for is in the answer, with at least one frame.
        """
        distinct = dict.fromkeys(addresses)
        by_module: dict[int, set[int]] = {}
        for address in distinct:
            if address.module is not None and 0 <= address.module < len(self._modules):
                wanted = by_module.setdefault(address.module, set())
                wanted.add(address.offset if address.exact else address.offset - 1)
        changed: list[int] = []
        found: dict[int, dict[int, tuple[Activation | str, ...]]] = {}
        for module, wanted in by_module.items():
            self._prepare(module)
            missing = wanted - self._known[module].keys()
            if missing and module in self._open:
                found[module] = self._look_up(module, sorted(missing))
                changed.append(module)
        self._add_named(found)
        for module in changed:
            identity = self._open[module].identity
            # Answers without lines must not be taken for better ones the next time.
            if self._cache is not None and identity is not None and not self._open[module].gave_up:
                self._cache.store(identity, self._known[module])
        for module, wanted in by_module.items():
            self._judge(module, wanted)
        return {address: self._frames(address) for address in distinct}

    def code(self, frame: Frame) -> Code:
        """Return what is known of the function that `frame`, which came from here, is in."""
        address = frame.address
        if address is None or address.module is None or address.module not in self._open:
            return Code()
        if frame.artificial:
            return Code()
        reader = self._open[address.module]
        at = address.offset if address.exact else address.offset - 1
        returns = reader.returns(frame.function, frame.file) if frame.function else None
        return Code(returns, None if frame.inlined else reader.size(at))

    def _prepare(self, index: int) -> None:
        if index in self._known:
            return
        module = self._modules[index]
        self._known[index] = {}
        files = find_files(
            module,
            debug_dirs=self._debug_dirs,
            pid=self._pid,
            debuginfod=self._debuginfod,
            authors=self._authors,
        )
        if files.problem is not None or (files.binary is None and files.debug is None):
            files.close()
            if module.path.startswith("/"):
                self._notes.append(f"no symbols for {module.path}: {files.problem}")
            return
        if files.unverified:
            self._notes.append(
                f"{module.path} has no build-id: if it changed since the recording, "
                "functions and lines are wrong"
            )
        reader = _Reader(files)
        self._open[index] = reader
        if self._cache is not None and reader.identity is not None:
            self._known[index] = self._cache.load(reader.identity)

    def _look_up(self, index: int, wanted: list[int]) -> dict[int, tuple[Activation | str, ...]]:
        reader = self._open[index]
        found: dict[int, tuple[Activation | str, ...]] = {}
        active = reader.activations(wanted)
        for address in wanted:
            symbol = reader.symbol(address)
            chain: tuple[Activation | str, ...] = active.get(address, ())
            if symbol is not None:
                chain = (*chain, symbol)
            found[address] = chain
        self._notes += reader.notes
        reader.notes.clear()
        return found

    def _add_named(self, found: dict[int, dict[int, tuple[Activation | str, ...]]]) -> None:
        """Choose and demangle the names of all new answers, in one go."""
        mangled: set[str] = set()
        for answers in found.values():
            for chain in answers.values():
                mangled.update(part for part in chain if isinstance(part, str))
        readable = demangle(sorted(mangled))
        for index, answers in found.items():
            known = self._known[index]
            for address, chain in answers.items():
                symbol = chain[-1] if chain and isinstance(chain[-1], str) else None
                active = [part for part in chain if not isinstance(part, str)]
                if not active and symbol is not None:
                    active = [Activation(None, None, None, None)]
                known[address] = tuple(
                    _located(part, symbol if n == len(active) - 1 else None, readable)
                    for n, part in enumerate(active)
                )

    def _judge(self, index: int, wanted: set[int]) -> None:
        """Note which modules have no lines at all."""
        if index not in self._open:
            return
        if self._open[index].files.debug is not None:
            return
        known = self._known[index]
        some = any(place.function for address in wanted for place in known.get(address, ()))
        self._without_lines[index] = self._without_lines.get(index, False) or some

    def _frames(self, address: Address) -> tuple[Frame, ...]:
        if address.module is None or not 0 <= address.module < len(self._modules):
            return (Frame(address),)
        module = self._modules[address.module]
        path, build_id = module.path, module.build_id
        at = address.offset if address.exact else address.offset - 1
        places = self._known[address.module].get(at)
        if not places:
            reader = self._open.get(address.module)
            entry = reader.entry(at) if reader is not None else None
            return (Frame(address, path, build_id, entry=entry),)
        last = len(places) - 1
        reader = self._open.get(address.module)
        origin = reader.files.origin if reader is not None else None
        return tuple(
            [
                Frame(address, path, build_id, *place, inlined=number < last, origin=origin)
                for number, place in enumerate(places)
            ]
        )


class _Reader:
    """The opened files of one module."""

    def __init__(self, files: ModuleFiles) -> None:
        self.files = files
        self.notes: list[str] = []
        # What was found without drgn must not be taken for all that there is.
        by = "drgn" if has_drgn() else "python"
        self.identity = f"{files.identity} {by}" if files.identity is not None else None
        self._tables: list[SymbolTable] | None = None
        self._lines: Lines | None = None
        self._broken = False
        self._entries: npt.NDArray[np.int64] | None = None

    def activations(self, addresses: list[int]) -> dict[int, tuple[Activation, ...]]:
        debug = self.files.debug
        if debug is None or self._broken:
            return {}
        try:
            if self._lines is None:
                alt = self.files.alt
                self._lines = Lines(debug, alt)
            found = self._lines.find(addresses)
        except SymbolError as error:
            self._broken = True
            self.notes.append(f"{error}; lines in it are not shown")
            return {}
        if self.gave_up:
            missing = (
                "inlined functions are shown, as in functions that are defined inside others they"
                if has_drgn()
                else "lines are shown, as without drgn they"
            )
            self.notes.append(f"{debug.path}: not all {missing} take too long to find")
        return found

    @property
    def gave_up(self) -> bool:
        """Whether answers are missing because looking for them took too long."""
        return self._lines is not None and self._lines.gave_up

    def symbol(self, address: int) -> str | None:
        names = (table.find(address) for table in self.tables())
        return next((name for name in names if name is not None), None)

    def size(self, address: int) -> int | None:
        sizes = (table.size_at(address) for table in self.tables())
        return next((size for size in sizes if size is not None), None)

    def entry(self, address: int) -> int | None:
        if self._entries is None:
            binary = self.files.binary
            self._entries = function_entries(binary) if binary is not None else np.zeros(0, int)
        at = int(np.searchsorted(self._entries, address, side="right")) - 1
        return int(self._entries[at]) if at >= 0 else None

    def returns(self, function: str, file: str | None) -> str | None:
        debug = self.files.debug
        if debug is None or self._broken:
            return None
        try:
            if self._lines is None:
                self._lines = Lines(debug, self.files.alt)
            return self._lines.returns(function, file)
        except SymbolError:
            self._broken = True
            return None

    def tables(self) -> list[SymbolTable]:
        if self._tables is None:
            self._tables = list(self._find_tables())
        return self._tables

    def _find_tables(self) -> Iterable[SymbolTable]:
        files: list[ElfFile] = [f for f in (self.files.debug, self.files.binary) if f is not None]
        for elf in dict.fromkeys(files):
            try:
                yield functions(elf)
            except SymbolError as error:
                self.notes.append(str(error))
        if not any(elf.has_symtab() for elf in files) and self.files.binary is not None:
            try:
                small = self.files.binary.mini_debug_info()
                if small is not None:
                    yield functions(small)
            except SymbolError as error:
                self.notes.append(str(error))


def _located(part: Activation, symbol: str | None, readable: dict[str, str]) -> Located:
    # Debug information names functions without their classes and namespaces; the symbol has
    # them, but only of the outermost function at an address.
    function = readable.get(symbol, symbol) if symbol is not None else part.name
    return Located(function, symbol, part.file, part.line, part.column)


def _some(paths: list[str]) -> str:
    shown = ", ".join(Path(path).name or path for path in paths[:_NAMED_IN_A_NOTE])
    more = len(paths) - _NAMED_IN_A_NOTE
    return f"{shown} and {more} more" if more > 0 else shown
