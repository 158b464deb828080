# SPDX-License-Identifier: Apache-2.0
"""A core file: the memory and the threads of a process as they were when it was written.

Reads what the kernel, gcore and systemd-coredump write for 64-bit x86 and ARM (System V ABI,
Linux fs/binfmt_elf.c). The file is untrusted: every count and length in it is checked against
the file's real size, and a part that is missing is counted in `missing_bytes`.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from bisect import bisect_right
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from leakscope.errors import TargetError
from leakscope.proc.maps import Mapping
from leakscope.target.memory import Segment, Thread
from leakscope.target.vanish import unwatch, vanished, watch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Core"]

_MACHINES = {62: "x86_64", 183: "aarch64"}
_WRITABLE = 2
_ET_CORE, _PT_LOAD, _PT_NOTE, _PN_XNUM = 4, 1, 4, 0xFFFF
_PRSTATUS, _FPREGS, _PRPSINFO, _FILE = 1, 2, 3, 0x46494C45
_XSTATE, _ARM_TLS = 0x202, 0x401
_REGISTERS, _TID = 112, 32  # offsets in struct elf_prstatus, equal on both machines
_REGISTER_BYTES = {"x86_64": 27 * 8, "aarch64": 34 * 8}
_MOST_NOTES = 256 << 20  # bytes; vector registers of 65,536 threads
_MOST_SEGMENTS = 1 << 20


class Core:
    """A context manager over a core file: `mappings`, `threads`, `read` as of a stopped process.

    Raises `TargetError` when the file is not a core file that can be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.mappings: tuple[Mapping, ...] = ()
        self.threads: tuple[Thread, ...] = ()
        self.segments: tuple[Segment, ...] = ()
        self.pid = 0
        self.name = ""
        self.machine = ""
        self.dumped_bytes = 0  # memory that the file has
        self.missing_bytes = 0  # memory that it should have and does not: it was cut off
        self.left_out_bytes = 0  # anonymous memory that was not meant to be written to it
        self._starts: list[int] = []
        self._files: list[tuple[int, int, int, str]] = []  # start, end, offset, path
        self._bytes: np.ndarray[tuple[int], np.dtype[np.uint8]] | None = None

    def __enter__(self) -> Self:
        try:
            self._open()
            self._parse()
        except OSError as error:
            self._close()
            raise TargetError(f"{self.path} cannot be read: {error.strerror}") from error
        except struct.error as error:
            self._close()
            raise self._damaged(str(error)) from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bytes is not None:
            unwatch()
        self._bytes = None  # the mapping goes with the last array that uses it
        self.segments = ()

    @property
    def vanished(self) -> bool:
        """Whether the file was cut off since it was opened: what is gone reads as zeros."""
        return vanished()

    def read(self, address: int, size: int) -> bytes:
        """Return up to `size` bytes from `address`; fewer where the file does not have them."""
        parts = []
        while size > 0:
            at = bisect_right(self._starts, address) - 1
            if at < 0 or address >= self.segments[at].end:
                break
            segment = self.segments[at]
            take = min(size, segment.end - address)
            offset = segment.place - self._base + address - segment.start
            parts.append(self._file(offset, take))
            address += take
            size -= take
        return b"".join(parts)

    def _open(self) -> None:
        # O_NONBLOCK: a fifo in place of the file must not hang us.
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise TargetError(f"{self.path} is not a regular file")
            if status.st_size < 64:
                raise TargetError(f"{self.path} is not a core file: it has {status.st_size} bytes")
            mapped = mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
        finally:
            os.close(fd)
        self._bytes = np.frombuffer(mapped, np.uint8)
        self._base = int(self._bytes.ctypes.data)
        self._size = len(self._bytes)
        watch(self._base, self._base + self._size)

    def _file(self, offset: int, count: int) -> bytes:
        assert self._bytes is not None
        if count < 0 or offset < 0 or offset + count > self._size:
            raise struct.error(f"{count} bytes at {offset:#x} lie outside the file")
        return self._bytes[offset : offset + count].tobytes()

    def _damaged(self, why: str) -> TargetError:
        return TargetError(
            f"{self.path} is a damaged core file: {why}",
            hint="Was it cut off? See ulimit -c, and the free space where it was written.",
        )

    def _parse(self) -> None:
        head = self._file(0, 64)
        if head[:4] != b"\x7fELF":
            raise TargetError(
                f"{self.path} is not a core file",
                hint="A compressed one is unpacked first; coredumpctl dump -o FILE writes one out.",
            )
        kind, machine = struct.unpack_from("<HH", head, 16)
        if head[4] != 2 or head[5] != 1 or machine not in _MACHINES:
            raise TargetError(
                f"{self.path} is of another architecture than leakscope reads",
                hint="64-bit x86 and 64-bit ARM are known.",
            )
        if kind != _ET_CORE:
            raise TargetError(f"{self.path} is an ELF file, but not a core file")
        self.machine = _MACHINES[machine]
        table, sections = struct.unpack_from("<QQ", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        if size != 56:
            raise struct.error("program headers of an unknown size")
        if count == _PN_XNUM:  # too many for the field: the number is in the first section
            (count,) = struct.unpack_from("<I", self._file(sections, 64), 44)
        if count > _MOST_SEGMENTS:
            raise struct.error(f"it claims {count} segments")
        headers = [*struct.iter_unpack("<IIQQQQQQ", self._file(table, 56 * count))]
        for each in headers:
            if each[0] == _PT_NOTE:
                self._read_notes(each[2], each[5])
        self._read_segments(headers)
        if not self.threads:
            raise struct.error("it has no thread")

    def _read_segments(self, headers: list[tuple[int, ...]]) -> None:
        mappings, segments, end_before = [], [], 0
        for kind, flags, offset, start, _, in_file, in_memory, _ in sorted(
            headers, key=lambda each: each[3]
        ):
            if kind != _PT_LOAD or not in_memory:
                continue
            end = start + max(in_memory, in_file)
            if start < end_before or end > 1 << 64:
                raise struct.error(f"the segment at {start:#x} overlaps another one")
            end_before = end
            have = max(min(in_file, self._size - offset), 0)
            self.missing_bytes += in_file - have
            self.dumped_bytes += have
            mapping = self._mapping(start, end, flags)
            if flags & _WRITABLE:
                # No memory that is not there may be a root: it could be claimed to be endless.
                if not mapping.path:
                    self.left_out_bytes += max(in_memory, in_file) - in_file
                mapping = replace(mapping, end=start + have)
            if mapping.start < mapping.end:
                mappings.append(mapping)
            if have:
                segments.append(Segment(start, start + have, self._base + offset))
        self.mappings, self.segments = tuple(mappings), tuple(segments)
        self._starts = [segment.start for segment in segments]

    def _mapping(self, start: int, end: int, flags: int) -> Mapping:
        letters = "".join(
            letter if flags & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
        )
        at = bisect_right(self._files, (start, 1 << 64, 0, "")) - 1
        path, offset = "", 0
        if at >= 0 and start < self._files[at][1]:
            path, offset = self._files[at][3], self._files[at][2] + start - self._files[at][0]
        return Mapping(start, end, letters + "p", offset, (0, 0), 0, path, deleted=False)

    def _read_notes(self, offset: int, size: int) -> None:
        if size > _MOST_NOTES:
            raise struct.error(f"it claims {size} bytes of notes")
        found: list[tuple[bytes, dict[int, bytes]]] = []  # general registers, then the others
        for kind, body in _notes(self._file(offset, size)):
            if kind == _PRSTATUS:
                found.append((body, {}))
            elif kind in {_FPREGS, _XSTATE, _ARM_TLS} and found:
                found[-1][1][kind] = body
            elif kind == _PRPSINFO and len(body) >= 56:
                (self.pid,) = struct.unpack_from("<i", body, 24)
                self.name = body[40:56].split(b"\0")[0].decode("utf-8", "replace")
            elif kind == _FILE:
                self._files = sorted(_files(body))
        self.threads += tuple(self._thread(status, others) for status, others in found)

    def _thread(self, status: bytes, others: dict[int, bytes]) -> Thread:
        size = _REGISTER_BYTES[self.machine]
        if len(status) < _REGISTERS + size:
            raise struct.error("the registers of a thread are cut off")
        (tid,) = struct.unpack_from("<i", status, _TID)
        words = np.frombuffer(status, np.uint64, size // 8, _REGISTERS)
        if self.machine == "x86_64":
            sp, pc, tls = int(words[19]), int(words[16]), int(words[21])
        else:
            sp, pc = int(words[31]), int(words[32])
            tls = int.from_bytes(others.get(_ARM_TLS, b"")[:8], "little")
        more = [
            np.frombuffer(body[: len(body) // 8 * 8], np.uint64)
            for kind, body in others.items()
            if kind != _ARM_TLS
        ]
        return Thread(tid, sp, pc, tls, np.concatenate([words, *more]))


def _notes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 12 <= len(data):
        name_bytes, size, kind = struct.unpack_from("<III", data, at)
        at += 12
        name = data[at : at + name_bytes]
        at += (name_bytes + 3) & ~3
        if at + size > len(data):
            return  # cut off; what came before is good
        if name.rstrip(b"\0") in {b"CORE", b"LINUX"}:
            yield kind, data[at : at + size]
        at += (size + 3) & ~3


def _files(body: bytes) -> Iterator[tuple[int, int, int, str]]:
    """NT_FILE: which files were mapped where."""
    count, page = struct.unpack_from("<QQ", body, 0)
    if count > (len(body) - 16) // 24:
        raise struct.error(f"it claims {count} mapped files")
    names = body[16 + 24 * count :].split(b"\0")
    for index, name in zip(range(count), names, strict=False):
        start, end, offset = struct.unpack_from("<QQQ", body, 16 + 24 * index)
        yield start, end, offset * page, name.decode("utf-8", "surrogateescape")
