# SPDX-License-Identifier: Apache-2.0
"""Names in a heap dump: characters by id, classes as people write them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from leakscope.formats.jmap_histogram import class_name
from leakscope.java._core import NONE, DumpCore, HeapTable

if TYPE_CHECKING:
    import numpy.typing as npt

    from leakscope.java.heap_file import DumpFile

__all__ = ["Names", "plain_name"]

_LONGEST = 1024  # bytes of a name


def plain_name(name: str) -> str:
    """Return a class's name as in a source: "[Ljava/lang/String;" is "java.lang.String[]"."""
    return class_name(name.replace("/", "."))


class Names:
    """The texts of a dump, read when they are asked for."""

    def __init__(self, file: DumpFile) -> None:
        self._file = file
        self._ids: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        self._texts: npt.NDArray[np.void] = np.empty(0, np.void)
        self._kept: dict[int, str] = {}
        self._classes: list[str] = []
        self._by_name: dict[str, set[int]] = {}

    def load(self, core: DumpCore, classes: npt.NDArray[np.void]) -> None:
        """Take in the texts and the names of all classes."""
        texts = core.table(HeapTable.TEXTS)
        order = np.argsort(texts["id"], kind="stable")
        self._texts = texts[order]
        self._ids = self._texts["id"].copy()
        loads = core.table(HeapTable.LOADS)
        order = np.argsort(loads["class_id"], kind="stable")
        ids, names = loads["class_id"][order], loads["name_id"][order]
        at = np.minimum(np.searchsorted(ids, classes["id"]), max(len(ids) - 1, 0))
        for position, class_id in zip(at.tolist(), classes["id"].tolist(), strict=True):
            known = len(ids) and int(ids[position]) == class_id
            name = self.text(int(names[position])) if known else None
            self._classes.append(f"(class at {class_id:#x})" if not name else plain_name(name))
        for index, name in enumerate(self._classes):
            self._by_name.setdefault(name, set()).add(index)

    def text(self, id_: int) -> str | None:
        """Return the characters of an id, shortened where they are very many; None: not there."""
        kept = self._kept.get(id_)
        if kept is not None:
            return kept
        at = int(np.searchsorted(self._ids, np.uint64(id_)))
        if at >= len(self._ids) or int(self._ids[at]) != id_:
            return None
        one = self._texts[at]
        raw = os.pread(self._file.fd, min(int(one["length"]), _LONGEST), int(one["offset"]))
        self._kept[id_] = found = raw.decode("utf-8", "replace")
        return found

    def class_name(self, index: int) -> str:
        """Return the name of a class."""
        return self._classes[index]

    @property
    def all_classes(self) -> list[str]:
        """The names of all classes, by their index."""
        return self._classes

    def class_indices(self, name: str) -> set[int]:
        """Return the classes of that name; several loaders can have one each."""
        return self._by_name.get(name, set())

    def class_index(self, name: str) -> int:
        """Return the first class of that name, NONE where there is none."""
        return min(self._by_name.get(name, ()), default=NONE)
