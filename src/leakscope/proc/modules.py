# SPDX-License-Identifier: Apache-2.0
"""The ELF objects that are mapped into a process, for those who look up symbols in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leakscope.errors import LeakscopeError
from leakscope.model.frames import Module
from leakscope.proc.elf import ET_EXEC, read_elf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leakscope.proc.maps import Mapping

__all__ = ["mapped_module"]


def mapped_module(path: str, maps: Sequence[Mapping], pid: int = 0) -> Module | None:
    """Return the object at `path` as it is mapped; None when its file cannot be read.

    `pid` tells whose root directory the path belongs to; 0 is our own, as for core files.
    """
    own = [m for m in maps if m.path == path]
    if not own:
        return None
    try:
        elf = read_elf(path, root=f"/proc/{pid}/root" if pid else None)
    except LeakscopeError:
        return None
    bias = 0 if elf.type == ET_EXEC else own[0].start - own[0].offset
    return Module(path, elf.build_id, own[0].start, own[-1].end, bias)
