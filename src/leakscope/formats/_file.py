# SPDX-License-Identifier: Apache-2.0
"""A regular file that somebody else wrote, read in pieces up to a bound; packed ones unpacked."""

from __future__ import annotations

import codecs
import itertools
import lzma
import os
import stat
import sys
import zlib
from typing import TYPE_CHECKING, Protocol, Self

from leakscope._told import TELL
from leakscope.errors import RecordingError
from leakscope.formats._stamps import without_stamps
from leakscope.words import bytes_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ForeignFile"]

_MOST = 256 << 20  # bytes, unpacked
_PIECE = 1 << 16
_STEP = 1 << 20  # bytes between two words on how far it is
_MOST_XZ = 128 << 20  # bytes that an .xz file may ask its reader to set aside
_CHECKSUM = 8  # bytes at the end of a gzip stream
_PLAIN = frozenset(b"\t\r\n") | frozenset(range(0x20, 0x7F))
_GZIP, _XZ, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"


class ForeignFile:
    """An open file, unpacked where it is packed. A context manager.

    `size` is that of the file as it lies there; `cut` tells what is wrong with its end.
    """

    def __init__(self, path: str, descriptor: int, size: int) -> None:
        self.path = path
        self.size = size
        self.cut: str | None = None
        self._fd = descriptor
        self._span: tuple[int, int | None] = (0, None)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ForeignFile | None:
        """Open a regular file; None for what is none, or cannot be opened: others say why."""
        name = os.fspath(path)
        try:
            # Not blocking: a FIFO of that name must not hold us up.
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except (OSError, ValueError):
            return None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            return None
        return cls(name, fd, status.st_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def part(self, start: int, end: int | None) -> ForeignFile:
        """Return the content from `start` up to `end` (None: all that follows) as a file."""
        other = ForeignFile(self.path, os.dup(self._fd), self.size)
        other._span = start, end
        return other

    def head(self, count: int) -> bytes:
        """Return the first `count` bytes, fewer where there are not so many, or none to unpack."""
        found = b""
        for piece in self._content():
            found += piece
            if len(found) >= count:
                break
        self.cut = None  # what stands behind the head is not known yet
        return found[:count]

    def pieces(self, most: int = _MOST, *, stamped: bool = False) -> Iterator[bytes]:
        """Yield the content from the start, at most `most` bytes.

        With `stamped` what a service put before a line stays, between two of `_stamps.MARK`.
        Raises `RecordingError` when there is more. Where packed data end too early, or are
        damaged, what came before is yielded, and `cut` says so.
        """
        self.cut = None
        count = 0
        for piece in self._content(stamped=stamped):
            count += len(piece)
            if count > most:
                raise RecordingError(
                    f"{self.path} is larger than {bytes_text(most)}, and no report of that length is read",
                    hint="Cut out the part that matters.",
                )
            yield piece

    def _raw(self) -> Iterator[bytes]:
        at = 0
        while True:
            try:
                piece = os.pread(self._fd, _PIECE, at)
            except OSError as error:
                raise self._error(error) from error
            if not piece:
                return
            at += len(piece)
            tell = TELL.get()
            if tell is not None and at % _STEP < len(piece) and self.size > _STEP:
                tell(self.path, min(at / self.size, 1.0))
            yield piece

    def _content(self, *, stamped: bool = False) -> Iterator[bytes]:
        """Yield what is in the file, without what a service put before every line of a log."""
        whole = self._span == (0, None)
        pieces = without_stamps(self._decoded(), kept=stamped and whole)
        return pieces if whole else _within(pieces, *self._span)

    def _decoded(self) -> Iterator[bytes]:
        """Yield the content; text of UTF-16 as UTF-8, which PowerShell and editors write."""
        pieces = self._unpacked()
        first = next(pieces, b"")
        coding = _coding(first)
        if coding is None:
            if first:
                yield first.removeprefix(codecs.BOM_UTF8)
            yield from pieces
            return
        decoder = codecs.getincrementaldecoder(coding)("replace")
        for piece in itertools.chain((first,), pieces):
            text = decoder.decode(piece)
            if text:
                yield text.lstrip("\ufeff").encode("utf-8", "replace")
        if rest := decoder.decode(b"", final=True):
            yield rest.encode("utf-8", "replace")

    def _unpacked(self) -> Iterator[bytes]:
        try:
            magic = os.pread(self._fd, 6, 0)
        except OSError as error:
            raise self._error(error) from error
        if magic.startswith(_GZIP):
            return self._unpack(_Gzip, "gzip")
        if magic.startswith(_XZ):
            return self._unpack(_xz, "xz")
        if magic.startswith(_ZSTD):
            return self._unzstd()
        return self._raw()

    def _unzstd(self) -> Iterator[bytes]:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        return self._unpack(zstd.ZstdDecompressor, "zstd", (zstd.ZstdError, EOFError))

    def _unpack(
        self,
        make: Callable[[], _Unpacker],
        what: str,
        errors: tuple[type[Exception], ...] = (zlib.error, lzma.LZMAError, EOFError, ValueError),
    ) -> Iterator[bytes]:
        """Yield what is packed, in bounded pieces; one stream may follow another."""
        unpacker, fresh = make(), True
        for raw in _end_apart(self._raw()):
            data = raw
            while data or not unpacker.needs_input:
                if unpacker.eof:
                    unpacker, fresh = make(), True
                if fresh:
                    data = data.lstrip(b"\0")  # streams may be padded
                    if not data:
                        break
                try:
                    piece = unpacker.decompress(data, _PIECE)
                except errors as error:
                    self.cut = f"the {what} data are damaged: {error}"
                    return
                fresh = False
                data = unpacker.unused_data if unpacker.eof else b""
                if piece:
                    yield piece
                if unpacker.eof and not data:
                    break
        if not unpacker.eof and not fresh:
            self.cut = f"the {what} data end too early"

    def _error(self, error: OSError) -> RecordingError:
        return RecordingError(f"cannot read {self.path}: {error.strerror}")


def _within(pieces: Iterator[bytes], start: int, end: int | None) -> Iterator[bytes]:
    at = 0
    for piece in pieces:
        kept = piece[max(start - at, 0) : None if end is None else max(end - at, 0)]
        at += len(piece)
        if kept:
            yield kept
        if end is not None and at >= end:
            return


def _end_apart(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the last bytes on their own: where a checksum is wrong, what is before it is not lost."""
    kept = b""
    for piece in pieces:
        data = kept + piece
        if len(data) > _CHECKSUM:
            yield data[:-_CHECKSUM]
        kept = data[-_CHECKSUM:]
    if kept:
        yield kept


def _coding(first: bytes) -> str | None:
    """Return the coding of a text of 16-bit units, None for everything else."""
    if first.startswith(codecs.BOM_UTF16_LE):
        return "utf-16-le"
    if first.startswith(codecs.BOM_UTF16_BE):
        return "utf-16-be"
    begin = first[:64]  # without a mark: every other byte of plain text is a zero
    if len(begin) == 64:
        for zeros, others, coding in (
            (begin[1::2], begin[::2], "utf-16-le"),
            (begin[::2], begin[1::2], "utf-16-be"),
        ):
            if not any(zeros) and all(byte in _PLAIN for byte in others):
                return coding
    return None


class _Unpacker(Protocol):
    """What the decompressors of the standard library offer."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Gzip:
    """A gzip stream, unpacked in the way of lzma's decompressor."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self._hungry = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return self._hungry

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        found = self._zlib.decompress(self._zlib.unconsumed_tail + data, max(max_length, 0))
        self._hungry = not self._zlib.unconsumed_tail and len(found) < max_length
        return found


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_XZ)
