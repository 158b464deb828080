# SPDX-License-Identifier: Apache-2.0
"""The mappings of a process, from /proc/PID/maps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from leakscope.errors import TargetError
from leakscope.proc.process import living_task

__all__ = ["Mapping", "parse_maps", "read_maps", "read_raw_maps"]

_LINE = re.compile(
    rb"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)"
)
_OCTAL = re.compile(rb"\\([0-7]{3})")
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps.

    `path` is "" for anonymous memory; `device` is (major, minor).
    """

    start: int
    end: int
    permissions: str
    offset: int
    device: tuple[int, int]
    inode: int
    path: str
    deleted: bool  # the file was unlinked since it was mapped

    @property
    def span(self) -> str:
        """The mapping's name in /proc/PID/map_files."""
        return f"{self.start:x}-{self.end:x}"


def read_maps(pid: int) -> tuple[Mapping, ...]:
    """Return the mappings of `pid` in address order.

    Raises `TargetError` when there is no such process or it may not be looked at. A
    process that has ended has none; one of which only the first thread has ended has them.
    """
    return parse_maps(read_raw_maps(pid))


def read_raw_maps(pid: int) -> bytes:
    """Return the text that `parse_maps` understands. Raises as `read_maps` does."""
    try:
        text = Path(f"/proc/{pid}/maps").read_bytes()
        if not text and (task := living_task(pid)) != pid:
            text = Path(f"/proc/{task}/maps").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise TargetError(f"there is no process {pid}") from None
    except PermissionError:
        raise TargetError(
            f"process {pid} may not be looked at by this user",
            hint="Run as the user it runs as, or as root.",
        ) from None
    return text


def parse_maps(text: bytes) -> tuple[Mapping, ...]:
    """Return the mappings in the text of a maps file."""
    return tuple(_mapping(line) for line in text.split(b"\n") if line)


def _mapping(line: bytes) -> Mapping:
    match = _LINE.fullmatch(line)
    if match is None:
        raise TargetError(f"/proc has a line we do not understand: {line[:80]!r}")
    start, end, permissions, offset, major, minor, inode, raw = match.groups()
    path = _OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), raw).decode(
        "utf-8", "surrogateescape"
    )
    deleted = path.endswith(_DELETED)
    return Mapping(
        int(start, 16),
        int(end, 16),
        permissions.decode(),
        int(offset, 16),
        (int(major, 16), int(minor, 16)),
        int(inode),
        path.removesuffix(_DELETED) if deleted else path,
        deleted,
    )
