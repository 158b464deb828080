# SPDX-License-Identifier: Apache-2.0
"""kmemleak, used as it wants to be: scan, wait past the minimum age, scan again, keep what both saw.

The kernel reports an object from 5 s of age on, once a scan found no pointer to it and its content
stayed the same since the scan before. A pointer that was on its way just then, in a register or in
another CPU's list, makes a false report: so what counts is what two reports have, more than the
minimum age apart, with the same checksum.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.errors import TargetError
from leakscope.formats.kmemleak import KmemleakObject, KmemleakText
from leakscope.proc.kernel_frames import KernelFrame, without_allocators
from leakscope.proc.kmsg import new_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["APART_S", "Group", "Kmemleak", "Seen", "scan_twice"]

APART_S = 5.5
"""Seconds between the two reports: more than the age from which on the kernel reports objects."""

_MOST_LINE = 1 << 14
_MOST_OBJECTS = 1 << 20
_MOST_GROUPS = 1 << 16
_MOST_NAMES = 64
_SETTLE_S = 0.2


class Kmemleak:
    """The control file of kmemleak, and the report behind the same name."""

    def __init__(self, path: str) -> None:
        self.path = path

    def command(self, text: str) -> None:
        """Write one command. Raises `TargetError` with the reason when the kernel refuses it."""
        number = self._write(text)
        if number == 0:
            return
        why = os.strerror(number)
        if number in (errno.EPERM, errno.EACCES):
            why = "it is switched off, or this user may not"
        raise TargetError(
            f"kmemleak does not take '{text}': {why}",
            hint="`leakscope kernel` says what this kernel can do.",
        )

    def _write(self, text: str) -> int:
        """Write one command; return the number of the error, 0 for none."""
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report as it is now. Raises `TargetError`."""
        try:
            with open(self.path, "rb", buffering=1 << 16) as file:
                while line := file.readline(_MOST_LINE):
                    yield line.decode("utf-8", "replace").rstrip("\r\n")
        except OSError as error:
            raise TargetError(f"{self.path} cannot be read: {error.strerror}") from error

    def objects(self) -> Iterator[KmemleakObject]:
        """Yield what the report lists now, one at a time: it may be larger than memory."""
        return iter(KmemleakText(self.lines(), most=1 << 62))

    def dump(self, address: int) -> list[str]:
        """Have the kernel tell all about the object at `address`, and return what it says."""
        try:
            with new_messages() as logged:
                number = self._write(f"dump={address:#x}")
                lines = logged()
        except OSError as error:
            raise TargetError(
                f"the kernel's log, where the answer is, may not be read: {error.strerror}"
            ) from error
        if number == errno.EINVAL:
            raise TargetError(f"kmemleak knows no object at {address:#x}")
        if number:
            raise TargetError(f"kmemleak does not tell of {address:#x}: {os.strerror(number)}")
        first = next((n for n, text in enumerate(lines) if "kmemleak:" in text), None)
        return [] if first is None else lines[first : first + 64]

    def reported(self) -> frozenset[int]:
        """Return which objects the report lists now, for `scan_twice` to leave out."""
        objects = itertools.islice(self.objects(), _MOST_OBJECTS)
        return frozenset(_birth(one) for one in objects if one.address is not None)


@dataclass(slots=True)
class Group:
    """Objects of one stack. `frames` begin with the function that asked for memory."""

    kind: str
    frames: tuple[KernelFrame, ...]
    count: int = 0
    bytes: int = 0
    first: int | None = None  # jiffies
    last: int | None = None
    youngest_s: float | None = None  # where the kernel tells ages
    oldest_s: float | None = None
    cut: bool = False
    tasks: Counter[str] = field(default_factory=Counter)
    addresses: list[int] = field(default_factory=list)  # a few

    def add(self, one: KmemleakObject) -> None:
        """Take in one object."""
        self.count += 1
        self.bytes += one.size
        self.cut |= one.cut
        if one.jiffies is not None:
            self.first = one.jiffies if self.first is None else min(self.first, one.jiffies)
            self.last = one.jiffies if self.last is None else max(self.last, one.jiffies)
        if one.age_s is not None:
            old, young = self.oldest_s, self.youngest_s
            self.oldest_s = one.age_s if old is None else max(old, one.age_s)
            self.youngest_s = one.age_s if young is None else min(young, one.age_s)
        if one.comm is not None and (one.comm in self.tasks or len(self.tasks) < _MOST_NAMES):
            self.tasks[one.comm] += 1
        if one.address is not None and len(self.addresses) < 8:
            self.addresses.append(one.address)


@dataclass(slots=True)
class Seen:
    """What two reports have in common, and how much only one of them had."""

    groups: list[Group] = field(default_factory=list)
    first: int = 0  # objects in the first report
    second: int = 0
    kept: int = 0  # in both, with the same checksum
    new: int = 0  # in the second alone: younger, or reported for the first time
    changed: int = 0  # in both, with another checksum: somebody still writes to them
    known: int = 0  # of both, and left out because they were reported before
    unkept: int = 0  # not compared or grouped: there are too many
    checked: bool = True  # the kernel tells checksums
    seconds: float = 0.0
    apart_s: float = 0.0

    @property
    def gone(self) -> int:
        """Objects of the first report that the second has no more: they were no leaks."""
        return max(0, self.first - self.kept - self.changed - self.known - self.unkept)


def scan_twice(
    kmemleak: Kmemleak,
    *,
    apart_s: float = APART_S,
    known: frozenset[int] = frozenset(),
    name: Callable[[KmemleakObject], tuple[KernelFrame, ...]] | None = None,
    wait: Callable[[float], None] = time.sleep,
    stage: Callable[[str], None] = lambda _: None,
) -> Seen:
    """Scan, wait, scan again, and return what both reports have. Raises `TargetError`.

    `known` are objects to be left out, by `Kmemleak.reported`. `name` may give names to frames of modules that are gone. Two scans make a report: the first
    only takes the checksums of what it meets for the first time.
    """
    began = time.monotonic()
    seen = Seen()
    stage("kmemleak: first scan")
    kmemleak.command("scan")
    wait(_SETTLE_S)
    kmemleak.command("scan")
    first: dict[int, int] = {}
    for one in kmemleak.objects():
        seen.first += 1
        if one.address is None or len(first) >= _MOST_OBJECTS:
            seen.unkept += 1
            continue
        first[one.address] = _identity(one)
        seen.checked &= one.checksum is not None
    then = time.monotonic()
    stage(f"kmemleak: waiting {apart_s:.1f} s, so that what was on its way arrives")
    wait(apart_s)
    stage("kmemleak: second scan")
    kmemleak.command("scan")
    seen.apart_s = time.monotonic() - then
    groups: dict[tuple[str, tuple[KernelFrame, ...]], Group] = {}
    for one in kmemleak.objects():
        seen.second += 1
        before = None if one.address is None else first.get(one.address)
        if before is None:
            seen.new += 1
            continue
        if before != _identity(one):
            seen.changed += 1
            continue
        if _birth(one) in known:
            seen.known += 1
            continue
        frames = name(one) if name is not None else tuple(one.frames)
        key = without_allocators(frames)
        group = groups.get(key)
        if group is None:
            if len(groups) >= _MOST_GROUPS:
                seen.unkept += 1
                continue
            group = groups[key] = Group(*key)
        seen.kept += 1
        group.add(one)
    seen.groups = sorted(groups.values(), key=lambda g: (-g.bytes, -g.count))
    seen.seconds = time.monotonic() - began
    return seen


def _birth(one: KmemleakObject) -> int:
    """Equal for the same object, whatever is in it by now."""
    return hash((one.address, one.size, one.jiffies))


def _identity(one: KmemleakObject) -> int:
    """Equal for the same object in two reports: allocated at the same time, with the same content."""
    return hash((one.size, one.jiffies if one.jiffies is not None else one.pid, one.checksum))
