# SPDX-License-Identifier: Apache-2.0
"""A heap dump of Java, open and analysed: objects by number, their classes, values and holders."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from leakscope.errors import RecordingError
from leakscope.java import _core, _values
from leakscope.java._core import NONE, DumpCore, DumpFacts, HeapTable, Level, Link, Sizes
from leakscope.java._names import Names
from leakscope.java.heap_file import DumpFile, open_dump
from leakscope.proc.cgroup import memory_limit
from leakscope.proc.meminfo import read_meminfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Numbers = npt.NDArray[np.uint32]

__all__ = ["HeapDump", "Rules", "open_heap", "visualvm_rules"]

_CLASS, _INSTANCE, _OBJECT_ARRAY = 0, 1, 2
_KIND = np.uint64(15)
_PRIMITIVES = {4: "boolean", 5: "char", 6: "float", 7: "double"}
_PRIMITIVES |= {8: "byte", 9: "short", 10: "int", 11: "long"}
_REFERENCES = ("Reference", "SoftReference", "WeakReference", "FinalReference", "PhantomReference")
_SHARE = 0.9  # of the memory that is free
_LONGEST_PATH = 20_000


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as held, and how sizes are worked out."""

    edges: int = _core.CLASS_EDGES | _core.THREAD_EDGES
    sizes: Sizes | None = None  # None: those of the virtual machine


def visualvm_rules(id_size: int) -> Rules:
    """Return the rules of VisualVM's library, to compare with it: sizes as in the file.

    There an object holds neither its class nor a thread its frames' objects, and what has another
    holder counts weak references and garbage as holders too.
    """
    sizes = Sizes(12, 16, 4, 8, 8, int(id_size == 8), 0)
    return Rules(_core.ALL_PARENTS, sizes)


@dataclass(slots=True)
class HeapDump:
    """What is known of a dump while it is open. Objects and classes are known by number.

    `NONE` stands for no object; sizes are bytes.
    """

    file: DumpFile
    core: DumpCore
    names: Names
    rules: Rules
    android: bool = False
    objects: npt.NDArray[np.void] = field(init=False)
    classes: npt.NDArray[np.void] = field(init=False)
    fields: npt.NDArray[np.void] = field(init=False)
    roots: npt.NDArray[np.void] = field(init=False)
    class_of: Numbers = field(init=False)
    idom: Numbers = field(init=False)
    heaviest: Numbers = field(init=False)
    towards_root: Numbers = field(init=False)
    level: npt.NDArray[np.uint8] = field(init=False)
    kinds: npt.NDArray[np.uint8] = field(init=False)
    unit: int = 1
    _retained: npt.NDArray[np.uint64] = field(init=False)
    _shallow: Numbers = field(init=False)
    _out_first: Numbers = field(init=False)
    _out_count: Numbers = field(init=False)
    _edges: Numbers = field(init=False)
    _root_of: dict[int, Any] | None = None

    def analyse(self) -> None:
        """Run all steps. Raises `RecordingError` for a dump without objects."""
        core = self.core
        core.index()
        self._table("objects", HeapTable.OBJECTS)
        self._table("classes", HeapTable.CLASSES)
        self._table("fields", HeapTable.FIELDS)
        if not len(self.objects):
            raise _empty(self.file, core.facts)
        self.android = self.file.version == "1.0.3" or len(core.table(HeapTable.PARTS)) > 0
        self.names.load(core, self.classes)
        self._link()
        core.measure(self.rules.sizes or self._sizes())
        core.dominate(self.rules.edges)
        for name in ("roots", "class_of", "idom", "heaviest", "towards_root", "level"):
            self._table(name, HeapTable[name.upper()])
        self._table("classes", HeapTable.CLASSES)
        self._table("_retained", HeapTable.RETAINED)
        self._table("_shallow", HeapTable.SHALLOW)
        self._table("_out_first", HeapTable.OUT_FIRST)
        self._table("_out_count", HeapTable.OUT_COUNT)
        self._table("_edges", HeapTable.EDGES)
        self.unit = core.sizes.unit
        self.kinds = (self.objects["place"] & _KIND).astype(np.uint8)

    def _table(self, name: str, table: HeapTable) -> None:
        setattr(self, name, self.core.table(table))

    def _sizes(self) -> Sizes:
        if self.file.id_size == 4:  # HotSpot of 32 bits and Android alike
            return Sizes(8, 12, 4, 8, 8, 0, 1)
        return Sizes(12, 16, 4, 8, 8, 1, 1)

    def _link(self) -> None:
        link = Link(rules=self.rules.edges, referent=NONE)
        find = self.names.class_index
        for number in range(12):
            name = _PRIMITIVES.get(number)
            link.primitive[number] = NONE if name is None else find(f"{name}[]")
        link.class_class = find("java.lang.Class")
        for name in _REFERENCES:
            short = name.removesuffix("Reference").lower() or "reference"
            setattr(link, short, find(f"java.lang.ref.{name}"))
        if link.reference != NONE:
            at = 0
            for each in self.own_fields(link.reference):
                if self.names.text(int(each["name_id"])) == "referent":
                    link.referent = at
                    break
                at += _values.type_size(int(each["type"]), self.file.id_size)
        self.core.link(link)

    # ---- objects

    def retained(self, number: int) -> int:
        """Return the bytes that would go with an object; 0 for what is not strongly held."""
        return int(self._retained[number]) * self.unit

    def size(self, number: int) -> int:
        """Return the bytes of the object alone."""
        return int(self._shallow[number]) * self.unit

    @property
    def all_retained(self) -> npt.NDArray[np.uint64]:
        """Retained bytes of every object."""
        return self._retained * np.uint64(self.unit)

    @property
    def all_sizes(self) -> npt.NDArray[np.uint64]:
        """Bytes of every object alone."""
        return self._shallow.astype(np.uint64) * np.uint64(self.unit)

    def bytes_of(self, mask: npt.NDArray[np.bool_]) -> int:
        """Return the bytes of the objects that a mask names."""
        return int(self._shallow[mask].sum(dtype=np.uint64)) * self.unit

    @property
    def strong(self) -> npt.NDArray[np.bool_]:
        """Which objects are strongly held."""
        found: npt.NDArray[np.bool_] = self.level == Level.STRONG
        return found

    def number_of(self, address: int) -> int:
        """Return the object at an address, NONE where there is none."""
        if not 0 <= address < 1 << 64:
            return NONE
        at = int(np.searchsorted(self.objects["id"], np.uint64(address)))
        if at < len(self.objects) and int(self.objects["id"][at]) == address:
            return at
        return NONE

    def class_index_of_object(self, number: int) -> int:
        """Return which class an object of java.lang.Class stands for, NONE for other objects."""
        if self.kinds[number] != _CLASS:
            return NONE
        return int(np.searchsorted(self.classes["id"], self.objects["id"][number]))

    def class_name(self, number: int) -> str:
        """Return the name of an object's class."""
        index = int(self.class_of[number])
        if index != NONE:
            return self.names.class_name(index)
        kind = int(self.kinds[number])
        if kind in _PRIMITIVES:
            return f"{_PRIMITIVES[kind]}[]"
        return "java.lang.Class" if kind == _CLASS else "(a class that is not in the dump)"

    def own_fields(self, index: int) -> npt.NDArray[np.void]:
        """Return the fields that a class adds to those above it."""
        one = self.classes[index]
        first = int(one["field_first"])
        return self.fields[first : first + int(one["field_count"])]

    def static_fields(self, index: int) -> npt.NDArray[np.void]:
        """Return the static fields of a class, with their values."""
        one = self.classes[index]
        first = int(one["static_first"])
        return self.fields[first : first + int(one["static_count"])]

    def instances(self, name: str, *, exact: bool = True) -> npt.NDArray[np.int64]:
        """Return the objects of the classes of that name; with those below it unless `exact`."""
        wanted = self.names.class_indices(name)
        if not exact:
            wanted = self._with_subclasses(wanted)
        if not wanted:
            return np.empty(0, np.int64)
        of = np.zeros(len(self.classes) + 1, bool)
        of[list(wanted)] = True
        index = np.minimum(self.class_of, np.uint32(len(self.classes)))
        return np.flatnonzero(of[index] & (self.kinds == _INSTANCE))

    def _with_subclasses(self, wanted: set[int]) -> set[int]:
        found = np.zeros(len(self.classes) + 1, bool)
        found[list(wanted)] = True
        above = np.minimum(self.classes["super_index"], np.uint32(len(self.classes)))
        for _ in range(64):
            more = found[:-1] | found[above]
            if (more == found[:-1]).all():
                break
            found[:-1] = more
        return set(np.flatnonzero(found[:-1]).tolist())

    def values(self, number: int) -> Iterator[_values.Value]:
        """Yield the fields of an object, static ones of a class, or the elements of an array."""
        return _values.read(self, number)

    def fields_of(self, number: int) -> dict[str, int]:
        """Return the fields of an object that are whole numbers, flags and addresses, by name.

        Of several of one name that of the class itself. What a field is called says nothing of
        its type: a size may be a fraction in another program.
        """
        found: dict[str, int] = {}
        for one in self.values(number):
            if isinstance(one.value, int):
                found.setdefault(one.name, int(one.value))
        return found

    def whole(self, number: int, name: str) -> int:
        """Return one field that is a whole number or a flag; 0 where there is no such field."""
        found = (v.value for v in self.values(number) if v.name == name and not v.is_reference)
        value = next(found, 0)
        return value if isinstance(value, int) else 0

    def target(self, number: int, name: str) -> int:
        """Return the object that a field refers to, NONE for none."""
        found = (v.value for v in self.values(number) if v.name == name and v.is_reference)
        return self.number_of(int(next(found, 0)))

    def string(self, number: int) -> str | None:
        """Return the text of a java.lang.String, shortened; None where it is none."""
        return _values.string(self, number)

    def children(self, number: int) -> npt.NDArray[np.int64]:
        """Return the objects that an object dominates directly."""
        return np.flatnonzero(self.idom == number)

    def children_few(self, number: int) -> list[int]:
        """Return some of the objects that an object refers to and dominates."""
        first, count = int(self._out_first[number]), int(self._out_count[number])
        edges = self._edges[first : first + min(count, 8)]
        return [int(each) for each in edges if self.idom[each] == number]

    def dominated(self, number: int) -> npt.NDArray[np.bool_]:
        """Return which objects would go with an object, itself included."""
        return self.core.dominated(number, len(self.objects))

    def path(self, number: int) -> list[int]:
        """Return a shortest path from what holds it to an object, roots first."""
        found = [number]
        while (number := int(self.towards_root[number])) != NONE and len(found) < _LONGEST_PATH:
            found.append(number)
        return found[::-1]

    def roots_of(self, number: int) -> list[Any]:
        """Return the records that make an object a root."""
        if self._root_of is None:
            self._root_of = {}
            for root in self.roots:
                self._root_of.setdefault(int(root["number"]), []).append(root)
        found: list[Any] = self._root_of.get(number, [])
        return found


@contextmanager
def open_heap(path: str | os.PathLike[str], rules: Rules | None = None) -> Iterator[HeapDump]:
    """Open a dump and analyse it. Raises `RecordingError` in a sentence on what is wrong."""
    with open_dump(os.fspath(path)) as file:
        limit = _room()
        with DumpCore(file.fd, file.start, file.size, file.id_size, limit, file.name) as core:
            dump = HeapDump(file, core, Names(file), rules or Rules())
            dump.analyse()
            yield dump


def _empty(file: DumpFile, facts: DumpFacts) -> RecordingError:
    """Say why there is nothing in a dump."""
    hint = "Take it again, and let it come to its end."
    if facts.damaged:
        where = f"{file.name} cannot be understood from byte {facts.damaged_at:,} on"
        return RecordingError(
            f"{where}, before it comes to any object",
            hint="Take it again, or copy it again if it came from another machine.",
        )
    if facts.truncated_at:
        return RecordingError(
            f"{file.name} ends before it comes to any object: there is nothing to report", hint=hint
        )
    return RecordingError(f"{file.name} is a heap dump without a single object", hint=hint)


def _room() -> int:
    """How much memory the analysis may take."""
    free = read_meminfo().get("MemAvailable")
    room = (1 << 40) if free is None else int(free)
    limit = memory_limit()
    if limit is not None:
        room = min(room, limit)
    return int(room * _SHARE)
