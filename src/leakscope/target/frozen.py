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
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from leakscope.errors import TargetError
from leakscope.proc.freezer import freezing_cgroup
from leakscope.proc.maps import Mapping, parse_maps, read_raw_maps
from leakscope.target.kernel_words import words_of_thread
from leakscope.target.lease import Lease, terminal_stops_wait
from leakscope.target.memory import Range, Segment, Thread
from leakscope.target.ptrace import (
    ALL,
    ARM_TLS,
    DETACH,
    INTERRUPT,
    PRSTATUS,
    SEIZE,
    TRAP,
    general_registers,
    libc,
    register_set,
    set_general_registers,
    vector_registers,
)
from leakscope.target.reaper import Reaper, is_child, reap
from leakscope.target.restart import Sleepers, call_rank, is_restartable, no_handler, shorten
from leakscope.target.threads import (
    has_ended,
    has_others,
    is_asking,
    is_deep,
    is_ending,
    is_filtered,
    is_traced_by,
    is_worker,
    run_ns,
    thread_ids,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

__all__ = ["Frozen", "apart"]

_PATIENCE_S = 3.0
_LAST_S = 0.1  # for threads that have not stopped when we give up
_ROUNDS = 64  # a process that starts threads faster than we stop them
_ASKED_S = 3.0  # for the answer of a supervisor
_RUNS_NS, _MOST_ASKED = 1_000_000, 64
_SEIZES = 4
_RAX, _ORIG_RAX, _SP = 10, 15, 19  # struct user_regs_struct, by word

R = TypeVar("R", bound=Range)
T = TypeVar("T")


class Frozen:
    """A context manager: the process `pid` is stopped inside, and goes on behind it.

    With `one`, only one of its threads is; the thread `leave` is not. Gives up on a thread that
    does not stop within `patience_s` seconds. With `limit_s` this process is killed when it holds
    the other for longer: see `leakscope.target.lease`. Threads of the kernel's own go on.

    Raises `TargetError` when there is no such process or it may not be stopped.
    """

    method = "frozen"
    notes: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()

    def __init__(
        self,
        pid: int,
        *,
        one: bool = False,
        leave: int | None = None,
        patience_s: float = _PATIENCE_S,
        limit_s: float | None = None,
    ) -> None:
        self.pid = pid
        self._one = one
        self._leave = leave
        self._patience_s = patience_s
        self._lease = Lease(limit_s)
        self.threads: tuple[Thread, ...] = ()
        self.raw_mappings = b""
        self.paused_ns = 0
        self.since_ns = 0  # monotonic: when the first thread was stopped
        self._seized: list[int] = []
        self._running: set[int] = set()  # of those: told to stop, and not seen to have done so
        self._calm: set[int] = set()
        self._signals: dict[int, int] = {}  # by thread: taken in a stop, to be delivered
        self._restarted: list[int] = []
        self._sleepers = Sleepers()
        self._filtered: set[int] = set()  # threads under seccomp
        self._workers: set[int] = set()  # the kernel's own
        self._child = pid if is_child(pid) else 0
        self._memory = -1

    def __enter__(self) -> Self:
        tids = thread_ids(self.pid)
        self._sleepers.look(self.pid, tids)
        self._filtered = {tid for tid in tids if is_filtered(self.pid, tid)}
        self._workers = {tid for tid in tids if is_worker(self.pid, tid)}
        self._await_answers(self._filtered, time.monotonic() + _ASKED_S)
        reaper = Reaper(self._seized, needed=len(tids) > 1 and not self._one)
        try:
            with reaper:
                self._lease.__enter__()
                self.since_ns = time.monotonic_ns()
                self._stop_all(reaper)
            others = [*self._seized, *([] if self._leave is None else [self._leave])]
            if others and self.pid not in others:
                # Its first thread has ended: what is shared is looked at through another one.
                self.pid = others[0]
            self.raw_mappings = read_raw_maps(self.pid)
            self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            found = [(tid, register_set(tid, PRSTATUS)) for tid in self._seized]
            # One without has been killed meanwhile: by another one that calls exec, or with all.
            self.threads = tuple(_thread(tid, general) for tid, general in found if general)
            if found and not self.threads:
                raise TargetError(f"process {self.pid} ended while it was being stopped")
        except OSError as error:
            self.release()
            raise _refused(self.pid, error) from error
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @cached_property
    def mappings(self) -> tuple[Mapping, ...]:
        """Its mappings in address order."""
        return parse_maps(self.raw_mappings)

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

    def calm_threads(self) -> list[int]:
        """Return the threads that are not in the middle of a signal or of a stop by their user.

        Those first that are in no system call, those last whose call the kernel alone can restart.
        """
        calm = [tid for tid in self._seized if tid in self._calm]
        return sorted(calm, key=lambda tid: call_rank(general_registers(tid)))

    def split(
        self, ranges: Sequence[R]
    ) -> tuple[Sequence[R], Sequence[tuple[npt.NDArray[np.uint64], int]]]:
        """Return `ranges`: all of them can be read here."""
        return ranges, ()

    @property
    def is_whole(self) -> bool:
        """Whether no other thread of the process runs."""
        try:
            return set(thread_ids(self.pid)) <= set(self._seized)
        except TargetError:
            return False

    @property
    def tids(self) -> tuple[int, ...]:
        """The threads that are stopped."""
        return tuple(self._seized)

    def waited_ns(self, tid: int) -> int:
        """Return how long the thread had slept when it was stopped; 0: not known."""
        return self._sleepers.waited_ns(self.pid, tid)

    def release(self) -> None:
        """Let the process go on. May be called more than once."""
        for tid in self._restarted:
            self._shorten(tid)
        self._restarted = []
        self._await_rest()
        dead = [
            tid
            for tid in self._seized
            if libc.ptrace(DETACH, tid, None, self._signals.get(tid, 0)) < 0
        ]
        if self._seized and not self.paused_ns and not self._running.issuperset(self._seized):
            self.paused_ns = time.monotonic_ns() - self.since_ns
        # Its parent hears of its end when we have, and an exec waits for that of its threads.
        give_up = time.monotonic() + _LAST_S
        while (dead := [tid for tid in dead if not reap(tid)]) and time.monotonic() < give_up:
            time.sleep(0.001)
        self._seized.clear()
        self._lease.__exit__()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _await_answers(self, tids: Iterable[int], give_up: float) -> None:
        """Wait until none of the threads waits for its supervisor. Nothing stands still yet."""
        for tid in tids:
            began = run_ns(self.pid, tid)
            while (found := is_asking(self.pid, tid)) is not False:
                if found and time.monotonic() > give_up:
                    raise _is_asked(self.pid, tid)
                # One that runs, or waits for a processor, may be about to ask. One that has run
                # for a while in one go does something else.
                ran_ns = run_ns(self.pid, tid) - began
                if not found and (ran_ns > _RUNS_NS or time.monotonic() > give_up):
                    break
                began += ran_ns if found else 0
                time.sleep(0.0005)

    def _stop_all(self, reaper: Reaper) -> None:
        give_up = time.monotonic() + self._patience_s
        for number in range(_ROUNDS):
            known = {*self._seized, *self._workers, self._leave}
            fresh = [tid for tid in thread_ids(self.pid) if tid not in known]
            if number:
                fresh = [tid for tid in fresh if not is_worker(self.pid, tid)]
            if len(fresh) > 1 and self.pid in fresh and has_ended(self.pid):
                fresh.remove(self.pid)
            if not fresh or (fresh == [self.pid] and (self._seized or self._leave)):
                return
            if self._one:
                fresh = fresh[:1]
            # One that the kernel does not let stop now holds nobody else up: as long as it waits
            # (the child of its vfork, a disk), all others run.
            busy = [] if self._one else [tid for tid in fresh if is_deep(self.pid, tid)]
            self._stop(busy, reaper, give_up)
            if busy:  # nothing stood still before
                self.since_ns = time.monotonic_ns()
            self._stop([tid for tid in fresh if tid not in busy], reaper, give_up)
            if self._one and self._seized:
                return
        raise TargetError(
            f"process {self.pid} starts threads faster than they can be stopped",
            hint="Try again when it is calmer.",
        )

    def _stop(self, tids: Sequence[int], reaper: Reaper, give_up: float) -> None:
        """Tell all of them to stop, and wait until they do: they stop side by side."""
        for tid in [tid for tid in tids if self._seize(tid, reaper, give_up)]:
            with reaper.may_hang():
                self._await(tid, give_up)

    def _seize(self, tid: int, reaper: Reaper, give_up: float) -> bool:
        """Tell a thread to stop; False when it has ended meanwhile."""
        for left in reversed(range(_SEIZES)):
            with reaper.may_hang():
                if libc.ptrace(SEIZE, tid, None, None) == 0:
                    break
                number = ctypes.get_errno()
            if number == errno.EPERM and is_traced_by(tid, os.getpid()):
                break  # it has called exec, and is known by another number now: ours already
            if number in {errno.ESRCH, errno.EPERM} and is_ending(self.pid, tid):
                if tid == self.pid and not has_others(self.pid):
                    raise TargetError(f"process {self.pid} ended while it was being stopped")
                return False
            if number != errno.EPERM or not left:
                raise OSError(number, os.strerror(number))
            time.sleep(0.001)  # another thread may just get the number of the first, by an exec
        self._seized.append(tid)
        self._running.add(tid)
        if self._is_filtered(tid) and len(self._seized) <= _MOST_ASKED:
            self._await_answers((tid,), give_up)
        if libc.ptrace(INTERRUPT, tid, None, None) < 0:
            self._seized.remove(tid)
            return False
        return True

    def _await_rest(self) -> None:
        """Wait for those that were told to stop and have not: nobody can let go what still runs.

        One that does not stop even so is ours until the calling thread ends: see `apart`.
        """
        give_up = time.monotonic() + _LAST_S
        for tid in [tid for tid in self._seized if tid in self._running]:
            with contextlib.suppress(TargetError):
                self._await(tid, give_up)

    def _await(self, tid: int, give_up: float) -> None:
        status = self._wait(tid, give_up)
        self._running.discard(tid)
        if status is None or not os.WIFSTOPPED(status):  # ended in this moment
            self._seized.remove(tid)
            if tid == self.pid and not has_others(self.pid):
                raise TargetError(f"process {self.pid} ended while it was being stopped")
            return
        # A stop for a signal: hand the signal on when it is let go.
        signal = os.WSTOPSIG(status)
        if status >> 16 == 0 and signal:
            self._signals[tid] = signal
        elif signal == TRAP:
            self._calm.add(tid)
            self._restart(tid)

    def _status(self, tid: int) -> int | None:
        """Return a thread's status as of waitpid(2), None: nothing has happened.

        Raises `ChildProcessError` when it has ended; whose child that is may still ask how.
        """
        if tid != self._child:
            done, status = os.waitpid(tid, ALL | os.WNOHANG)
            return status if done else None
        if found := os.waitid(os.P_PID, tid, os.WSTOPPED | os.WNOHANG | ALL):
            return found.si_status << 8 | 0x7F
        if has_ended(tid):
            raise ChildProcessError
        return None

    def _wait(self, tid: int, give_up: float) -> int | None:
        pause = 0.00001
        while True:
            try:
                status = self._status(tid)
            except ChildProcessError:
                return None
            if status is not None:
                return status
            if time.monotonic() > give_up:
                frozen = freezing_cgroup(self.pid)
                if frozen is not None:
                    raise TargetError(
                        f"process {self.pid} cannot be stopped: the freezer of its cgroup {frozen}"
                        " holds it",
                        hint="Thaw that cgroup, and try again.",
                    )
                raise TargetError(
                    f"thread {tid} of process {self.pid} cannot be stopped: it is inside the kernel",
                    hint=f"/proc/{tid}/wchan and /proc/{tid}/stack tell where; try again later.",
                )
            # The sooner it is seen, the less is lost when we are killed before a call is mended.
            time.sleep(pause)
            pause = min(pause * 1.5, 0.0005)

    def _is_filtered(self, tid: int) -> bool:
        return tid in self._filtered or self.pid in self._filtered

    def _restart(self, tid: int) -> None:
        """Let a system call that the stop has ended go on when the thread does."""
        if platform.machine() != "x86_64":
            return
        words = general_registers(tid)
        is_filtered = self._is_filtered(tid)
        if words and is_restartable(words[_ORIG_RAX], words[_RAX], is_filtered=is_filtered):
            words[_RAX] = no_handler()
            with contextlib.suppress(OSError):  # killed meanwhile
                set_general_registers(tid, words)
                self._restarted.append(tid)
                self._sleepers.confirm(self.pid, tid)

    def _shorten(self, tid: int) -> None:
        """Take from the time-out of a restarted call what has passed of it."""
        words = general_registers(tid)
        if not words or words[_RAX] != no_handler():
            return
        before = list(words)
        memory = shorten(words, self.waited_ns(tid), self.read)
        if memory is not None and not self._write(words[_SP], *memory):
            return
        if words != before:
            with contextlib.suppress(OSError):  # killed meanwhile
                set_general_registers(tid, words)

    def _write(self, stack: int, address: int, data: bytes) -> bool:
        """Write below a stack pointer, in the stack's own mapping; False when it cannot be."""
        if not any(m.start <= address and stack < m.end for m in self.mappings if m.start <= stack):
            return False
        try:
            memory = os.open(f"/proc/{self.pid}/mem", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return os.pwrite(memory, data, address) == len(data)
        except OSError:
            return False
        finally:
            os.close(memory)


def apart(work: Callable[[], T]) -> T:
    """Return what `work` returns, done in a thread that ends with it.

    With that thread the kernel lets go of what it has seized, also of threads that did not stop in
    time, which would otherwise stand still as soon as they can.
    """
    found: list[T] = []
    trouble: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            trouble.append(error)

    thread = threading.Thread(target=run, name="leakscope-apart")
    with terminal_stops_wait():
        thread.start()
        thread.join()
    if trouble:
        raise trouble[0]
    return found[0]


def _is_asked(pid: int, tid: int) -> TargetError:
    return TargetError(
        f"process {pid} is not stopped: a supervisor answers a system call of its thread {tid}"
        " (seccomp), which it would be asked for twice",
        hint="Try again in a moment.",
    )


def _thread(tid: int, general: bytes) -> Thread:
    vector = vector_registers(tid)
    words = np.frombuffer(general[: len(general) // 8 * 8], np.uint64)
    if platform.machine() == "x86_64":
        sp, pc, tls = int(words[19]), int(words[16]), int(words[21])
    else:
        sp, pc = int(words[31]), int(words[32])
        tls = int.from_bytes(register_set(tid, ARM_TLS)[:8], "little")
    more = np.frombuffer(vector[: len(vector) // 8 * 8], np.uint64)
    return Thread(tid, sp, pc, tls, np.concatenate([words, more, words_of_thread(tid)]))


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
