# SPDX-License-Identifier: Apache-2.0
"""Files of other tools as recordings, or as tables. What a file is, its content tells, never its name.

A format is one module here with `recognises` and `read`, and its line in `_FORMATS`; what is read
as a `Snapshot` of what was held, its line in `_TABLES`.
"""

from __future__ import annotations

import importlib
import itertools
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast

from leakscope.errors import RecordingError
from leakscope.formats._bounds import NO_CHECK
from leakscope.formats._file import ForeignFile
from leakscope.formats._nearest import Guess, nearest
from leakscope.formats._tables import as_recording

if TYPE_CHECKING:
    from collections.abc import Callable

    from leakscope.model.recordings import Recording
    from leakscope.model.snapshots import Snapshot

__all__ = [
    "NO_CHECK",
    "foreign_format",
    "has_block_files",
    "is_table",
    "read_block_files",
    "read_foreign",
]
__all__ += ["nearest_format", "read_tables"]

_HEAD = 1 << 16  # bytes that a format may look at

# What is found in long logs of something else, and a word that all of it has.
_IN_LOGS: dict[str, tuple[bytes, ...]] = {
    "lsan_text": (b"Sanitizer", b"byte(s) in "),
    "valgrind_text": (b"== ",),
    "drmemory": (b"Dr. Memory", b"~~Dr.M~~"),
    "heapcheck_text": (b"Leak check ", b"No leaks found for check"),
    "kmemleak": (b"unreferenced ",),
    "efence": (b"Electric", b"DUMA"),
    "memwatch": (b"MEMWATCH", b"unfreed: <"),
    "dmalloc": (b"not freed: '", b"malloc version '"),
    "memleax": (b"allStack[", b"allstack["),
    "android_log": (b"leaked block", b"Unreachable memory", b"unreachable"),
    "bcc_memleak": (b"outstanding allocations", b"from stack"),
    "hook_log": (b"[+",),
}
# How a file begins that has no parts: what stands before it, or behind, is another.
_WHOLE = re.compile(
    rb"^(?:heap profile: +\d|heap_v2/\d|v [0-9a-f]{5,8} \d\r?$|\{\s{0,8}\"dhatFileVersion\""
    rb"|desc: [^\n]{0,4096}\ncmd: [^\n]{0,16384}\ntime_unit: )",
    re.MULTILINE,
)
_WHOLE_NAMES = {"dhat_json", "gperftools_heap", "heaptrack_data", "jemalloc_heap", "massif_out"}
_MOST_PARTS = 64
_MOST_SEARCHED = 64 << 20  # bytes of a log that are looked through for a report
_OVERLAP = 4096

_SUMS = ("allocs", "alloc_bytes", "live_count", "live_bytes")
_MOST_SUM = float(1 << 62)

# Module, and the name of the format for people.
_FORMATS = {
    "valgrind_xml": "valgrind's XML",
    "lsan_text": "a report of LeakSanitizer",
    "valgrind_text": "a log of valgrind",
    "valgrind_xtree": "an execution tree of valgrind",
    "mtrace": "a log of mtrace",
    "mtrace_report": "what the script mtrace prints",
    "bcc_memleak": "output of memleak (bcc)",
    "jemalloc_heap": "jemalloc's heap profile",
    "gperftools_heap": "a heap profile of gperftools or Go",
    "heapcheck_text": "a report of gperftools' heap checker",
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
    "drmemory": "a report of Dr. Memory",
    "efence": "output of Electric Fence or DUMA",
    "memwatch": "a log of memwatch",
    "ccmalloc": "a report of ccmalloc",
    "leaky_log": "a log of Leaky",
    "tracemalloc_dump": "a snapshot of tracemalloc",
    "android_records": "allocations recorded by Android's malloc_debug",
    "ftrace_kmem": "kmem events of ftrace",
    "hook_log": "a log of a malloc hook",
    "pprof_profile": "a pprof profile",
}
# Asked where it is none of those: what was held at a moment, without stacks' history.
_TABLES = {
    "slabinfo_text": "a table of the kernel's caches (slabinfo, slabtop)",
    "vmallocinfo_text": "a table of the kernel's large areas (vmallocinfo)",
    "allocinfo_text": "a table of the kernel's allocations (allocinfo)",
    "page_owner": "a list of page_owner",
    "slab_traces": "alloc_traces of a kernel cache",
    "jmap_histogram": "a class histogram of a JVM",
    "nmt": "native memory tracking of a JVM",
    "tracemalloc_text": "statistics of tracemalloc",
    "proc_smaps": "mappings of a process (smaps, maps)",
    "pmap_text": "output of pmap",
    "proc_status": "the status of a process",
    "buddyinfo_text": "free blocks of the kernel (buddyinfo)",
    "meminfo_text": "the memory of a machine (meminfo)",
    "free_text": "output of free",
    "vmstat_text": "output of vmstat",
    "proc_vmstat": "counters of a machine (/proc/vmstat)",
    "memory_profiler_dat": "memory_profiler's record",
}
_LAST = "pprof_profile"  # binary, without a magic number: asked when it is nothing else


class TableFormat(Protocol):
    """What a module of `_TABLES` offers."""

    def recognises(self, head: bytes) -> bool:
        """Whether a file that begins with `head` is of this format."""

    def read(self, file: ForeignFile) -> tuple[Snapshot, ...]:
        """Return each look that the file has. Raises `RecordingError`."""


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
        begins = _beginnings(file.head(_HEAD))
        if not begins:
            return _read(file)
        found: list[Recording] = []
        problems: list[RecordingError] = []
        for start, end in itertools.pairwise([0, *begins, None]):
            with file.part(start or 0, end) as part:
                try:
                    found += _read(part) or ()
                except RecordingError as error:
                    problems.append(error)
        if problems and not found:
            raise problems[0]
        if problems:
            found[-1] = _with_note(found[-1], f"not all of the file was read: {problems[0]}")
        return tuple(found) or None


def _beginnings(head: bytes) -> list[int]:
    """Return where in a log files begin that are one whole each, but for its own beginning."""
    if b"\0" in head:
        return []
    found = (match.start() for match in _WHOLE.finditer(head) if match.start())
    return list(itertools.islice(found, _MOST_PARTS))


def _with_note(recording: Recording, note: str) -> Recording:
    told = (*recording.coverage.notes, note)
    return replace(recording, coverage=replace(recording.coverage, notes=told))


def _read(file: ForeignFile) -> tuple[Recording, ...] | None:
    names = _recognise(file)
    if names and names[0] in _TABLES:
        tables = _read_tables(file, names)
        return _believed(file, lambda: (as_recording(tables[-1], file.path),))
    found: list[Recording] = []
    problem: RecordingError | None = None
    unread = None
    for name in names:
        try:
            found += _believable(file, name)
        except RecordingError as error:
            problem = problem or error
            unread = error if name in _WHOLE_NAMES else unread
    if problem is not None and not found:
        raise problem
    if unread is not None:
        found[0] = _with_note(found[0], f"not all of the file was read: {unread}")
    others = _tables_beside(file) if found else []
    if others:
        note = f"the file also has {' and '.join(others)}, not read here: cut it out"
        found[0] = _with_note(found[0], note)
    return tuple(found) if names else None


def _tables_beside(file: ForeignFile) -> list[str]:
    """Return what else is in a file of recordings; many end in a list of mappings."""
    head = file.head(_HEAD)
    tables = (name for name in _TABLES if name != "proc_smaps")
    return [_TABLES[name] for name in tables if cast("TableFormat", _module(name)).recognises(head)]


def foreign_format(path: str | os.PathLike[str]) -> str | None:
    """Return what people call the format of a file of another tool, None when it is not known."""
    file = ForeignFile.open(path)
    if file is None:
        return None
    with file:
        names = {**_FORMATS, **_TABLES}
        return " and ".join(names[name] for name in _recognise(file)) or None


def nearest_format(path: str | os.PathLike[str]) -> Guess | None:
    """Return what a file that is of no known format is nearest to, and why it is not that."""
    file = ForeignFile.open(path)
    if file is None:
        return None
    with file:
        head = file.head(_HEAD)
        if not head and file.size:
            for _ in file.pieces(_HEAD):
                break
            why = file.cut or "nothing in it can be unpacked"
            return Guess(f"it is damaged: {why}", "Get the file again.")
        return nearest(head)


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file of another tool tells what was held at moments, and not who leaked."""
    file = ForeignFile.open(path)
    if file is None:
        return False
    with file:
        return any(name in _TABLES for name in _recognise(file))


def has_block_files(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds what a malloc hook left: a file for each block that was not freed."""
    from leakscope.formats import hook_log

    return hook_log.is_folder(os.fspath(folder))


def read_block_files(folder: str | os.PathLike[str]) -> tuple[Recording, ...]:
    """Return the recording of such a folder. Raises `RecordingError`."""
    from leakscope.formats import hook_log

    return hook_log.read_folder(os.fspath(folder))


def read_tables(path: str | os.PathLike[str]) -> tuple[Snapshot, ...]:
    """Return the looks at memory in a file, in the order in which they stand there.

    Raises `RecordingError` for what has none, or cannot be read.
    """
    file = ForeignFile.open(path)
    if file is None:
        raise RecordingError(f"cannot read {os.fspath(path)}")
    with file:
        names = [name for name in _recognise(file) if name in _TABLES]
        if not names:
            raise RecordingError(f"{file.path} has no table of memory that leakscope reads")
        return _read_tables(file, names)


def _read_tables(file: ForeignFile, names: list[str]) -> tuple[Snapshot, ...]:
    found: list[Snapshot] = []
    problem: RecordingError | None = None
    for name in names:
        try:
            found += cast("TableFormat", _module(name)).read(file)
        except RecordingError as error:
            problem = problem or error
    if problem is not None and not found:
        raise problem
    return tuple(found)


def _believable(file: ForeignFile, name: str) -> tuple[Recording, ...]:
    recordings = _believed(file, lambda: _format(name).read(file))
    return tuple(_with_cut(recording, file.cut) for recording in recordings)


def _believed(
    file: ForeignFile, read: Callable[[], tuple[Recording, ...]]
) -> tuple[Recording, ...]:
    """Read a file; numbers that no process can have would overflow in what follows."""
    try:
        recordings = read()
        sums = (float(r.sites[each].sum(dtype=float)) for r in recordings for each in _SUMS)
        wild = any(value >= _MOST_SUM for value in sums)
    except OverflowError:
        wild = True
    if wild:
        raise RecordingError(f"{file.path} has numbers that are larger than any memory")
    return recordings


def _with_cut(recording: Recording, cut: str | None) -> Recording:
    """Say that a file is cut, where its reader did not; without a leak it then proves nothing."""
    coverage = recording.coverage
    if cut is None:
        return recording
    notes, troubles = coverage.notes, coverage.troubles
    if not any(cut in note for note in notes):
        notes = (*notes, f"the file is not whole: {cut}")
    reach = recording.site_reach
    if NO_CHECK not in troubles and (reach is None or not reach["definite_count"].any()):
        troubles = (*troubles, NO_CHECK)
    return replace(recording, coverage=replace(coverage, notes=notes, troubles=troubles))


def _recognise(file: ForeignFile) -> list[str]:
    head = file.head(_HEAD)
    found = _recognise_in(head) or [_LAST] * _format(_LAST).recognises(head)
    if not found:
        from leakscope.formats import hook_log  # here: numpy takes its time

        if hook_log.recognises_loosely(head):
            return ["hook_log"]
    if found or len(head) < _HEAD or b"\0\0\0\0" in head:
        return found
    # A report can stand behind a long log of something else.
    before, read = b"", 0
    for piece in file.pieces(_MOST_SEARCHED * 2):
        read += len(piece)
        text = before + piece
        # To search for a word is a hundred times as fast as for a pattern.
        likely = [name for name, words in _IN_LOGS.items() if any(word in text for word in words)]
        if any(cast("Format", _module(name)).recognises(text) for name in likely):
            return [n for n in likely if cast("Format", _module(n)).recognises(text)]
        before = piece[-_OVERLAP:]
        if read > _MOST_SEARCHED:
            break
    return []


def _recognise_in(text: bytes) -> list[str]:
    texts = [name for name in _FORMATS if name != _LAST and _format(name).recognises(text)]
    if texts:
        return texts
    return [name for name in _TABLES if cast("TableFormat", _module(name)).recognises(text)]


def _format(name: str) -> Format:
    return cast("Format", _module(name))


def _module(name: str) -> object:
    return importlib.import_module(f"{__name__}.{name}")
