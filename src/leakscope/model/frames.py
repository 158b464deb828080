# SPDX-License-Identifier: Apache-2.0
"""Where code is: modules, addresses inside them, and the source lines they stand for."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Address", "Frame", "Module", "Origin"]


@dataclass(frozen=True, slots=True)
class Module:
    """An ELF object as it was mapped in the traced process.

    `start`, `end` are run-time addresses; `bias` is run-time address minus ELF virtual
    address. `build_id` is lower-case hex or None when the object has none.
    `unloaded` tells that it was gone (dlclose) before the recording ended.
    """

    path: str
    build_id: str | None
    start: int
    end: int
    bias: int
    unloaded: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """An instruction in a module, independent of address-space randomisation.

    `module` indexes `Recording.modules`, None when the address lies in no known module;
    `offset` is then the absolute address, else the ELF virtual address. `exact` is False
    for return addresses: the call is at `offset - 1`.
    """

    module: int | None
    offset: int
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """On whose word a source file is named, and whose root directory its name belongs to.

    `authors` are user numbers; the file is to be shown when all of them may read it. `root` is
    such as /proc/PID/root, None where names mean what they mean to us.
    """

    authors: frozenset[int] = frozenset()
    root: str | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One function activation, innermost inlined function first when an address has several.

    Fields that nobody could determine are None. `function` is demangled, `symbol` is the
    name in the symbol table. `inlined` is True for a frame inlined into the next one.
    `artificial` is reserved for placeholder frames such as a truncated stack.
    """

    address: Address
    module_path: str | None = None
    build_id: str | None = None
    function: str | None = None
    symbol: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None
    inlined: bool = False
    artificial: bool = False
    origin: Origin | None = field(default=None, compare=False, repr=False)
