# SPDX-License-Identifier: Apache-2.0
"""The helper that loads our BPF programs: started, asked, ended.

It lives as long as its input is open: when this process ends, however, so does the helper, and
with it everything that it holds in the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from leakscope import _native
from leakscope._paths import is_file
from leakscope.bpf.wire import KINDS, Collected, Hello, read_answer, read_hello
from leakscope.errors import LeakscopeError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HELPER", "BpfUnavailableError", "KernelAllocations", "KernelFilter", "helper_is_built"]

HELPER = "leakscope-bpf"
"""File name of the program that loads them (native/bpf/kmem.c)."""

_PATIENCE_S = 60.0  # for an answer; the kernel verifies programs while it greets
_GONE_S = 10.0
_LINE = re.compile(r"(.{1,400}): errno (\d{1,4}): (.{1,400})")


class BpfUnavailableError(LeakscopeError):
    """BPF programs cannot be used here; something else may do."""


@dataclass(frozen=True, slots=True)
class KernelFilter:
    """Which allocations of the kernel are recorded. Sizes are bytes, None is no limit."""

    pid: int | None = None
    cgroup: int | None = None  # the inode of its folder
    controller: str | None = None  # of cgroup v1 whose folder that is; None: cgroup v2
    min_size: int | None = None
    max_size: int | None = None
    caches: tuple[str, ...] = ()  # names of one cache; none: every cache
    kinds: tuple[str, ...] = KINDS
    movable: bool = False  # page cache and memory of programs, too
    sample_bytes: int = 1  # mean distance of samples; 1: every allocation
    most_blocks: int | None = None  # living blocks that there is room for

    @property
    def whole(self) -> bool:
        """Whether no part of a cache is left out."""
        limits = (self.pid, self.cgroup, self.min_size, self.max_size)
        return all(limit is None for limit in limits)


def helper_is_built() -> bool:
    """Whether this build of leakscope has the helper."""
    return is_file(_native.path(HELPER))


class KernelAllocations:
    """The helper at work: attached from the start until `finish` or `close`."""

    def __init__(self, which: KernelFilter) -> None:
        """Start it and wait until everything is attached. Raises `BpfUnavailableError`."""
        path = _native.path(HELPER)
        if not is_file(path):
            raise BpfUnavailableError(
                "this build of leakscope has no BPF helper: there was no clang when it was built",
                hint="Install clang and build leakscope again, or trace with --ftrace.",
            )
        try:
            self._process = subprocess.Popen(
                [path, "kmem", *_arguments(which)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except OSError as error:
            raise BpfUnavailableError(f"{path} cannot be started: {error.strerror}") from error
        try:
            self.hello, self.notes = self._greeted()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def look(self) -> Collected:
        """Return counters and sites as they are now."""
        return self._ask(b"s")

    def finish(self) -> Collected:
        """Detach everything, then return all that was collected."""
        return self._ask(b"e")

    def close(self) -> None:
        """End it; nothing of it is left in the kernel then."""
        process = self._process
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(_GONE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _greeted(self) -> tuple[Hello, tuple[str, ...]]:
        try:
            return read_hello(self._reader())
        except EOFError:
            words = self._words()
            if (status := self._process.wait()) < 0:
                raise LeakscopeError(
                    f"{HELPER} was ended by signal {-status} while it started"
                ) from None
            raise _refusal(words) from None

    def _ask(self, letter: bytes) -> Collected:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(letter)
            return read_answer(self._reader())
        except (EOFError, BrokenPipeError):
            words = self._words() or f"status {self._process.wait()}"
            raise LeakscopeError(
                f"{HELPER} ended while it traced ({words}); what it saw is lost",
                hint="Was it killed? Nothing of it is left in the kernel. Try again.",
            ) from None

    def _words(self) -> str:
        """Return what it said last, when it is at its end."""
        assert self._process.stderr is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GONE_S)
            return os.read(self._process.stderr.fileno(), 4096).decode("utf-8", "replace").strip()
        return ""

    def _reader(self) -> _Reader:
        assert self._process.stdout is not None
        return _Reader(self._process.stdout.fileno())


class _Reader:
    """Reads so many bytes, in bounded time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._until = time.monotonic() + _PATIENCE_S

    def __call__(self, size: int) -> bytes:
        parts = []
        while size:
            left = self._until - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                raise LeakscopeError(f"{HELPER} did not answer for {_PATIENCE_S:.0f} s")
            got = os.read(self._descriptor, min(size, 1 << 20))
            if not got:
                raise EOFError
            parts.append(got)
            size -= len(got)
        return b"".join(parts)


def _arguments(which: KernelFilter) -> Sequence[str]:
    bits = sum(1 << number for number, kind in enumerate(KINDS) if kind in which.kinds)
    told: dict[str, object] = {
        "sample": which.sample_bytes,
        "kinds": bits,
        "movable": int(which.movable),
        "except": os.getpid(),
        "pid": which.pid,
        "cgroup": which.cgroup,
        "controller": which.controller,
        "min": which.min_size,
        "max": which.max_size,
        "blocks": which.most_blocks,
    }
    found = [f"{name}={value}" for name, value in told.items() if value is not None]
    return [*found, *(f"cache={name}" for name in which.caches[:8])]


def _refusal(words: str) -> BpfUnavailableError:
    """Say what the helper's last line means."""
    found = _LINE.search(words)
    if found is None:
        return BpfUnavailableError(f"{HELPER} did not start: {words or 'it said nothing'}")
    what, number = found[1], int(found[2])
    if number in (errno.EPERM, errno.EACCES):
        return BpfUnavailableError(
            "BPF programs may not be loaded by this user"
            if os.geteuid()
            else f"the kernel refuses BPF programs ({what}: {found[3]})",
            hint="It takes root, or CAP_BPF and CAP_PERFMON; kernel lockdown may forbid it.",
        )
    if what == "/sys/kernel/btf/vmlinux":
        return BpfUnavailableError(
            "this kernel does not describe its types (no /sys/kernel/btf/vmlinux)",
            hint="A kernel built with CONFIG_DEBUG_INFO_BTF has it. --ftrace needs none.",
        )
    if number == errno.ENOSYS:
        return BpfUnavailableError("this kernel has no BPF (CONFIG_BPF_SYSCALL)")
    if number in (errno.ENOMEM, errno.E2BIG):
        return BpfUnavailableError(
            f"the kernel has no room for the tables ({what}: {found[3]})",
            hint="Ask for fewer blocks with --blocks.",
        )
    return BpfUnavailableError(f"the BPF programs cannot be used here ({what}: {found[3]})")
