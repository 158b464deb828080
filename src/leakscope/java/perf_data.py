# SPDX-License-Identifier: Apache-2.0
"""The counters that a HotSpot virtual machine keeps in a file, as jstat reads them.

/tmp/hsperfdata_USER/PID is mapped by the virtual machine and read here without its help: it does
not stop, and nothing is asked of it. Collectors with generations count their collections and tell
how large the spaces were after the last one; of eden, where objects begin, some tell what is in it
now. ZGC and Shenandoah work beside the program: they count their pauses, several to a collection,
and tell what the heap held at one of them.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leakscope.proc.rights import open_named

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PerfCounters", "parse", "read"]

_MAGIC = 0xCAFEC0C0
_HEADER = struct.Struct("4x B B B B i i q i i")
_ENTRY = struct.Struct("i i i B B B B i")
_MOST = 1 << 20  # bytes of such a file; usual are 32 KiB
_MOST_ENTRIES = 4096
_SPACE = re.compile(r"sun\.gc\.generation\.\d{1,3}\.space\.\d{1,3}")
_COLLECTOR = re.compile(r"sun\.gc\.collector\.\d{1,3}\.name")


@dataclass(frozen=True, slots=True)
class PerfCounters:
    """Counters by name: numbers and texts."""

    numbers: dict[str, int]
    texts: dict[str, str]

    def sum(self, *parts: str) -> int | None:
        """Return the sum of counters whose names begin and end so; None: there is none."""
        start, end = parts
        found = [v for k, v in self.numbers.items() if k.startswith(start) and k.endswith(end)]
        return sum(found) if found else None

    @property
    def heap_after(self) -> int | None:
        """Bytes of the heap in use after the last collection; None: that is not told."""
        if not self.collections:
            return None
        # A collection empties eden; what is in it was allocated since.
        eden = self._edens()
        return self._used(lambda space: space not in eden)

    @property
    def heap_in_use(self) -> int | None:
        """Bytes of the heap in use when that was last counted, garbage included."""
        return self._used(lambda _: True)

    @property
    def counts_collections(self) -> bool:
        """Whether it counts collections, and not the pauses of a collector beside the program."""
        return bool(self._edens())

    @property
    def collector(self) -> str:
        """Name of a collector that works beside the program; "" of all others."""
        names = [text for name, text in self.texts.items() if _COLLECTOR.fullmatch(name)]
        if any(name.startswith("Z") for name in names):
            return "ZGC"
        return "Shenandoah" if any("Shenandoah" in name for name in names) else ""

    def _edens(self) -> set[str]:
        return {
            name.removesuffix(".name")
            for name, text in self.texts.items()
            if text == "eden" and _SPACE.fullmatch(name.removesuffix(".name"))
        }

    def _used(self, wanted: Callable[[str], bool]) -> int | None:
        found = [
            value
            for name, value in self.numbers.items()
            if name.endswith(".used")
            and _SPACE.fullmatch(space := name.removesuffix(".used"))
            and wanted(space)
        ]
        return sum(found) if found else None

    @property
    def heap_most(self) -> int | None:
        """Bytes that the heap may grow to."""
        found = [
            value
            for name, value in self.numbers.items()
            if name.startswith("sun.gc.generation.")
            and ".space." not in name
            and name.endswith(".maxCapacity")
        ]
        # Those of G1 share what there is: each may have nearly all of it.
        if not found:
            return None
        return max(found) if max(found) - min(found) <= max(found) // 100 else sum(found)

    @property
    def collections(self) -> int | None:
        """How many collections there were; None where pauses are counted instead."""
        if not self.counts_collections:
            return None
        # G1's marking beside the program has pauses of its own, which free nothing.
        return sum(
            value
            for name, value in self.numbers.items()
            if name.endswith(".invocations")
            and _COLLECTOR.fullmatch(named := name.removesuffix("invocations") + "name")
            and "cycle pauses" not in self.texts.get(named, "")
        )

    @property
    def full_collections(self) -> int | None:
        """How many of them were of the whole heap."""
        if not self.counts_collections:
            return None
        return self.numbers.get("sun.gc.collector.1.invocations", 0)

    @property
    def collecting_s(self) -> float:
        """Seconds spent on them."""
        ticks = self.sum("sun.gc.collector.", ".time") or 0
        return ticks / max(self.numbers.get("sun.os.hrt.frequency", 1_000_000_000), 1)

    @property
    def metaspace(self) -> int | None:
        """Bytes of class data; None before the first collection, which updates it."""
        return self.numbers.get("sun.gc.metaspace.used") or None

    @property
    def threads(self) -> int | None:
        """Threads of Java."""
        return self.numbers.get("java.threads.live")

    @property
    def classes(self) -> int | None:
        """Classes that are loaded."""
        loaded = self.numbers.get("java.cls.loadedClasses")
        shared = self.numbers.get("java.cls.sharedLoadedClasses", 0)
        gone = self.numbers.get("java.cls.unloadedClasses", 0)
        gone += self.numbers.get("java.cls.sharedUnloadedClasses", 0)
        return None if loaded is None else loaded + shared - gone

    @property
    def version(self) -> str:
        """Version of Java, "" where it is not told."""
        return self.texts.get("java.property.java.version", "")

    @property
    def command(self) -> str:
        """Main class or archive with its arguments."""
        return self.texts.get("sun.rt.javaCommand", "")


def parse(data: bytes) -> PerfCounters | None:
    """Return the counters in a file; None for what is no such file."""
    if len(data) < 32 or int.from_bytes(data[:4], "big") != _MAGIC:
        return None
    order = "<" if data[4] == 1 else ">"
    header = struct.Struct(order + _HEADER.format.replace(" ", ""))
    entry = struct.Struct(order + _ENTRY.format.replace(" ", ""))
    *_, first, count = header.unpack_from(data)
    numbers: dict[str, int] = {}
    texts: dict[str, str] = {}
    at = first
    for _ in range(min(max(count, 0), _MOST_ENTRIES)):
        if at < 0 or at + entry.size > len(data):
            break
        length, name_at, items, kind, _flags, _units, _kind, data_at = entry.unpack_from(data, at)
        if length <= 0 or at + length > len(data):
            break
        raw = data[at + max(name_at, 0) : at + length]
        name = raw[: raw.find(b"\0")].decode("utf-8", "replace")
        value = data[at + max(data_at, 0) : at + length]
        if kind == ord("J") and items == 0 and len(value) >= 8:
            numbers[name] = struct.unpack_from(order + "q", value)[0]
        elif kind == ord("B") and items > 0:
            texts[name] = value[:items].split(b"\0", 1)[0].decode("utf-8", "replace")
        at += length
    return PerfCounters(numbers, texts)


def read(path: str, uid: int, root: str | None = None) -> PerfCounters | None:
    """Read a file of counters of that user; None where it is none, or not to be read.

    In a folder where everybody may write, a file of another user says what that user likes. No
    link leads out of `root`.
    """
    try:
        fd = open_named(path, root=root)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_uid != uid:
            return None
        return parse(os.read(fd, _MOST))
    except OSError:
        return None
    finally:
        os.close(fd)
