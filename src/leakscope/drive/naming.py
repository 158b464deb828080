# SPDX-License-Identifier: Apache-2.0
"""Addresses of a tool that ran here a moment ago: the objects that they are in are still here.

A file of another tool alone could be of another build; what we ran ourselves is not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from leakscope import _native
from leakscope._paths import absolute, is_file
from leakscope.errors import LeakscopeError, TargetError
from leakscope.model.frames import Module
from leakscope.model.recordings import NODE_UNADDRESSED
from leakscope.proc.elf import ET_EXEC
from leakscope.proc.elf_file import PT_LOAD, ElfFile
from leakscope.proc.maps import parse_maps
from leakscope.proc.modules import mapped_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from leakscope.model.frames import FrameName
    from leakscope.model.recordings import Recording
    from leakscope.proc.maps import Mapping

__all__ = ["beside", "by_file", "by_maps"]

_MOST_MAPS = 16 << 20
_MOST_MODULES = 60_000  # a node has 16 bits for it


def beside() -> str:
    """Return the library that is preloaded beside tools (native/drive/beside.c)."""
    path = _native.path(_native.BESIDE)
    if not is_file(path) or not set(" :$\t\n;").isdisjoint(str(path)):
        raise TargetError(
            f"{path} is missing from this installation, or cannot be preloaded from there",
            hint="Install leakscope in a folder without blanks, colons and dollar signs.",
        )
    return str(path)


def by_file(recording: Recording) -> Recording:
    """Return the recording with frames in the objects that their names say they are in."""
    bases: dict[str, tuple[Module, int] | None] = {}

    def find(name: FrameName | None, address: int) -> tuple[Module, int] | None:
        if name is None or name.module_path is None:
            return None
        path = str(absolute(name.module_path))
        if path not in bases:
            bases[path] = _module(path)
        found = bases[path]
        if found is None:
            return None
        module, lowest = found
        # An object that is not position-independent is told of by offsets as well.
        return module, address + lowest if address < lowest else address

    return _located(recording, find)


def by_maps(recording: Recording, maps_file: Path) -> Recording:
    """Return the recording with frames in the objects of a saved /proc/PID/maps."""
    try:
        with maps_file.open("rb") as file:
            maps = parse_maps(file.read(_MOST_MAPS))
    except (OSError, LeakscopeError):
        return recording
    modules: dict[str, Module | None] = {}

    def find(_: FrameName | None, address: int) -> tuple[Module, int] | None:
        path = _path_at(maps, address - 1)
        if path is None:
            return None
        if path not in modules:
            modules[path] = mapped_module(path, maps)
        module = modules[path]
        return None if module is None else (module, address - module.bias)

    return _located(recording, find)


def _path_at(maps: tuple[Mapping, ...], address: int) -> str | None:
    for mapping in maps:
        if mapping.start <= address < mapping.end:
            return mapping.path if mapping.path.startswith("/") else None
    return None


def _located(
    recording: Recording, find: Callable[[FrameName | None, int], tuple[Module, int] | None]
) -> Recording:
    nodes = recording.nodes.copy()
    modules = list(recording.modules)
    known = {module.path: number for number, module in enumerate(modules, 1)}
    for number in range(1, len(nodes)):
        if int(nodes["module"][number]) or int(nodes["flags"][number]) & NODE_UNADDRESSED:
            continue
        label = int(nodes["name"][number])
        name = recording.names[label - 1] if label else None
        found = find(name, int(nodes["offset"][number]))
        if found is None or len(modules) >= _MOST_MODULES:
            continue
        module, offset = found
        if module.path not in known:
            modules.append(module)
            known[module.path] = len(modules)
        nodes["module"][number], nodes["offset"][number] = known[module.path], offset
        nodes["name"][number] = 0  # symbols tell more
    return replace(recording, nodes=nodes, modules=tuple(modules))


def _module(path: str) -> tuple[Module, int] | None:
    """Return an object, and the lowest address that it is linked to, where that is not zero."""
    try:
        with ElfFile(path, lenient=True, most=_MOST_MAPS) as file:
            lowest = min((s.address for s in file.segments if s.type == PT_LOAD), default=0)
            build_id = file.build_id()
            fixed = lowest if file.type == ET_EXEC else 0
    except (LeakscopeError, OSError, ValueError):
        return None
    return Module(path, build_id, 0, (1 << 64) - 1, 0), fixed
