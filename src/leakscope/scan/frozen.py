# SPDX-License-Identifier: Apache-2.0
"""A process that stands still: its threads' registers, its mappings, its memory.

Threads are seized and interrupted by ptrace, never signalled. When the scanner dies, however
it dies, the kernel detaches it and every thread goes on where it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from leakscope.errors import TargetError
from leakscope.proc.maps import Mapping, read_maps
from leakscope.scan.kernel import words_of_thread

if TYPE_CHECKING:
    from types import TracebackType

    import numpy.typing as npt

__all__ = ["Frozen", "Thread", "libc"]

_SEIZE, _INTERRUPT, _DETACH, _GETREGSET = 0x4206, 0x4207, 17, 0x4204
_PRSTATUS, _XSTATE, _FPREGS, _ARM_TLS = 1, 0x202, 2, 0x401
_ALL = 0x40000000  # __WALL: threads, too
_PATIENCE_S = 3.0
_TRAP = 5  # what PTRACE_INTERRUPT stops for; a user's stop has its own signal
_ROUNDS = 64  # a process that starts threads faster than we stop them

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@dataclass(frozen=True, slots=True)
class Thread:
    """A stopped thread."""

    tid: int
    sp: int
    pc: int
    tls: int  # fs base, TPIDR
    words: npt.NDArray[np.uint64]  # all registers, vector registers included


class Frozen:
    """A context manager: the process `pid` is stopped inside, and goes on behind it.

    With `one`, only one of its threads is. Raises `TargetError` when there is no such process
    or it may not be stopped.
    """

    method = "frozen"

    def __init__(self, pid: int, *, one: bool = False) -> None:
        self.pid = pid
        self._one = one
        self.threads: tuple[Thread, ...] = ()
        self.mappings: tuple[Mapping, ...] = ()
        self.paused_ns = 0
        self._seized: list[int] = []
        self._calm: set[int] = set()
        self._signals: dict[int, int] = {}  # by thread: taken in a stop, to be delivered
        self._memory = -1
        self._since = 0

    def __enter__(self) -> Self:
        self._since = time.monotonic_ns()
        try:
            self._stop_all()
            if self._seized and self.pid not in self._seized:
                # Its first thread has ended: what is shared is looked at through another one.
                self.pid = self._seized[0]
            self.mappings = read_maps(self.pid)
            self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            self.threads = tuple(_registers(tid) for tid in self._seized)
        except OSError as error:
            self.release()
            raise _refused(self.pid, error) from error
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def read(self, address: int, size: int) -> bytes:
        """Return up to `size` bytes from `address`; fewer where they cannot be read."""
        try:
            return os.pread(self._memory, size, address)
        except (OSError, OverflowError):
            return b""

    def check(self) -> None:
        """Raise `TargetError` when the process is gone: what was read of it says nothing."""
        if not any(self.read(mapping.start, 1) for mapping in self.mappings[:8]):
            raise TargetError(f"process {self.pid} ended while it was scanned")

    def calm_thread(self) -> int | None:
        """Return a thread that is not in the middle of a signal or of a stop by its user."""
        return next((tid for tid in self._seized if tid in self._calm), None)

    def release(self) -> None:
        """Let the process go on. May be called more than once."""
        for tid in self._seized:
            libc.ptrace(_DETACH, tid, None, self._signals.get(tid, 0))  # dead: fine
        if self._seized and not self.paused_ns:
            self.paused_ns = time.monotonic_ns() - self._since
        self._seized = []
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _stop_all(self) -> None:
        for _ in range(_ROUNDS):
            fresh = [t for t in _tids(self.pid) if t not in self._seized]
            if len(fresh) > 1 and _has_ended(self.pid):
                fresh.remove(self.pid)
            if not fresh or (fresh == [self.pid] and self._seized):
                return
            for tid in fresh:
                self._stop(tid)
                if self._one and self._seized:
                    return
        raise TargetError(
            f"process {self.pid} starts threads faster than they can be stopped",
            hint="Try again when it is calmer.",
        )

    def _stop(self, tid: int) -> None:
        if libc.ptrace(_SEIZE, tid, None, None) < 0:
            if ctypes.get_errno() == errno.ESRCH and tid != self.pid:
                return  # it ended meanwhile
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._seized.append(tid)
        if libc.ptrace(_INTERRUPT, tid, None, None) < 0:
            self._seized.remove(tid)
            return
        status = self._wait(tid)
        if not os.WIFSTOPPED(status):  # killed in this moment
            self._seized.remove(tid)
            if tid == self.pid:
                raise TargetError(f"process {self.pid} ended while it was being stopped")
            return
        # A stop for a signal: hand the signal on when it is let go.
        signal = os.WSTOPSIG(status)
        if status >> 16 == 0 and signal:
            self._signals[tid] = signal
        elif signal == _TRAP:
            self._calm.add(tid)

    def _wait(self, tid: int) -> int:
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            done, status = os.waitpid(tid, _ALL | os.WNOHANG)
            if done:
                return status
            if time.monotonic() > give_up:
                raise TargetError(
                    f"thread {tid} of process {self.pid} cannot be stopped: it is inside the kernel",
                    hint=f"/proc/{tid}/wchan and /proc/{tid}/stack tell where; try again later.",
                )
            time.sleep(0.0002)


def _tids(pid: int) -> list[int]:
    try:
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError) as error:
        raise TargetError(f"there is no process {pid}") from error


def _has_ended(tid: int) -> bool:
    """Whether the thread is a zombie: a first thread stays one as long as others run."""
    try:
        text = Path(f"/proc/{tid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return text.rpartition(")")[2].split()[:1] in (["Z"], ["X"])


def _registers(tid: int) -> Thread:
    general = _regset(tid, _PRSTATUS)
    vector = _regset(tid, _XSTATE if platform.machine() == "x86_64" else _FPREGS)
    words = np.frombuffer(general[: len(general) // 8 * 8], np.uint64)
    if platform.machine() == "x86_64":
        sp, pc, tls = int(words[19]), int(words[16]), int(words[21])
    else:
        sp, pc = int(words[31]), int(words[32])
        tls = int.from_bytes(_regset(tid, _ARM_TLS)[:8], "little")
    more = np.frombuffer(vector[: len(vector) // 8 * 8], np.uint64)
    return Thread(tid, sp, pc, tls, np.concatenate([words, more, words_of_thread(tid)]))


def _regset(tid: int, kind: int) -> bytes:
    buffer = ctypes.create_string_buffer(16384)
    vector = _Vector(ctypes.cast(buffer, ctypes.c_void_p), len(buffer))
    if libc.ptrace(_GETREGSET, tid, ctypes.c_void_p(kind), ctypes.byref(vector)) < 0:
        return b""
    return buffer.raw[: vector.length]


def _refused(pid: int, error: OSError) -> TargetError:
    if error.errno == errno.ESRCH:
        return TargetError(f"there is no process {pid}")
    if error.errno not in {errno.EPERM, errno.EACCES}:
        return TargetError(f"process {pid} cannot be stopped: {error.strerror}")
    tracer, scope = "0", "0"
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        tracer = next(
            line[10:].strip() for line in status.split("\n") if line.startswith("TracerPid")
        )
    if tracer != "0":
        return TargetError(
            f"process {pid} is being traced by process {tracer} already",
            hint="Detach the debugger first.",
        )
    with contextlib.suppress(OSError):
        scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text(encoding="ascii").strip()
    if scope in {"1", "2"} and os.geteuid() != 0:
        return TargetError(
            f"process {pid} may not be stopped: kernel.yama.ptrace_scope is {scope}",
            hint="Run as root (it needs CAP_SYS_PTRACE), or: sysctl kernel.yama.ptrace_scope=0",
        )
    return TargetError(
        f"process {pid} may not be stopped by this user",
        hint="Run as the user it runs as, or as root (it needs CAP_SYS_PTRACE).",
    )
