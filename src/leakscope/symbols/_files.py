# SPDX-License-Identifier: Apache-2.0
"""Find the files that describe a module: the module itself, its debug file, dwz's common file.

A file counts only when it is the one the recording names: same build-id, or for a debug link
the same CRC. Build-ids and paths come from recordings that nobody vouches for, so ids are
checked before they become part of a path, and only regular files are opened, with the rights of
whoever named them. A build-id that matches proves as much: its author has had the file.
"""

# ruff: noqa: PTH118, PTH119, PTH120 - a root goes in front of absolute paths, as text

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope._paths import absolute
from leakscope.errors import SymbolError
from leakscope.model.frames import Module, Origin
from leakscope.proc.elf_file import ElfFile, crc32_of
from leakscope.proc.rights import foreign_root, open_named, owner_of_process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from leakscope.symbols._debuginfod import Debuginfod

__all__ = ["ModuleFiles", "find_debug_file", "find_files", "is_build_id"]

_BUILD_ID = re.compile(r"[0-9a-f]{4,128}\Z")
_SYSTEM_DEBUG = "/usr/lib/debug"
_DELETED = " (deleted)"
_PROOF = 16  # digits of a build-id that nobody guesses


def is_build_id(text: str | None) -> bool:
    """Whether `text` is lower-case hex of a possible length."""
    return text is not None and _BUILD_ID.match(text) is not None


@dataclass(slots=True)
class ModuleFiles:
    """What was found for one module. `problem` says why nothing may be used."""

    binary: ElfFile | None = None
    debug: ElfFile | None = None  # has .debug_info; may be `binary` itself
    alt: ElfFile | None = None
    problem: str | None = None
    unverified: bool = False  # the recording has no build-id to compare with
    opened: list[ElfFile] = field(default_factory=list)
    origin: Origin = field(default_factory=Origin)
    """Of the source files that are named in it."""

    @property
    def identity(self) -> str | None:
        """What answers depend on: a name that changes when any of the files does."""
        parts = []
        for elf in (self.binary, self.debug, self.alt):
            if elf is None:
                parts.append("-")
                continue
            status = os.fstat(elf.fd)
            parts.append(f"{elf.build_id() or ''}:{status.st_size}:{status.st_mtime_ns}")
            if elf.build_id() is None:
                parts.append(f"{status.st_dev}:{status.st_ino}:{elf.path}")
        return " ".join(parts) if self.opened else None

    def close(self) -> None:
        """Close all files."""
        for elf in self.opened:
            elf.close()
        self.opened.clear()


def find_files(
    module: Module,
    *,
    debug_dirs: Sequence[str] = (),
    pid: int | None = None,
    debuginfod: Debuginfod | None = None,
    authors: Iterable[int] = (),
) -> ModuleFiles:
    """Look for the files of `module`. Never raises for what is missing or damaged.

    `authors` are the users on whose word the module is named; that of `pid` is one of them.
    """
    return _Search(module, debug_dirs, pid, debuginfod, authors).run()


def find_debug_file(path: str, build_id: str | None) -> str | None:
    """Return the file on this machine that has the lines of the one at `path`; None: there is none.

    That may be `path` itself. `path` is absolute or belongs to the current directory.
    """
    files = find_files(Module(str(absolute(path)), build_id, 0, 0, 0))
    try:
        return files.debug.path if files.debug is not None else None
    finally:
        files.close()


class _Search:
    def __init__(
        self,
        module: Module,
        debug_dirs: Sequence[str],
        pid: int | None,
        debuginfod: Debuginfod | None,
        authors: Iterable[int],
    ) -> None:
        self.path = module.path.removesuffix(_DELETED)
        self.build_id = module.build_id if is_build_id(module.build_id) else None
        self.given = [os.fspath(d) for d in debug_dirs]
        self.root = f"/proc/{pid}/root" if pid is not None else None
        self.foreign = foreign_root(pid) if pid is not None else None
        owner = owner_of_process(pid) if pid is not None else None
        self.authors = {*authors, *(() if owner is None else (owner,))}
        self.fetched: str | None = None  # by ourselves
        self.debuginfod = debuginfod
        self.found = ModuleFiles(unverified=self.build_id is None)

    def run(self) -> ModuleFiles:
        found = self.found
        if not self.path.startswith("/") or "\0" in self.path:
            found.problem = "it is not a file"
            return found
        self.find_binary()
        if found.binary is not None and found.binary.has_debug_info:
            found.debug = found.binary
        else:
            self.find_debug()
        if found.debug is not None:
            found.problem = None
            self.find_alt(found.debug)
        used = [elf for elf in (found.binary, found.debug, found.alt) if elf is not None]
        owners = {elf.owner for elf in used}
        found.origin = Origin(frozenset(self.authors | owners), self.foreign)
        return found

    # The module's own file

    def find_binary(self) -> None:
        missing: str | None = None
        for path in self.binary_places():
            try:
                elf = self.open(path, self.build_id)
            except SymbolError as error:
                # The most telling reason: of the place the recording names, or what is wrong.
                if missing is None or os.path.lexists(path):
                    missing = str(error)
                continue
            if self.build_id is None or elf.build_id() == self.build_id:
                self.found.binary = elf
                self.found.problem = None
                return
            actual = elf.build_id()
            elf.close()
            self.found.problem = (
                f"{path} is not the file that was traced: its build-id is "
                f"{actual or 'missing'}, the recording says {self.build_id}"
            )
        self.found.problem = self.found.problem or missing

    def binary_places(self) -> Iterator[str]:
        name = os.path.basename(self.path)
        if self.root is not None:
            yield self.root + self.path
        for folder in self.given:
            yield folder + self.path
            if name:
                yield os.path.join(folder, name)
            if self.build_id is not None:
                yield f"{folder}/.build-id/{self.build_id[:2]}/{self.build_id[2:]}"
        yield self.path

    # Its debug file

    def find_debug(self) -> None:
        for path, crc in self.debug_places():
            if self.use_debug(path, crc):
                return
        if self.build_id is not None and self.debuginfod is not None:
            fetched = self.debuginfod.find(self.build_id)
            if fetched is not None:
                self.fetched = fetched
                self.use_debug(fetched, None)

    def use_debug(self, path: str, crc: int | None) -> bool:
        if not os.path.lexists(path):
            return False
        expected = self.build_id
        if expected is None and self.found.binary is not None:
            expected = self.found.binary.build_id()
        try:
            elf = self.open(path, expected)
        except SymbolError:
            return False
        actual = elf.build_id()
        try:
            # A build-id proves more than the CRC, and the CRC costs reading the whole file.
            matches = (
                actual == expected
                if expected is not None and actual is not None
                else crc is not None and crc32_of(elf) == crc
            )
        except OSError:
            matches = False
        if matches and elf.has_debug_info:
            self.found.debug = elf
            return True
        if matches and self.found.binary is None:
            self.found.binary = elf  # its symbols are better than nothing
            self.found.problem = None
            return False
        elf.close()
        return False

    def debug_places(self) -> Iterator[tuple[str, int | None]]:
        folders = [*self.given, _SYSTEM_DEBUG]
        if self.root is not None:
            folders.insert(0, self.root + _SYSTEM_DEBUG)
        build_id = self.build_id
        binary = self.found.binary
        if build_id is None and binary is not None:
            build_id = binary.build_id()
        if build_id is not None and is_build_id(build_id):
            for folder in folders:
                yield f"{folder}/.build-id/{build_id[:2]}/{build_id[2:]}.debug", None
                if folder in self.given:
                    yield (
                        f"{folder}{_SYSTEM_DEBUG}/.build-id/{build_id[:2]}/{build_id[2:]}.debug",
                        None,
                    )
        link = self.link()
        if link is not None:
            name, crc = link
            for origin in self.origins():
                yield os.path.join(origin, name), crc
                yield os.path.join(origin, ".debug", name), crc
                for folder in folders:
                    yield f"{folder}{origin}/{name}", crc
            for folder in self.given:
                yield os.path.join(folder, name), crc
        base = os.path.basename(self.path)
        for folder in self.given:
            yield os.path.join(folder, base), None
            yield os.path.join(folder, base + ".debug"), None

    def link(self) -> tuple[str, int] | None:
        try:
            return self.found.binary.debug_link() if self.found.binary is not None else None
        except SymbolError:
            return None

    def origins(self) -> Iterator[str]:
        """The folders of the module, as named and with symbolic links resolved."""
        named = [os.path.dirname(self.path)]
        if self.found.binary is not None:
            named.append(os.path.dirname(self.found.binary.path))
        named += [os.path.realpath(folder) for folder in named]
        yield from dict.fromkeys(named)

    def find_alt(self, debug: ElfFile) -> None:
        try:
            link = debug.alt_link()
        except SymbolError:
            return
        if link is None:
            return
        path, build_id = link
        places = []
        if path.startswith("/"):
            places += [folder + path for folder in self.given]
            places.append(path)
        else:
            # Relative to the debug file, which may be named by a symbolic link.
            for origin in (debug.path, os.path.realpath(debug.path)):
                places.append(os.path.join(os.path.dirname(origin), path))
        if is_build_id(build_id):
            for folder in (*self.given, _SYSTEM_DEBUG):
                places.append(f"{folder}/.build-id/{build_id[:2]}/{build_id[2:]}.debug")
                places.append(f"{folder}/.dwz/{os.path.basename(path)}")
        for place in places:
            if not os.path.lexists(place):
                continue
            try:
                elf = self.open(place, build_id)
            except SymbolError:
                continue
            if elf.build_id() == build_id:
                self.found.alt = elf
                return
            elf.close()

    def open(self, path: str, build_id: str | None) -> ElfFile:
        """Open an ELF file as its authors may, or as we may when it has that build-id."""
        refused: SymbolError | None = None
        try:
            elf = ElfFile(path, open_file=lambda _: self.descriptor(path, self.all_authors()))
        except SymbolError as error:
            if not isinstance(error.__cause__, PermissionError) or build_id is None:
                raise
            refused = error
            try:
                elf = ElfFile(path, open_file=lambda _: self.descriptor(path, ()))
            except SymbolError:
                raise refused from None
            if len(build_id) < _PROOF or elf.build_id() != build_id:
                elf.close()
                raise refused from None
        self.found.opened.append(elf)
        return elf

    def all_authors(self) -> set[int]:
        """Those who named the module, and those of the files that name the next one."""
        return self.authors | {elf.owner for elf in self.found.opened if elf.fd >= 0}

    def descriptor(self, path: str, authors: Iterable[int]) -> int:
        if path == self.fetched:
            return open_named(path)
        if self.root is not None and path.startswith(f"{self.root}/"):
            return open_named(path.removeprefix(self.root), authors, self.root)
        if ".." not in path and any(path.startswith(f"{folder}/") for folder in self.given):
            return open_named(path)  # whoever asks for the report named the folder
        return open_named(path, authors)
