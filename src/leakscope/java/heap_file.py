# SPDX-License-Identifier: Apache-2.0
"""The file of a heap dump: its head, and where it is packed a temporary copy that is not."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tempfile
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from leakscope.errors import RecordingError
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DumpFile", "is_heap_dump", "open_dump"]

_MAGIC = b"JAVA PROFILE 1.0."
_VERSIONS = (b"JAVA PROFILE 1.0.1", b"JAVA PROFILE 1.0.2", b"JAVA PROFILE 1.0.3")
_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\0"
_PIECE = 1 << 16  # read at once …
_MOST_PIECE = 1 << 22  # … and unpacked at once
_HEAD = 64
_SPARE = 64 << 20  # bytes of a disk that stay free
_MOST_FACTOR, _MOST_SMALL = 200, 256 << 20  # what a packed dump may unpack to
_MOST_XZ = 128 << 20


@dataclass(frozen=True, slots=True)
class DumpFile:
    """An open dump. `start` is where its records begin; `cut` tells what ails a packed one."""

    name: str
    fd: int
    size: int
    start: int
    id_size: int
    version: str  # "1.0.2"
    taken_ms: int  # since 1970
    packed: str | None = None  # "gzip"
    cut: str | None = None


def is_heap_dump(head: bytes) -> bool:
    """Whether a file that begins with `head` is a heap dump of Java, packed or not."""
    if head.startswith(_MAGIC):
        return True
    with suppress(zlib.error, lzma.LZMAError, EOFError, ValueError):
        if head.startswith(_GZIP):
            plain = zlib.decompressobj(wbits=31).decompress(head, _HEAD)
            return plain.startswith(_MAGIC)
        if head.startswith(_XZ):
            unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_XZ)
            return unpacker.decompress(head, _HEAD).startswith(_MAGIC)
    return False


@contextmanager
def open_dump(path: str) -> Iterator[DumpFile]:
    """Open a dump; one that is packed is unpacked into a file that has no name and goes with it.

    Raises `RecordingError` for what is none, of another machine's byte order, or has no room.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise RecordingError(f"{path} is not a regular file")
        magic = os.pread(fd, 6, 0)
        packed = "gzip" if magic.startswith(_GZIP) else "xz" if magic.startswith(_XZ) else None
        if packed is None:
            yield _opened(path, fd, status.st_size)
            return
        with _unpacked(path, fd, status.st_size, packed) as (plain, size, cut):
            yield _opened(path, plain, size, packed, cut)
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(fd)


def _opened(
    path: str, fd: int, size: int, packed: str | None = None, cut: str | None = None
) -> DumpFile:
    head = os.pread(fd, _HEAD, 0)
    end = head.find(b"\0")
    if not head.startswith(_VERSIONS) or end < 0:
        if head.startswith(_MAGIC):
            version = head[13:18].decode("ascii", "replace")
            raise RecordingError(
                f"{path} is a heap dump of version {version}, and 1.0.1 to 1.0.3 are read"
            )
        raise RecordingError(f"{path} is not a heap dump of Java")
    if len(head) < end + 13:
        raise RecordingError(f"{path} ends within the head of a heap dump: nothing is in it")
    ids = head[end + 1 : end + 5]
    id_size = int.from_bytes(ids, "big")
    if id_size not in (4, 8):
        if int.from_bytes(ids, "little") in (4, 8):
            raise RecordingError(
                f"{path} has its bytes in the wrong order: heap dumps are big-endian on every machine",
                hint="Take the dump again; what copied this one changed it.",
            )
        raise RecordingError(f"{path} is damaged: it says that addresses have {id_size} bytes")
    taken = int.from_bytes(head[end + 5 : end + 13], "big")
    version = head[13:end].decode("ascii", "replace")
    return DumpFile(path, fd, size, end + 13, id_size, version, taken, packed, cut)


@contextmanager
def _unpacked(path: str, fd: int, size: int, packed: str) -> Iterator[tuple[int, int, str | None]]:
    folder = _roomiest(path, size)
    with tempfile.TemporaryFile(dir=folder, prefix="leakscope-") as plain:
        cut = _unpack(path, fd, packed, plain, folder)
        plain.flush()
        yield plain.fileno(), plain.tell(), cut


def _roomiest(path: str, size: int) -> str:
    """The folder for temporary files with the most room; at least twice the packed size."""
    named = os.environ.get("TMPDIR")
    places = [named] if named else ["/var/tmp", tempfile.gettempdir()]  # noqa: S108 - O_TMPFILE
    found = [(shutil.disk_usage(p).free, p) for p in places if p and Path(p).is_dir()]
    free, folder = max(found, default=(0, "/tmp"))  # noqa: S108 - for the sentence
    if free < 2 * size + _SPARE:
        raise _no_room(path, folder, free)
    return folder


def _no_room(path: str, folder: str, free: int) -> RecordingError:
    return RecordingError(
        f"{path} is packed, and there is no room in {folder} to unpack it"
        f" ({bytes_text(free)} are free)",
        hint="Free some, or name another place: TMPDIR=/path leakscope report …",
    )


def _unpack(path: str, fd: int, packed: str, plain: IO[bytes], folder: str) -> str | None:
    """Write what is packed to `plain`, in bounded pieces; returns what is wrong with its end."""
    at = written = 0
    most = max(os.fstat(fd).st_size * _MOST_FACTOR, _MOST_SMALL)
    unpacker = _new(packed)
    fresh = True
    while raw := os.pread(fd, _PIECE, at):
        at += len(raw)
        while raw or not unpacker.needs_input:
            if unpacker.eof:
                raw = raw.lstrip(b"\0")
                if not raw:
                    break
                unpacker, fresh = _new(packed), True
            try:
                piece = unpacker.decompress(raw, _MOST_PIECE)
            except (zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
                return f"the {packed} data are damaged: {error}"
            fresh = False
            raw = unpacker.unused_data if unpacker.eof else b""
            free = shutil.disk_usage(folder).free
            if free < len(piece) + _SPARE:
                raise _no_room(path, folder, free)
            written += len(piece)
            if written > most:
                raise RecordingError(
                    f"{path} unpacks to more than {_MOST_FACTOR} times its size, as no heap dump does"
                )
            plain.write(piece)
            if unpacker.eof and not raw:
                break
    return None if unpacker.eof or fresh else f"the {packed} data end too early"


class _Gzip:
    """A gzip stream, unpacked in the way of lzma's decompressor."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, most: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, most)


def _new(packed: str) -> _Gzip | lzma.LZMADecompressor:
    if packed == "gzip":
        return _Gzip()
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_XZ)
