# SPDX-License-Identifier: Apache-2.0
"""Which objects fill a slab cache, read from the kernel's memory.

A cache of kmalloc has no type. What an object is shows in what it points to: tables of functions,
callbacks and variables of the kernel or of a module have names.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from leakscope.errors import TargetError
from leakscope.model.kernel_objects import CacheObjects, Likeness

if TYPE_CHECKING:
    from leakscope.kernel.live import KernelMemory

__all__ = ["read_cache"]

_MOST_OBJECTS = 100_000
_MOST_BYTES = 2048  # of an object that are looked at
_NAMES = 3
_LOOKS = 20


def read_cache(memory: KernelMemory, name: str) -> CacheObjects:
    """Return what fills the cache. Raises `TargetError` where there is none of that name."""
    import drgn
    from drgn.helpers.linux.slab import (
        find_slab_cache,
        get_slab_cache_aliases,
        slab_cache_for_each_allocated_object,
        slab_cache_usage,
    )

    program = memory.program
    try:
        aliases: dict[str, str] = get_slab_cache_aliases(program)
    except (LookupError, AttributeError, drgn.FaultError):
        aliases = {}
    try:
        cache = find_slab_cache(program, aliases.get(name, name))
        if cache is None:
            raise TargetError(
                f"this kernel has no slab cache named '{name[:80]}'",
                hint="/proc/slabinfo has their names; an object is given by its address, 0x….",
            )
        size = int(cache.object_size)
        own = cache.name.string_().decode("utf-8", "replace")
        usage = slab_cache_usage(cache)
        names = _Names(program)
        looks: Counter[tuple[str, ...]] = Counter()
        examples: dict[tuple[str, ...], int] = {}
        count = 0
        for one in slab_cache_for_each_allocated_object(cache, "char"):
            if count >= _MOST_OBJECTS:
                break
            count += 1
            address = int(one)
            try:
                data = program.read(address, min(size, _MOST_BYTES) & ~7)
            except drgn.FaultError:
                continue
            look = names.of(data)
            looks[look] += 1
            examples.setdefault(look, address)
    except (drgn.FaultError, LookupError, ValueError, AttributeError) as error:
        raise TargetError(f"the cache {name[:80]} cannot be read: {error}") from error
    return CacheObjects(
        source=memory.source,
        release=memory.release,
        name=own,
        others=tuple(sorted(other for other, into in aliases.items() if into == own))[:20],
        object_bytes=size,
        allocated=int(usage.num_objs) - int(usage.free_objs),
        room=int(usage.num_objs),
        read=count,
        looks=tuple(Likeness(n, c, examples[n]) for n, c in looks.most_common(_LOOKS)),
    )


class _Names:
    """Names of what words point to, where it belongs to the kernel's image or to a module."""

    def __init__(self, program: Any) -> None:
        self._program = program
        self._known: dict[int, str | None] = {}
        ranges = []
        for each in program.loaded_modules():
            module = each[0] if isinstance(each, tuple) else each
            ranges += list(module.address_ranges or ())
        self._ranges = [(int(low), int(high)) for low, high in ranges if low < high]

    def of(self, data: bytes) -> tuple[str, ...]:
        """Return the first few names, with where in the object the words stand."""
        words = np.frombuffer(data, dtype="<u8")
        inside = np.zeros(len(words), dtype=bool)
        for low, high in self._ranges:
            inside |= (words >= low) & (words < high)
        found = []
        for at in np.flatnonzero(inside):
            name = self._name(int(words[at]))
            if name is not None:
                found.append(f"+{int(at) * 8:#x} {name}")
                if len(found) >= _NAMES:
                    break
        return tuple(found)

    def _name(self, address: int) -> str | None:
        if address not in self._known:
            try:
                symbol = self._program.symbol(address)
            except LookupError:
                self._known[address] = None
            else:
                # A symbol without an end is before everything that has none, as texts are.
                into = address - symbol.address
                self._known[address] = symbol.name if into < max(symbol.size, 1) else None
        return self._known[address]
