# SPDX-License-Identifier: Apache-2.0
"""Files of other tools as recordings. What a file is, its content tells, never its name.

A format is one module here with `recognises` and `read`, and its line in `_FORMATS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

from leakscope.errors import RecordingError
from leakscope.formats._file import ForeignFile

if TYPE_CHECKING:
    import os

    from leakscope.model.recordings import Recording

__all__ = ["foreign_format", "read_foreign"]

_HEAD = 1 << 16  # bytes that a format may look at

_SUMS = ("allocs", "alloc_bytes", "live_count", "live_bytes")
_MOST_SUM = float(1 << 62)

# Module, and the name of the format for people.
_FORMATS = {
    "valgrind_xml": "valgrind's XML",
    "lsan_text": "a report of LeakSanitizer",
    "valgrind_text": "a log of valgrind",
    "mtrace": "a log of mtrace",
    "bcc_memleak": "output of memleak (bcc)",
    "jemalloc_heap": "jemalloc's heap profile",
    "gperftools_heap": "a heap profile of gperftools or Go",
    "heaptrack_data": "what heaptrack recorded",
    "android_heap": "Android's native heap dump",
    "android_log": "leaks in a log of Android",
    "massif_out": "massif's snapshots",
    "callgrind_out": "a profile by callgrind or cachegrind",
    "dhat_json": "DHAT's program points",
    "pprof_profile": "a pprof profile",  # binary, without a magic number: the last one asked
}


class Format(Protocol):
    """What a module of this package offers."""

    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins with `head` is of this format."""

    def read(self, file: ForeignFile) -> tuple[Recording, ...]:
        """Return a recording of each process in the file. Raises `RecordingError`."""


def read_foreign(path: str | os.PathLike[str]) -> tuple[Recording, ...] | None:
    """Return the recordings in a file of another tool, None when it is of no format known here.

    Raises `RecordingError` when it is of one and cannot be read.
    """
    file = ForeignFile.open(path)
    if file is None:
        return None
    with file:
        name = _recognise(file)
        return None if name is None else _believable(file, name)


def foreign_format(path: str | os.PathLike[str]) -> str | None:
    """Return what people call the format of a file of another tool, None when it is not known."""
    file = ForeignFile.open(path)
    if file is None:
        return None
    with file:
        name = _recognise(file)
        return None if name is None else _FORMATS[name]


def _believable(file: ForeignFile, name: str) -> tuple[Recording, ...]:
    """Read a file; numbers that no process can have would overflow in what follows."""
    try:
        recordings = _format(name).read(file)
        sums = (float(r.sites[each].sum(dtype=float)) for r in recordings for each in _SUMS)
        wild = any(value >= _MOST_SUM for value in sums)
    except OverflowError:
        wild = True
    if wild:
        raise RecordingError(f"{file.path} has numbers that are larger than any memory")
    return recordings


def _recognise(file: ForeignFile) -> str | None:
    head = file.head(_HEAD)
    return next((name for name in _FORMATS if _format(name).recognises(head)), None)


def _format(name: str) -> Format:
    return cast("Format", importlib.import_module(f"{__name__}.{name}"))
