# SPDX-License-Identifier: Apache-2.0
"""What an attach leaves to be found in a process: a page of code that says what was done there.

It is the first that is mapped and the last that goes, so anybody who may trace the process can
undo an attach of which nobody else knows any more.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import TargetError
from leakscope.proc.maps import Mapping, read_maps
from leakscope.proc.process import living_task, pids

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ISLAND_BYTES", "STUB_BYTES", "Attached", "Patch", "attached_processes", "find_attached"]
__all__ += ["all_attached", "pack", "pack_secondary", "recording_of"]

MAGIC = 0x444E414C5349534C  # "LSISLAND"
VERSION = 1
ISLAND_BYTES = 16384
CODE = 4096  # offset of the first stub
STUB_BYTES = 128
MOST_STUBS = (ISLAND_BYTES - CODE) // STUB_BYTES
_MOST_ISLANDS, _MOST_PATCHES = 8, 60
_KEPT = 16

_PATCH = np.dtype([("address", "<u8"), ("island", "<u8"), ("length", "<u4"), ("plain", "<u4"),
                   ("kept", "V16"), ("jump", "V8")])  # fmt: skip
_HEAD = np.dtype(
    [
        ("magic", "<u8"), ("version", "<u4"), ("patches", "<u4"), ("primary", "<u8"),
        ("region", "<u8"), ("region_bytes", "<u8"),
        ("recording", "<u8"), ("recording_bytes", "<u8"),
        ("slots", "<u8"), ("handover", "<u8"), ("image", "<u8"), ("image_bytes", "<u8"),
        ("tracer", "<u4"), ("descriptor", "<i4"), ("started_unix_ns", "<u8"),
        ("tid_offset", "<u8"),
        ("islands", "<u8", (_MOST_ISLANDS,)),
        ("rows", _PATCH, (_MOST_PATCHES,)),
    ]
)  # fmt: skip
assert _HEAD.itemsize <= CODE


@dataclass(frozen=True, slots=True)
class Patch:
    """The beginning of a function that leads to an island."""

    address: int
    kept: bytes  # what was there
    jump: bytes  # what is there now
    plain: bool  # whether its page was as the file has it


@dataclass(frozen=True, slots=True)
class Attached:
    """What was done to a process; addresses in it."""

    pid: int
    tracer: int  # pid of whoever attached
    descriptor: int  # of the recording, of that process; -1: none
    started_unix_ns: int
    region: tuple[int, int]  # address, bytes: all private memory
    recording: tuple[int, int]
    image: tuple[int, int]  # the agent's own pages, in the region
    slots: int
    handover: int
    tid_offset: int
    islands: tuple[int, ...]  # the first one tells the rest
    patches: tuple[Patch, ...] = ()

    @property
    def code(self) -> list[tuple[int, int]]:
        """Where instructions of ours lie: (start, end)."""
        spans = [(each, each + ISLAND_BYTES) for each in self.islands]
        return [*spans, (self.image[0], self.image[0] + self.image[1])]

    @property
    def identity(self) -> tuple[object, ...]:
        """What two looks at the same attach, and copies of it that a fork made, have in common.

        The next attach, or another leakscope's, may lie at the same addresses.
        """
        return self.started_unix_ns, self.region, self.islands

    def without(self, address: int, data: bytes) -> bytes:
        """Return memory of the process at `address` as it is when this is taken out."""
        for patch in self.patches:
            at = patch.address - address
            if 0 <= at <= len(data) - len(patch.jump) and data[at:].startswith(patch.jump):
                data = data[:at] + patch.kept + data[at + len(patch.kept) :]
        return data


def pack(attached: Attached) -> bytes:
    """Return the first page of the first island."""
    head = np.zeros(1, _HEAD)
    row = head[0]
    row["magic"], row["version"] = MAGIC, VERSION
    row["primary"] = attached.islands[0]
    row["patches"] = len(attached.patches)
    row["region"], row["region_bytes"] = attached.region
    row["recording"], row["recording_bytes"] = attached.recording
    row["image"], row["image_bytes"] = attached.image
    row["slots"], row["handover"] = attached.slots, attached.handover
    row["tid_offset"] = attached.tid_offset
    row["tracer"], row["descriptor"] = attached.tracer, attached.descriptor
    row["started_unix_ns"] = attached.started_unix_ns
    row["islands"][: len(attached.islands)] = attached.islands
    for place, patch in zip(row["rows"], attached.patches, strict=False):
        place["address"], place["length"] = patch.address, len(patch.jump)
        place["plain"] = patch.plain
        place["kept"] = patch.kept.ljust(_KEPT, b"\0")
        place["jump"] = patch.jump.ljust(8, b"\0")
    return head.tobytes().ljust(CODE, b"\0")


def pack_secondary(primary: int) -> bytes:
    """Return the first page of another island."""
    head = np.zeros(1, _HEAD)
    head[0]["magic"], head[0]["version"], head[0]["primary"] = MAGIC, VERSION, primary
    return head.tobytes().ljust(CODE, b"\0")


def find_attached(pid: int, mappings: Sequence[Mapping] | None = None) -> Attached | None:
    """Return what an attach has left in `pid`, None when there is nothing.

    Of several, which are left where a thread never came out, the newest one.
    Raises `TargetError` when there is no such process or it may not be looked at.
    """
    found = all_attached(pid, mappings if mappings is not None else read_maps(pid))
    return max(found, key=lambda one: (one.tracer != 0, one.started_unix_ns), default=None)


def recording_of(pid: int, mappings: Sequence[Mapping]) -> Path | None:
    """Return where the recording of an attached process can be opened; None: there is none for us."""
    try:
        found = find_attached(pid, mappings)
    except TargetError:  # not ours to look at
        return None
    if found is None or not found.patches:
        return None
    start, size = found.recording
    candidates = [Path(f"/proc/{living_task(pid)}/map_files/{start:x}-{start + size:x}")]
    if found.descriptor >= 0:
        candidates.append(Path(f"/proc/{found.tracer}/fd/{found.descriptor}"))
    inode = next((m.inode for m in mappings if m.start == start), 0)
    for path in candidates:
        try:
            if inode and path.stat().st_ino == inode:
                return path
        except OSError:
            continue
    return None


def all_attached(pid: int, mappings: Sequence[Mapping]) -> list[Attached]:
    """Return what all attaches have left. Raises as `find_attached`."""
    candidates = [*_candidates(mappings)]
    if not candidates:
        return []
    try:
        memory = os.open(f"/proc/{living_task(pid)}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise TargetError(f"process {pid} cannot be looked at: {error.strerror}") from error
    try:
        found = [_read(pid, memory, mapping.start) for mapping in candidates]
    finally:
        os.close(memory)
    return [*{one.islands: one for one in found if one is not None}.values()]


def _candidates(mappings: Sequence[Mapping]) -> Iterator[Mapping]:
    for mapping in mappings:
        size = mapping.end - mapping.start
        if mapping.permissions == "r-xp" and not mapping.inode and not size % ISLAND_BYTES:
            yield mapping


def _read(pid: int, memory: int, start: int, *, named: bool = False) -> Attached | None:
    try:
        raw = os.pread(memory, _HEAD.itemsize, start)
    except OSError:
        return None
    if len(raw) < _HEAD.itemsize:
        return None
    row = np.frombuffer(raw, _HEAD)[0]
    if int(row["magic"]) != MAGIC or int(row["version"]) != VERSION:
        return None
    if int(row["primary"]) != start:  # another one has it all
        return None if named else _read(pid, memory, int(row["primary"]), named=True)
    patches = tuple(
        Patch(
            int(each["address"]),
            bytes(each["kept"])[: int(each["length"])],
            bytes(each["jump"])[: int(each["length"])],
            bool(each["plain"]),
        )
        for each in row["rows"][: min(int(row["patches"]), _MOST_PATCHES)]
    )
    return Attached(
        pid,
        int(row["tracer"]),
        int(row["descriptor"]),
        int(row["started_unix_ns"]),
        (int(row["region"]), int(row["region_bytes"])),
        (int(row["recording"]), int(row["recording_bytes"])),
        (int(row["image"]), int(row["image_bytes"])),
        int(row["slots"]),
        int(row["handover"]),
        int(row["tid_offset"]),
        tuple(int(each) for each in row["islands"] if each),
        patches,
    )


def attached_processes() -> list[Attached]:
    """Return what attaches have left in all processes that may be looked at."""
    found = []
    for pid in pids():
        try:
            one = find_attached(pid)
        except TargetError:
            continue
        if one is not None:
            found.append(one)
    return found
