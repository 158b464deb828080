# SPDX-License-Identifier: Apache-2.0
"""System calls that a stop would end with EINTR, or prolong: made to go on as if nothing had been.

The kernel restarts most interrupted calls by itself. Some answer EINTR to whatever wakes them:
epoll_wait, semtimedop, sigtimedwait, io_getevents, recv with SO_RCVTIMEO (signal(7)). In a thread
that is stopped, the result is turned into the one by which the kernel itself says "restart unless a
handler runs": a signal with a handler ends the call with EINTR as ever.

A call that is restarted waits its whole time-out again. How long it has waited is known from when
the thread last ran (/proc/TID/sched), and its time-out is made so much shorter, in its register;
a `struct timespec` is not touched, a shorter one is put below the red zone of the thread's stack,
where the kernel reads it at once and a signal's frame may lie at any time. A time-out in a
socket's option is nobody's argument: such a call may wait twice as long as it asked for.
"""

from __future__ import annotations

import contextlib
import os
import platform
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leakscope.proc.text import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Sleepers", "call_rank", "is_interrupted", "is_restartable", "no_handler", "shorten"]

# linux/errno.h: never seen by a program
_NO_HANDLER, _RESTARTED = -514, {-512, -513, -514, -516}
_RESTART_BLOCK = -516
_EINTR = -4
_CLOSE = 3  # its descriptor is gone, whatever it answers: never twice
# struct user_regs_struct, by word
_R10, _R9, _R8, _RDX, _RSI, _RDI, _SP = 7, 8, 9, 12, 13, 14, 19
_RAX, _ORIG_RAX = 10, 15
_EPOLL_WAIT, _EPOLL_PWAIT, _POLL = 232, 281, 7
_FUTEX, _FUTEX_WAIT, _CLOCK_NANOSLEEP, _IO_URING_ENTER = 202, (0, 128), 230, 426
_MILLISECONDS = {_EPOLL_WAIT: _R10, _EPOLL_PWAIT: _R10, _POLL: _RDX}
_TIMESPEC = {
    220: _R10,  # semtimedop
    128: _RDX,  # rt_sigtimedwait
    208: _R8,  # io_getevents
    333: _R8,  # io_pgetevents
    299: _R8,  # recvmmsg
    441: _R10,  # epoll_pwait2
    35: _RDI,  # nanosleep
}
_LEFT = {35: _RSI, _CLOCK_NANOSLEEP: _R10}
_RED_ZONE, _ROOM = 128, 128
_SECOND = 1_000_000_000
_MOST_THREADS = 2000


def is_interrupted(words: list[int]) -> bool:
    """Whether these are the registers of a thread in a system call that is to be restarted."""
    number, result = words[_ORIG_RAX], words[_RAX]
    is_call = _signed(number) >= 0
    return is_call and (_signed(result) in _RESTARTED or is_restartable(number, result))


def call_rank(words: list[int]) -> int:
    """Return 0 for registers in no system call, 2 where the kernel notes how to restart it, or 1."""
    if not words or _signed(words[_ORIG_RAX]) < 0:
        return 0
    return 2 if _signed(words[_RAX]) == _RESTART_BLOCK else 1


def is_restartable(number: int, result: int, *, is_filtered: bool = False) -> bool:
    """Whether these registers say that the stop, or a signal, has just ended a call with EINTR.

    Or, in a thread `is_filtered`, with a result for which the kernel calls restart_syscall: its
    filter may kill it for that, and has let the call itself pass.
    """
    ended = {_EINTR, _RESTART_BLOCK} if is_filtered else {_EINTR}
    return _signed(result) in ended and _signed(number) >= 0 and number != _CLOSE


@dataclass(frozen=True, slots=True)
class Sleep:
    """When a thread last ran, and where, by the clock of that processor."""

    since_ms: float
    cpu: int
    switches: int


@dataclass(slots=True)
class Sleepers:
    """Since when the threads of a process sleep, looked at before they are stopped."""

    _found: dict[int, Sleep] = field(default_factory=dict)
    # By processor: its clock in ms, and when that was read. To read it we have to run there, which
    # may take long where a real-time program does: never while the process stands still.
    _clocks: dict[int, tuple[float, int]] = field(default_factory=dict)
    _slept: dict[int, bool] = field(default_factory=dict)

    def look(self, pid: int, tids: Iterable[int]) -> None:
        """Remember when each of them last ran; those that run have no such time."""
        if platform.machine() != "x86_64":
            return
        for tid in list(tids)[:_MOST_THREADS]:
            stat = (read_text(f"/proc/{pid}/task/{tid}/stat") or "").rpartition(")")[2].split()
            if len(stat) > 36 and stat[0] == "S":
                found = _sleep(pid, tid, int(stat[36]))
                if found is not None:
                    self._found[tid] = found
        for cpu in {found.cpu for found in self._found.values()}:
            self._clocks[cpu] = _clock_of(cpu), time.monotonic_ns()

    def confirm(self, pid: int, tid: int) -> bool:
        """Whether the thread, just stopped, was asleep in one go since it was looked at."""
        before = self._found.get(tid)
        if before is None:
            return False
        if tid not in self._slept:
            after = _sleep(pid, tid, 0)
            # One wait since: that of the stop. Otherwise it woke, and may be in another call.
            self._slept[tid] = after is not None and after.switches == before.switches + 1
        return self._slept[tid]

    def waited_ns(self, pid: int, tid: int) -> int:
        """Return how long the stopped thread has waited; 0 when that is not known.

        Never more than that: clocks of processors differ, so it is read where the thread ran.
        """
        if not self.confirm(pid, tid):
            return 0
        before = self._found[tid]
        clock_ms, read_ns = self._clocks[before.cpu]
        if not clock_ms:
            return 0
        return max(0, int((clock_ms - before.since_ms) * 1e6) + time.monotonic_ns() - read_ns)


def shorten(
    words: list[int], waited_ns: int, read: Callable[[int, int], bytes]
) -> tuple[int, bytes] | None:
    """Make the time-out of a call in registers shorter by `waited_ns`.

    Returns memory that is to be written for it, its address and bytes, if any. `read` reads the
    thread's memory. Absolute and endless time-outs stay as they are.
    """
    number = words[_ORIG_RAX]
    if waited_ns <= 0:
        return None
    place = (words[_SP] - _RED_ZONE - _ROOM) & ~15
    if number in _MILLISECONDS:
        register = _MILLISECONDS[number]
        left = words[register] & 0xFFFFFFFF
        if left < 1 << 31:  # negative: without end
            words[register] = max(0, left - waited_ns // 1_000_000)
        return None
    pointer = _TIMESPEC.get(number)
    if number == _FUTEX and words[_RSI] in _FUTEX_WAIT:
        pointer = _R10
    if number == _CLOCK_NANOSLEEP and not words[_RSI] & 1:  # TIMER_ABSTIME
        pointer = _RDX
    if pointer is not None:
        # Where the call says what is left it has done so, perhaps where it was told how long.
        rest = words[_LEFT[number]] if number in _LEFT else 0
        time, since_ns = (rest, 0) if rest else (words[pointer], waited_ns)
        shorter = _shorter(read(time, 16), since_ns) if time else b""
        if shorter:
            words[pointer] = place
            return place, shorter
    # IORING_ENTER_EXT_ARG, and neither an absolute time nor a registered argument
    if number == _IO_URING_ENTER and words[_R10] & 0x68 == 8 and words[_R9] == 24:
        argument = read(words[_R8], 24)
        at = int.from_bytes(argument[16:], "little") if len(argument) == 24 else 0
        shorter = _shorter(read(at, 16), waited_ns) if at else b""
        if shorter:
            words[_R8] = place
            return place, argument[:16] + struct.pack("<Q", place + 32) + bytes(8) + shorter
    return None


def _shorter(time: bytes, waited_ns: int) -> bytes:
    if len(time) < 16:
        return b""
    seconds, nanoseconds = struct.unpack("<qq", time)
    if seconds < 0 or not 0 <= nanoseconds < _SECOND:
        return b""
    left = max(0, seconds * _SECOND + nanoseconds - waited_ns)
    return struct.pack("<qq", *divmod(left, _SECOND))


def _sleep(pid: int, tid: int, cpu: int) -> Sleep | None:
    text = read_text(f"/proc/{pid}/task/{tid}/sched") or ""
    since = _value(text, "se.exec_start")
    switches = _value(text, "nr_voluntary_switches")
    return None if since is None or switches is None else Sleep(since, cpu, int(switches))


def _value(text: str, name: str) -> float | None:
    at = text.find(f"\n{name} ")
    if at < 0:
        return None
    try:
        return float(text[at + 1 :].partition("\n")[0].partition(":")[2])
    except ValueError:
        return None


def _clock_of(cpu: int) -> float:
    """Return that processor's clock, in ms, up to a tick behind; 0.0 when it is not for us."""
    try:
        usual = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpu})
    except OSError:
        return 0.0
    try:
        text = read_text("/proc/thread-self/sched") or ""
        return _value(text, "se.exec_start") or 0.0
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, usual)


def no_handler() -> int:
    """Return the result that restarts a call unless a handler runs, as a register holds it."""
    return _NO_HANDLER & (1 << 64) - 1


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
