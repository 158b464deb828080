# SPDX-License-Identifier: Apache-2.0
"""Files of other tools as recordings. What a file is, its content tells, never its name.

A format is one module here with `recognises` and `read`, and its line in `_FORMATS`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast

from leakscope.errors import RecordingError
from leakscope.formats._bounds import NO_CHECK
from leakscope.formats._file import ForeignFile

if TYPE_CHECKING:
    import os

    from leakscope.model.recordings import Recording

__all__ = ["NO_CHECK", "foreign_format", "read_foreign"]

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
    "kmemleak": "a list of kmemleak",
    "dmalloc": "a log of dmalloc",
    "leaktracer": "a report of LeakTracer",
    "leakscope_log": "a log of leakscope.h",
    "memleax": "output of memleax or libleak",
    "android_heap": "Android's native heap dump",
    "android_log": "leaks in a log of Android",
    "massif_out": "massif's snapshots",
    "callgrind_out": "a profile by callgrind or cachegrind",
    "dhat_json": "DHAT's program points",
    "pprof_profile": "a pprof profile",
}
_LAST = "pprof_profile"  # binary, without a magic number: asked when it is nothing else


class Format(Protocol):
    """What a module of this package offers."""

    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins with `head` is of this format."""

    def read(self, file: ForeignFile) -> tuple[Recording, ...]:
        """Return a recording of each process in the file. Raises `RecordingError`."""


def read_foreign(path: str | os.PathLike[str]) -> tuple[Recording, ...] | None:
    """Return the recordings in a file of another tool, None when it is of no format known here.

    A log can hold what several tools wrote; all of it is read. Raises `RecordingError` when
    nothing in it can be.
    """
    file = ForeignFile.open(path)
    if file is None:
        return None
    with file:
        names = _recognise(file)
        found: list[Recording] = []
        problem: RecordingError | None = None
        for name in names:
            try:
                found += _believable(file, name)
            except RecordingError as error:
                problem = problem or error
        if problem is not None and not found:
            raise problem
        return tuple(found) if names else None


def foreign_format(path: str | os.PathLike[str]) -> str | None:
    """Return what people call the format of a file of another tool, None when it is not known."""
    file = ForeignFile.open(path)
    if file is None:
        return None
    with file:
        return " and ".join(_FORMATS[name] for name in _recognise(file)) or None


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


def _recognise(file: ForeignFile) -> list[str]:
    head = file.head(_HEAD)
    texts = [name for name in _FORMATS if name != _LAST and _format(name).recognises(head)]
    return texts or [_LAST] * _format(_LAST).recognises(head)


def _format(name: str) -> Format:
    return cast("Format", importlib.import_module(f"{__name__}.{name}"))
