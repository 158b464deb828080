# SPDX-License-Identifier: Apache-2.0
"""Names of frames in a packed recording: each text once, and columns of numbers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from leakscope.model.frames import FrameName
from leakscope.recording._facts import FactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

__all__ = ["NameTable", "name_columns", "read_names"]

_TEXTS = ("function", "file", "symbol", "module_path", "class_name", "interpreter")
_NUMBERS = ("line", "column")  # kept plus one; 0 is unknown
_INLINED = 1

assert {*_TEXTS, *_NUMBERS, "inlined"} == {f.name for f in dataclasses.fields(FrameName)}


def name_columns() -> tuple[str, ...]:
    """Return the names of the columns."""
    return tuple(f"names.{each}" for each in (*_TEXTS, *_NUMBERS, "flags"))


class NameTable:
    """The names of a recording as columns; `strings` are the texts that they refer to."""

    def __init__(self, names: Sequence[FrameName]) -> None:
        self._names = names
        self._known: dict[str, int] = {}
        for name in names:
            for each in _TEXTS:
                text = getattr(name, each)
                if text is not None:
                    self._known.setdefault(text, len(self._known) + 1)
        self.strings = list(self._known)

    def columns(self) -> Iterator[tuple[str, npt.NDArray[np.uint32]]]:
        """Yield each column with its name; none when there are no names."""
        if not self._names:
            return
        rows = range(len(self._names))
        for each in _TEXTS:
            texts = (getattr(name, each) for name in self._names)
            numbers = (0 if text is None else self._known[text] for text in texts)
            yield f"names.{each}", np.fromiter(numbers, np.uint32, len(rows))
        for each in _NUMBERS:
            values = (getattr(name, each) for name in self._names)
            kept = (0 if value is None else value + 1 for value in values)
            yield f"names.{each}", np.fromiter(kept, np.uint32, len(rows))
        flags = (_INLINED * name.inlined for name in self._names)
        yield "names.flags", np.fromiter(flags, np.uint32, len(rows))


def read_names(
    columns: Mapping[str, npt.NDArray[np.uint32]], strings: Any
) -> tuple[FrameName, ...]:
    """Return the names in `columns`; an empty mapping has none. Raises `FactError`."""
    if not columns:
        return ()
    if not isinstance(strings, list) or not all(isinstance(each, str) for each in strings):
        raise FactError("the names of its frames are no texts")
    if len({len(each) for each in columns.values()}) != 1:
        raise FactError("the columns of names differ in length")
    texts: list[str | None] = [None, *strings]
    if any(columns[f"names.{each}"].max(initial=0) >= len(texts) for each in _TEXTS):
        raise FactError("a frame has a name that is not there")
    members: dict[str, list[Any]] = {
        each: [texts[number] for number in columns[f"names.{each}"].tolist()] for each in _TEXTS
    }
    for each in _NUMBERS:
        members[each] = [n - 1 if n else None for n in columns[f"names.{each}"].tolist()]
    members["inlined"] = [bool(n & _INLINED) for n in columns["names.flags"].tolist()]
    order = [field.name for field in dataclasses.fields(FrameName)]
    rows = zip(*(members[each] for each in order), strict=True)
    return tuple(FrameName(*row) for row in rows)
