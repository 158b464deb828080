# SPDX-License-Identifier: Apache-2.0
"""The native analyser of heap dumps: its functions, tables and their types (native/hprof/*.c)."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from leakscope import _native
from leakscope.errors import RecordingError
from leakscope.words import bytes_text

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["ALL_PARENTS", "CLASS_EDGES", "NONE", "THREAD_EDGES", "DumpCore", "DumpFacts", "Level"]
__all__ += ["HeapTable", "Link", "Sizes"]

NONE = 0xFFFFFFFF
"""No object, no class."""
CLASS_EDGES, THREAD_EDGES, ALL_PARENTS = 1, 2, 4

_WORD, _POINTER, _INT = ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int
_FUNCTIONS = {
    "open": (_POINTER, [_INT, _WORD, _WORD, _INT, _WORD]),
    "index": (_INT, [_POINTER]),
    "link": (_INT, [_POINTER, _POINTER]),
    "measure": (_INT, [_POINTER, _POINTER]),
    "dominate": (_INT, [_POINTER, ctypes.c_uint32]),
    "dominated": (None, [_POINTER, ctypes.c_uint32, _POINTER]),
    "table": (_POINTER, [_POINTER, _INT, _POINTER]),
    "facts": (_POINTER, [_POINTER]),
    "sizes": (_POINTER, [_POINTER]),
    "free": (None, [_POINTER]),
}


class Level(IntEnum):
    """How an object is held; the strongest way counts."""

    GARBAGE = 0
    STRONG = 1
    SOFT = 2
    FINAL = 3  # only until it is finalized
    WEAK = 4
    PHANTOM = 5


class HeapTable(IntEnum):
    """Tables of a dump; from CLASS_OF on they have one item for each object."""

    TEXTS = 0
    LOADS = 1
    FRAMES = 2
    TRACES = 3
    TRACE_FRAMES = 4
    ROOTS = 5
    PARTS = 6
    CLASSES = 7
    FIELDS = 8
    OBJECTS = 9
    REFERENCES = 10
    EDGES = 11
    CLASS_OF = 12
    SHALLOW = 13
    OUT_FIRST = 14
    OUT_COUNT = 15
    IS_ROOT = 16
    IDOM = 17
    HEAVIEST = 18
    TOWARDS_ROOT = 19
    RETAINED = 20
    LEVEL = 21


def _dtype(**fields: str) -> np.dtype[np.void]:
    # A list, so that nothing is guessed of the kind of dtype.
    return np.dtype(list(fields.items()))


_DTYPES: dict[HeapTable, np.dtype[np.generic]] = {
    HeapTable.TEXTS: _dtype(id="<u8", offset="<u8", length="<u4", reserved="<u4"),
    HeapTable.LOADS: _dtype(class_id="<u8", name_id="<u8", serial="<u4", trace="<u4"),
    HeapTable.FRAMES: _dtype(
        id="<u8", method="<u8", signature="<u8", file="<u8", class_serial="<u4", line="<i4"
    ),
    HeapTable.TRACES: _dtype(serial="<u4", thread="<u4", first="<u4", count="<u4"),
    HeapTable.TRACE_FRAMES: np.dtype("<u8"),
    HeapTable.ROOTS: _dtype(id="<u8", tag="<u4", thread="<u4", frame="<u4", number="<u4"),
    HeapTable.PARTS: _dtype(offset="<u8", name_id="<u8"),
    HeapTable.CLASSES: _dtype(
        id="<u8",
        super="<u8",
        loader="<u8",
        signers="<u8",
        domain="<u8",
        offset="<u8",
        **dict.fromkeys(
            (
                "instance_size",
                "field_first",
                "field_count",
                "static_first",
                "static_count",
                "super_index",
                "own_bytes",
                "refs_first",
                "refs_count",
                "next",
                "next_bytes",
                "kind",
                "number",
                "size",
            ),
            "<u4",
        ),
    ),
    HeapTable.FIELDS: _dtype(name_id="<u8", value="<u8", type="<u4", reserved="<u4"),
    HeapTable.OBJECTS: _dtype(id="<u8", place="<u8"),
    HeapTable.REFERENCES: np.dtype(
        [("from", "<u4"), ("to", "<u4"), ("kind", "<u4"), ("rest", "<u4")]
    ),
    HeapTable.RETAINED: np.dtype("<u8"),
    HeapTable.IS_ROOT: np.dtype("u1"),
    HeapTable.LEVEL: np.dtype("u1"),
}
_NUMBER = np.dtype("<u4")


class Link(ctypes.Structure):
    """`struct link` of hprof.h: indices of classes that have a meaning."""

    _fields_ = (
        ("primitive", ctypes.c_uint32 * 12),
        ("class_class", ctypes.c_uint32),
        ("reference", ctypes.c_uint32),
        ("soft", ctypes.c_uint32),
        ("weak", ctypes.c_uint32),
        ("final", ctypes.c_uint32),
        ("phantom", ctypes.c_uint32),
        ("referent", ctypes.c_uint32),
        ("rules", ctypes.c_uint32),
    )


class Sizes(ctypes.Structure):
    """`struct sizes`: bytes of headers and references; `guessed` asks for them to be found."""

    _fields_ = tuple(
        (name, ctypes.c_uint32)
        for name in (
            "header",
            "array_header",
            "reference",
            "alignment",
            "unit",
            "guessed",
            "padded",
        )
    )


class DumpFacts(ctypes.Structure):
    """`struct facts`: what was met in the file."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("truncated_at", "damaged_at", "damaged", "duplicates", "nowhere", "short_bodies"),
            *("no_class", "edges", "memory", "most", "ended", "segments"),
        )
    )


@cache
def _library() -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(_native.path("libleakscope-hprof.so")))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(loaded, f"lsh_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded


class DumpCore:
    """One dump in the hands of the native analyser. A context manager.

    Steps are `index`, `link`, `measure`, `dominate`, in this order. Each raises `RecordingError`
    when the memory that may be taken is not enough. A table lasts until the next step.
    """

    def __init__(self, fd: int, start: int, size: int, id_size: int, limit: int, name: str) -> None:
        self._name = name
        self._limit = limit
        self._heap = _library().lsh_open(fd, start, size, id_size, limit)
        if not self._heap:
            raise RecordingError(f"cannot read {name}: there is no memory for it")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        heap, self._heap = self._heap, None
        _library().lsh_free(heap)

    def index(self) -> None:
        """Read the dump for the first time: which objects there are."""
        self._check(_library().lsh_index(self._heap))

    def link(self, link: Link) -> None:
        """Read it for the second time: what refers to what."""
        self._check(_library().lsh_link(self._heap, ctypes.byref(link)))

    def measure(self, sizes: Sizes) -> None:
        """Work out the size of each object."""
        self._check(_library().lsh_measure(self._heap, ctypes.byref(sizes)))

    def dominate(self, rules: int) -> None:
        """Work out who holds what, and how much."""
        self._check(_library().lsh_dominate(self._heap, rules))

    def dominated(self, number: int, count: int) -> npt.NDArray[np.bool_]:
        """Return which of the `count` objects one of them dominates, itself included."""
        inside = np.zeros(count, np.uint8)
        _library().lsh_dominated(self._heap, number, inside.ctypes.data)
        found: npt.NDArray[np.bool_] = inside == 1
        return found

    @property
    def facts(self) -> DumpFacts:
        """What was met so far."""
        return DumpFacts.from_buffer_copy(
            ctypes.string_at(_library().lsh_facts(self._heap), ctypes.sizeof(DumpFacts))
        )

    @property
    def sizes(self) -> Sizes:
        """The layout that sizes were worked out by."""
        return Sizes.from_buffer_copy(
            ctypes.string_at(_library().lsh_sizes(self._heap), ctypes.sizeof(Sizes))
        )

    def table(self, table: HeapTable) -> npt.NDArray[Any]:
        """Return a table as it lies in the memory of the analyser, not to be written to."""
        count = ctypes.c_uint64()
        items = _library().lsh_table(self._heap, table, ctypes.byref(count))
        dtype = _DTYPES.get(table, _NUMBER)
        if not items or not count.value:
            return np.empty(0, dtype)
        raw = (ctypes.c_char * (count.value * dtype.itemsize)).from_address(items)
        found: npt.NDArray[Any] = np.frombuffer(memoryview(raw).cast("B"), dtype)
        found.flags.writeable = False
        return found

    def _check(self, result: int) -> None:
        if result == -1:
            raise RecordingError(
                f"{self._name} needs more than {bytes_text(self._limit)} of memory to be analysed,"
                " and so much is not free here",
                hint="Analyse it on a machine with more memory.",
            )
        if result != 0:
            raise RecordingError(f"{self._name} has more than 4,294,967,294 objects or references")
