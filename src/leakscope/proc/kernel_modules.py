# SPDX-License-Identifier: Apache-2.0
"""The kernel's modules, where they are loaded, and the functions in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from leakscope.proc.text import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LoadedModule", "ModuleFunction", "parse_modules", "parse_symbols"]
__all__ += ["read_module_symbols", "read_modules"]

_MOST_SYMBOLS = 1 << 20


class LoadedModule(NamedTuple):
    """One line of /proc/modules. `address` is 0 for those who may not know it."""

    name: str
    size: int
    address: int
    tainted: str  # "OE" for one from elsewhere; "" for none


class ModuleFunction(NamedTuple):
    """A function of a module."""

    address: int
    name: str
    module: str


def parse_modules(lines: Iterable[str]) -> tuple[LoadedModule, ...]:
    """Read /proc/modules; lines that do not fit are left out."""
    found = []
    for line in lines:
        words = line.split()
        if len(words) < 6 or not words[1].isdecimal() or not words[5].startswith("0x"):
            continue
        try:
            address = int(words[5][:18], 16)
        except ValueError:
            continue
        tainted = words[6].strip("()+-") if len(words) > 6 else ""
        found.append(LoadedModule(words[0][:64], int(words[1][:18]), address, tainted))
    return tuple(found)


def read_modules() -> tuple[LoadedModule, ...]:
    """Return the modules of this kernel; empty where it has none."""
    return parse_modules(read_lines("/proc/modules"))


def parse_symbols(lines: Iterable[str]) -> list[ModuleFunction]:
    """Return the functions of modules in a text of /proc/kallsyms, ascending.

    Empty where addresses are kept from us: then they are all zero.
    """
    found = []
    for line in lines:
        words = line.split()
        if len(words) != 4 or words[1] not in "tTwW" or not words[3].startswith("["):
            continue
        try:
            address = int(words[0][:16], 16)
        except ValueError:
            continue
        if address and words[3] != "[bpf]":
            found.append(ModuleFunction(address, words[2][:256], words[3].strip("[]")[:64]))
            if len(found) >= _MOST_SYMBOLS:
                break
    return sorted(found)


def read_module_symbols() -> list[ModuleFunction]:
    """Return `parse_symbols` of this kernel."""
    return parse_symbols(read_lines("/proc/kallsyms"))
