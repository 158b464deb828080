# SPDX-License-Identifier: Apache-2.0
"""What is in an object: its fields and elements, read from the file when they are asked for."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple, Protocol

from leakscope.java._core import NONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from leakscope.java._names import Names
    from leakscope.java.heap_file import DumpFile

__all__ = ["Readable", "Value", "read", "string", "type_size"]

_OBJECT = 2
_FORMATS = {4: "?", 5: "H", 6: "f", 7: "d", 8: "b", 9: "h", 10: "i", 11: "q"}
_SIZES = {4: 1, 5: 2, 6: 4, 7: 8, 8: 1, 9: 2, 10: 4, 11: 8}
_MOST_BODY = 1 << 20  # bytes of an object that are looked at
_MOST_TEXT = 200  # characters
_MOST_CLASSES = 128  # one above the other; a hostile dump has any number of them
_NODATA = 0xC3


class Readable(Protocol):
    """What of a dump is needed to read values: `java.dump.HeapDump`."""

    file: DumpFile
    names: Names
    objects: npt.NDArray[np.void]
    classes: npt.NDArray[np.void]
    class_of: npt.NDArray[np.uint32]
    kinds: npt.NDArray[np.uint8]

    def class_index_of_object(self, number: int) -> int:
        """Return which class an object of java.lang.Class stands for."""

    def class_name(self, number: int) -> str:
        """Return the name of an object's class."""

    def own_fields(self, index: int) -> npt.NDArray[np.void]:
        """Return the fields that a class adds."""

    def static_fields(self, index: int) -> npt.NDArray[np.void]:
        """Return the static fields of a class."""

    def whole(self, number: int, name: str) -> int:
        """Return one field that is a whole number or a flag."""

    def target(self, number: int, name: str) -> int:
        """Return the object that a field refers to."""


class Value(NamedTuple):
    """One field or element. The value of a reference is an address, 0 for null."""

    name: str
    type: int
    value: int | float

    @property
    def is_reference(self) -> bool:
        """Whether the value is an address."""
        return self.type == _OBJECT


def type_size(type_: int, id_size: int) -> int:
    """Return how many bytes a value of a type has in a dump."""
    return id_size if type_ == _OBJECT else _SIZES.get(type_, 0)


def read(dump: Readable, number: int) -> Iterator[Value]:
    """Yield the values of an object; of a large array those at its beginning."""
    kind = int(dump.kinds[number])
    if kind == 0:
        yield from _statics(dump, number)
        return
    body, kind = _body(dump, number)
    if kind == 1:
        yield from _fields(dump, number, body)
        return
    id_size = dump.file.id_size
    width = type_size(kind, id_size)
    for at in range(0, len(body) - width + 1, width):
        yield Value(f"[{at // width}]", kind, _unpack(body, at, kind, id_size))


def _statics(dump: Readable, number: int) -> Iterator[Value]:
    index = dump.class_index_of_object(number)
    one = dump.classes[index]
    for each in dump.static_fields(index):
        type_, raw = int(each["type"]), int(each["value"])
        name = dump.names.text(int(each["name_id"])) or "?"
        width = type_size(type_, dump.file.id_size)
        value = (
            raw if type_ == _OBJECT else _unpack(raw.to_bytes(8, "big")[8 - width :], 0, type_, 8)
        )
        yield Value(name, type_, value)
    for name in ("super", "loader", "signers", "domain"):
        yield Value(f"<{name}>", _OBJECT, int(one[name]))


def _fields(dump: Readable, number: int, body: bytes) -> Iterator[Value]:
    index, at = int(dump.class_of[number]), 0
    id_size = dump.file.id_size
    for _ in range(_MOST_CLASSES):
        if index == NONE or at >= len(body):
            return
        for each in dump.own_fields(index):
            type_ = int(each["type"])
            width = type_size(type_, id_size)
            if at + width > len(body):
                return
            name = dump.names.text(int(each["name_id"])) or "?"
            yield Value(name, type_, _unpack(body, at, type_, id_size))
            at += width
        index = int(dump.classes[index]["super_index"])


def _unpack(body: bytes, at: int, type_: int, id_size: int) -> int | float:
    if type_ == _OBJECT:
        return int.from_bytes(body[at : at + id_size], "big")
    value: int | float = struct.unpack_from(">" + _FORMATS[type_], body, at)[0]
    return value


def _body(dump: Readable, number: int) -> tuple[bytes, int]:
    """Return the bytes of an object, and what they are: 1, or the type of the elements."""
    id_size = dump.file.id_size
    offset = int(dump.objects["place"][number]) >> 4
    kind = int(dump.kinds[number])
    head = os.pread(dump.file.fd, 1 + 3 * id_size + 8, offset)
    at = 1 + id_size + 4
    if kind == 1:
        at += id_size
        size = int.from_bytes(head[at : at + 4], "big")
        at += 4
    else:
        count = int.from_bytes(head[at : at + 4], "big")
        at += 4 + (id_size if kind == _OBJECT else 1)
        size = count * type_size(kind, id_size)
        if head[:1] == bytes((_NODATA,)):
            size = 0
    return os.pread(dump.file.fd, min(size, _MOST_BODY), offset + at), kind


def string(dump: Readable, number: int) -> str | None:
    """Return the text of a java.lang.String, or of an array of characters, shortened."""
    coder = 1
    if int(dump.kinds[number]) == 1:
        if dump.class_name(number) != "java.lang.String":
            return None
        coder = dump.whole(number, "coder")
        number = dump.target(number, "value")
        if number == NONE:
            return None
    body, kind = _body(dump, number)
    if kind == 5:
        return body[: 2 * _MOST_TEXT].decode("utf-16-be", "replace")
    if kind != 8:
        return None
    if coder == 0:
        return body[:_MOST_TEXT].decode("latin-1")
    # The two bytes of a character are in the order of the machine that wrote the dump.
    return body[: 2 * _MOST_TEXT].decode("utf-16-le", "replace")
