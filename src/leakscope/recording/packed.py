# SPDX-License-Identifier: Apache-2.0
"""The packed recording: one compact file that is kept, copied and reported on elsewhere.

    48 bytes   magic, version, and where the directory is
    columns    every large table, column by column, in chunks with a checksum each
    directory  deflated JSON: the small facts, and where each column lies

docs/reference/recording-format.md describes it. The file is complete or not there: it is
written under a temporary name, readable by its owner alone, and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from leakscope.errors import RecordingError
from leakscope.model.columns import Column
from leakscope.model.frames import Module
from leakscope.model.free_errors import RecordedFreeError
from leakscope.model.reachability import Reachability, ScanFacts
from leakscope.model.recordings import (
    AGE_BUCKETS,
    BLOCK_DTYPE,
    KIND_NAMES,
    NODE_DTYPE,
    RANGE_DTYPE,
    REACH_DTYPE,
    SITE_DTYPE,
    Coverage,
    Mark,
    Process,
    Recording,
    Timeline,
)
from leakscope.model.tool_errors import RecordedError
from leakscope.recording._columns import ROWS, ChunkError, encode, find_chunks
from leakscope.recording._earlier import read_earlier
from leakscope.recording._facts import FactError, from_json, to_json
from leakscope.recording._free_errors import check_free_errors
from leakscope.recording._header import newer
from leakscope.recording._names import NameTable, name_columns, read_names
from leakscope.recording._source import Source, damaged
from leakscope.recording._workers import Workers
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    import numpy.typing as npt

__all__ = ["MAGIC", "VERSION", "read", "read_source", "write"]

MAGIC = b"\x89LSC\r\n\x1a\n"  # as PNG's: text-mode copying shows
VERSION = 2
"""Raised when an older leakscope would misread the file. Columns and facts that it does not
know it passes over, so adding some does not. 2 has frames with names, kinds that sources add
and columns that are absent; a recording without any of them is written as 1."""

# Magic, version, CRC-32 of the directory as stored, where it starts, its bytes as stored and
# inflated, length of the whole file.
_START = struct.Struct("<8sIIQQQQ")
_MOST_DIRECTORY = 64 << 20
_DIRECTORY_RATIO = 100  # bytes of JSON for each stored one, beyond the first megabyte

# Equal values take no room in a file, so a small one could fill any memory. Beyond what every
# machine has, each byte of the file stands for at most so many in memory; the writer sees to it
# with a hole. Who trusts a file of an earlier leakscope that is denser says so in the environment.
_ANYWHERE = 64 << 20
_RATIO = 256
_TRUST = "LEAKSCOPE_READ_MEMORY"
_TABLES = {
    "nodes": NODE_DTYPE,
    "sites": SITE_DTYPE,
    "blocks": BLOCK_DTYPE,
    "ranges": RANGE_DTYPE,
}
_THREADS = min(8, os.cpu_count() or 1)


def write(recording: Recording, path: str | os.PathLike[str]) -> None:
    """Write `recording` to `path`, in place of a file or link that is there.

    A link is replaced, never followed. Raises `RecordingError` when that fails; what was at
    `path` is then still there, and nothing half-written.
    """
    name = os.fspath(path)
    folder = Path(name).parent
    temporary = None
    try:
        with contextlib.suppress(FileNotFoundError):
            mode = os.lstat(name).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                raise RecordingError(
                    f"{name} exists and is not a regular file", hint="Name another file."
                )
        # Made for its owner alone, and never where something already is.
        fd, temporary = tempfile.mkstemp(prefix=".leakscope-", suffix=".part", dir=folder)
        with os.fdopen(fd, "wb") as file:
            _write(recording, file)
            file.flush()
            os.fsync(fd)
        Path(temporary).replace(name)
        temporary = None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise RecordingError(
            f"cannot write {name}: {error.strerror}",
            hint="Free room there, or name another place."
            if full
            else "Name a file in a directory that you may write to.",
        ) from error
    except ValueError as error:  # a zero byte in the name
        raise RecordingError(f"cannot write {name!r}: {error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def read(path: str | os.PathLike[str]) -> Recording:
    """Return the recording in the packed file `path`.

    Raises `RecordingError` when it is none, truncated, damaged, or of a newer version.
    """
    with Source(path) as source:
        return read_source(source)


# ---- writing


def _write(recording: Recording, file: BinaryIO) -> None:
    if recording.kinds[: len(KIND_NAMES)] != KIND_NAMES:
        raise ValueError("the kinds of a recording begin with those that all know")
    file.write(bytes(_START.size))
    at = _START.size
    names = NameTable(recording.names)
    columns: dict[str, dict[str, Any]] = {}
    with Workers(_THREADS) as pool:
        for name, values in (*_columns_of(recording), *names.columns()):
            start = at
            for group in range(0, len(values), _THREADS * 4 * ROWS):
                parts = [
                    values[first : first + ROWS]
                    for first in range(group, min(len(values), group + _THREADS * 4 * ROWS), ROWS)
                ]
                # A thread takes longer to start than one part takes.
                for chunk in pool.map(encode, parts, alone=len(parts) == 1):
                    at += file.write(chunk)
            columns[name] = {"rows": len(values), "offset": start, "bytes": at - start}
    facts = {
        "process": to_json(recording.process),
        "coverage": to_json(recording.coverage),
        "modules": [to_json(module) for module in recording.modules],
        "scan": to_json(recording.scan) if recording.scan is not None else None,
        "free_errors": [to_json(each) for each in recording.free_errors],
        "marks": [to_json(each) for each in recording.marks],
        "errors": [to_json(each) for each in recording.errors],
        "earlier": to_json(recording.earlier) if recording.earlier is not None else None,
        "tick_ns": recording.tick_ns,
        "duration_ns": recording.duration_ns,
        "kinds": list(recording.kinds[len(KIND_NAMES) :]),
        "absent": sorted(recording.absent),
        "strings": names.strings,
        "columns": columns,
    }
    plain = json.dumps(facts, allow_nan=False).encode()
    stored = zlib.compress(plain, 6)
    needed = sum(column["rows"] for column in columns.values()) * 8
    if needed > _ANYWHERE:
        at = max(at, needed // (_RATIO // 2))  # room for columns that are added later
        file.seek(at)
    file.write(stored)
    file.seek(0)
    end = at + len(stored)
    start_of_file = (
        MAGIC,
        _version_for(recording),
        zlib.crc32(stored),
        at,
        len(stored),
        len(plain),
        end,
    )
    file.write(_START.pack(*start_of_file))


def _version_for(recording: Recording) -> int:
    """The oldest version whose readers understand everything in the recording."""
    plain = not recording.names and not recording.absent and recording.site_reach is None
    return 1 if plain and recording.kinds == KIND_NAMES else VERSION


def _columns_of(recording: Recording) -> Iterator[tuple[str, npt.NDArray[np.integer]]]:
    absent = recording.absent
    for table in _TABLES:
        if table in absent:
            continue
        values = getattr(recording, table)
        for column in values.dtype.names:
            name = f"{table}.{column}"
            if name not in absent and (name != "nodes.name" or recording.names):
                yield name, values[column]
    if Column.DEATHS not in absent:
        yield "deaths", recording.deaths.reshape(-1)
    if Column.TIMELINE not in absent:
        timeline = recording.timeline
        yield "timeline.times_ns", timeline.times_ns
        yield "timeline.live_bytes", timeline.live_bytes
        yield "timeline.live_counts", timeline.live_counts
        if timeline.rss_bytes is not None:
            yield "timeline.rss_bytes", timeline.rss_bytes
        yield "timeline.site_bytes", _changes(timeline.site_bytes.astype("<f4").view("<u4"))
        yield "timeline.site_counts", _changes(timeline.site_counts)
    if recording.reachability is not None:
        yield "reachability", recording.reachability
    if recording.site_reach is not None:
        for column in REACH_DTYPE.names or ():
            yield f"site_reach.{column}", recording.site_reach[column]


def _changes(rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    # Most sites do not change between two moments, and zeros take no room.
    changed = rows.copy()
    changed[1:] ^= rows[:-1]
    return changed.reshape(-1)


# ---- reading


@dataclass(frozen=True, slots=True)
class _Column:
    rows: int
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Span:
    tick_ns: float
    duration_ns: int


def read_source(source: Source) -> Recording:
    """Return the recording in an open packed file; `read` says more."""
    try:
        return _Reader(source, _read_directory(source)).recording()
    except (ChunkError, FactError) as error:
        raise damaged(source.path, str(error)) from error


def _read_directory(source: Source) -> dict[str, Any]:
    path = source.path
    start = source.read(0, _START.size)
    if start[: len(MAGIC)] != MAGIC:
        raise RecordingError(
            f"{path} is not a recording", hint="Name a file that ends in .leakscope."
        )
    version = int.from_bytes(start[8:12], "little")
    if version > VERSION:
        raise newer(path, version, VERSION)
    if len(start) < _START.size:
        raise _truncated(path, len(start), _START.size)
    _, _, crc, offset, stored, inflated, end = _START.unpack(start)
    if end > source.size:
        raise _truncated(path, source.size, end)
    if version == 0 or offset < _START.size or stored > end - offset or offset > end:
        raise damaged(path, "its directory lies outside the file")
    if stored > _MOST_DIRECTORY or inflated > _MOST_DIRECTORY:
        raise damaged(path, f"its directory claims {max(stored, inflated)} bytes")
    if inflated > _DIRECTORY_RATIO * stored + (1 << 20):
        raise damaged(path, f"its directory of {stored} bytes claims to be {inflated}")
    data = source.read(offset, stored)
    if len(data) != stored or zlib.crc32(data) != crc:
        raise damaged(path, "the checksum of its directory is wrong")
    try:
        inflater = zlib.decompressobj()
        plain = inflater.decompress(data, inflated + 1)
        if len(plain) != inflated or not inflater.eof:
            raise ValueError(inflated)
        facts = json.loads(plain)
    except (ValueError, RecursionError, zlib.error) as error:
        raise damaged(path, "its directory cannot be read") from error
    if not isinstance(facts, dict):
        raise damaged(path, "its directory cannot be read")
    return facts


def _truncated(path: str, there: int, whole: int) -> RecordingError:
    return RecordingError(
        f"{path} is truncated: {there} of {whole} bytes are there",
        hint="Copy it again, or free room on the disk and make the recording again.",
    )


class _Reader:
    """One packed file while it is read."""

    def __init__(self, source: Source, facts: dict[str, Any]) -> None:
        self._source = source
        self._facts = facts
        columns = facts.get("columns")
        if not isinstance(columns, dict):
            raise FactError("it names no columns")
        self._columns = {name: from_json(_Column, value) for name, value in columns.items()}
        for name, column in self._columns.items():
            if column.rows < 0 or column.offset < 0 or column.bytes < 0:
                raise FactError(f"column {name} is nowhere")
        self._check_memory()

    def recording(self) -> Recording:
        """Return the whole recording, with every reference checked."""
        facts = self._facts
        listed = facts.get("modules")
        if not isinstance(listed, list):
            raise FactError("it lists no modules")
        modules = tuple(from_json(Module, value) for value in listed)
        span = from_json(_Span, facts)
        if not 0 < span.tick_ns < 1e18 or not 0 <= span.duration_ns < 1 << 63:
            raise FactError("its clock makes no sense")
        absent = self._absent()
        kinds = _kinds(facts)
        names = read_names(self._names_columns(), facts.get("strings") or [])
        tables = {name: self._table(name, dtype, absent) for name, dtype in _TABLES.items()}
        _check_references(tables, len(modules), len(kinds), len(names))
        sites = len(tables["sites"])
        scan = facts.get("scan")
        wrong = facts.get("free_errors") or ()  # an earlier leakscope had none
        free_errors = tuple(from_json(RecordedFreeError, value) for value in wrong)
        check_free_errors(free_errors, sites, len(tables["nodes"]))
        return Recording(
            process=from_json(Process, facts.get("process")),
            coverage=from_json(Coverage, facts.get("coverage")),
            modules=modules,
            **tables,
            deaths=self._deaths(sites, absent),
            timeline=Timeline.empty(sites) if Column.TIMELINE in absent else self._timeline(sites),
            tick_ns=span.tick_ns,
            duration_ns=span.duration_ns,
            reachability=self._reachability(len(tables["blocks"])),
            scan=from_json(ScanFacts, scan) if scan is not None else None,
            free_errors=free_errors,
            earlier=read_earlier(facts.get("earlier")),
            errors=_errors(facts.get("errors") or (), len(tables["nodes"])),
            names=names,
            kinds=kinds,
            absent=absent,
            site_reach=self._site_reach(sites),
            marks=tuple(from_json(Mark, value) for value in facts.get("marks") or ()),
            author=self._source.owner,
        )

    def _column(self, name: str) -> _Column:
        try:
            return self._columns[name]
        except KeyError:
            raise FactError(f"its column {name} is missing") from None

    def _check_memory(self) -> None:
        needed = sum(min(column.rows, 1 << 60) for column in self._columns.values()) * 8
        path, most = self._source.path, max(_ANYWHERE, _RATIO * self._source.size)
        with contextlib.suppress(ValueError):
            most = max(most, int(os.environ.get(_TRUST, "0")))
        if needed > most:
            raise RecordingError(
                f"{path} claims to hold {bytes_text(needed)} in a file of"
                f" {bytes_text(self._source.size)}, more than a recording of that length does",
                hint=f"If it is to be trusted, give the bytes that it may take: {_TRUST}={needed}",
            )
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > max(there // 2, 1 << 28):
            raise RecordingError(
                f"{path} claims to hold {bytes_text(needed)}, more than fits into half"
                f" of this machine's memory ({bytes_text(there)})",
                hint="If that is right, make the report on a larger machine.",
            )

    def _absent(self) -> frozenset[Column]:
        listed = self._facts.get("absent") or []
        try:
            return frozenset(Column(each) for each in listed)
        except (TypeError, ValueError) as error:
            raise FactError("it lacks a column that leakscope does not know") from error

    def _table(
        self, name: str, dtype: np.dtype[np.void], absent: Collection[str] = ()
    ) -> npt.NDArray[np.void]:
        if name in absent:
            return np.zeros(0, dtype)
        there = [each for each in dtype.names or () if f"{name}.{each}" not in absent]
        if name == "nodes" and "nodes.name" not in self._columns:  # nobody named any
            there.remove("name")
        columns = [self._column(f"{name}.{member}") for member in there]
        rows = columns[0].rows
        if any(column.rows != rows for column in columns):
            raise FactError(f"the columns of {name} differ in length")
        whole = len(there) == len(dtype.names or ())
        table = np.empty(rows, dtype) if whole else np.zeros(rows, dtype)
        with Workers(_THREADS) as pool:
            for member in there:
                self._fill(f"{name}.{member}", table[member], pool)
        return table

    def _names_columns(self) -> dict[str, npt.NDArray[np.uint32]]:
        """The columns of the table of names, empty where there is none."""
        found: dict[str, npt.NDArray[np.uint32]] = {}
        for column in name_columns():
            if column not in self._columns:
                return {}
            rows = self._columns[column].rows
            found[column] = self._values(column, np.dtype("<u4"), rows)
        return found

    def _deaths(self, sites: int, absent: Collection[Column]) -> npt.NDArray[np.uint64]:
        if Column.DEATHS in absent:
            return np.zeros((sites, AGE_BUCKETS), np.uint64)
        flat = self._values("deaths", np.dtype("<u8"), sites * AGE_BUCKETS)
        return flat.reshape(sites, AGE_BUCKETS)

    def _site_reach(self, sites: int) -> npt.NDArray[np.void] | None:
        if f"site_reach.{(REACH_DTYPE.names or ('',))[0]}" not in self._columns:
            return None
        table = self._table("site_reach", REACH_DTYPE)
        if len(table) != sites:
            raise FactError("what points to the blocks is not told of all sites")
        return table

    def _values(self, name: str, dtype: np.dtype[Any], rows: int) -> npt.NDArray[Any]:
        if self._column(name).rows != rows:
            raise FactError(f"its column {name} is of another length than it should be")
        values = np.empty(rows, dtype)
        with Workers(_THREADS) as pool:
            self._fill(name, values, pool)
        return values

    def _fill(self, name: str, out: npt.NDArray[Any], pool: Workers) -> None:
        column = self._column(name)
        source = self._source

        try:
            chunks = find_chunks(source, column.offset, column.offset + column.bytes, column.rows)

            def fill(number: int) -> None:
                chunk = chunks[number]
                out[number * ROWS : number * ROWS + chunk.rows] = chunk.decode(source)

            for _ in pool.map(fill, range(len(chunks)), alone=len(chunks) == 1):
                pass
        except ChunkError as error:
            raise ChunkError(f"column {name}: {error}") from error

    def _timeline(self, sites: int) -> Timeline:
        rows = self._column("timeline.times_ns").rows

        def by_row(name: str) -> npt.NDArray[np.int64]:
            return self._values(f"timeline.{name}", np.dtype("<i8"), rows)

        def by_site(name: str) -> npt.NDArray[np.uint32]:
            values = self._values(f"timeline.{name}", np.dtype("<u4"), rows * sites)
            grid = values.reshape(rows, sites)
            np.bitwise_xor.accumulate(grid, axis=0, out=grid)
            return grid

        times = by_row("times_ns")
        if np.any(times[1:] < times[:-1]):
            raise FactError("its timeline runs backwards")
        site_bytes = by_site("site_bytes").view(np.float32)
        if not np.all((site_bytes >= 0) & np.isfinite(site_bytes)):
            raise FactError("its timeline holds impossible sizes")
        return Timeline(
            times_ns=times,
            live_bytes=by_row("live_bytes"),
            live_counts=by_row("live_counts"),
            site_bytes=site_bytes,
            site_counts=by_site("site_counts"),
            rss_bytes=by_row("rss_bytes") if "timeline.rss_bytes" in self._columns else None,
        )

    def _reachability(self, blocks: int) -> npt.NDArray[np.uint8] | None:
        if "reachability" not in self._columns:
            return None
        found = self._values("reachability", np.dtype("u1"), blocks)
        if found.max(initial=0) > max(Reachability):
            raise FactError("a block's reachability is none that leakscope knows")
        return found


def _errors(found: Iterable[Any], nodes: int) -> tuple[RecordedError, ...]:
    """Return the errors of another tool; a file of before has none."""
    errors = tuple(from_json(RecordedError, value) for value in found)
    if any(not 0 <= each.node < max(nodes, 1) or each.count < 1 for each in errors):
        raise FactError("an error has no such stack")
    return errors


def _kinds(facts: dict[str, Any]) -> tuple[str, ...]:
    added = facts.get("kinds") or []
    if not isinstance(added, list) or not all(isinstance(each, str) for each in added):
        raise FactError("its kinds of allocations have no names")
    return (*KIND_NAMES, *added)


def _check_references(
    tables: dict[str, npt.NDArray[np.void]], modules: int, kinds: int, names: int
) -> None:
    nodes, sites = tables["nodes"], tables["sites"]
    if len(nodes) == 0 or len(sites) == 0:
        raise FactError("it has no root of its stacks, or no site for the unknown")
    orphans = nodes["parent"][1:] >= np.arange(1, len(nodes))
    if nodes["parent"][0] != 0 or orphans.any() or nodes["module"].max() > modules:
        raise FactError("a stack frame points to a frame or module that is not there")
    if sites["node"].max() >= len(nodes) or sites["kind"].max() >= kinds:
        raise FactError("an allocation site has a stack or kind that is not there")
    if nodes["name"].max() > names:
        raise FactError("a stack frame has a name that is not there")
    for name in ("blocks", "ranges"):
        if tables[name]["site"].max(initial=0) >= len(sites):
            raise FactError(f"one of its {name} belongs to a site that is not there")
