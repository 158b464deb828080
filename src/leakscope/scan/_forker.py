# SPDX-License-Identifier: Apache-2.0
"""Make a process fork a copy of itself that never runs: the image that a scan reads.

Runs as a process of its own, started by `scan/forked.py` with the pid as its argument, so that
whoever kills the scanner does not kill this in the middle: a thread of the target then executes
a system call that is not its own. Writes one line of JSON, keeps the copy until standard input ends, and
then removes it, from the target's list of children too.

The copy is made by clone with no exit signal: the target gets no SIGCHLD, and its wait does
not see it. Not done, with the reason as an answer: when a seccomp filter could kill the target
for a clone, when some of its memory is kept from children, on other machines than x86-64.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any, Self

from leakscope.errors import TargetError
from leakscope.proc.maps import Mapping, read_maps
from leakscope.scan.frozen import Frozen, libc

_CONT, _KILL_TIMEOUT_S = 7, 5.0
_PATIENCE_S = 300.0  # a target that is stopped by a signal can forget nothing; nobody waits for us
_GETREGS, _SETREGS, _SYSCALL = 12, 13, 24
_SETOPTIONS, _GETEVENTMSG, _INTERRUPT = 0x4200, 0x4201, 0x4207
_GETSIGMASK, _SETSIGMASK = 0x420A, 0x420B
_SYSGOOD, _TRACECLONE, _EXITKILL = 1, 8, 1 << 20
_EVENT_CLONE, _EVENT_STOP = 3, 128
_ALL = 0x40000000  # __WALL
_WORDS = 27  # struct user_regs_struct
_R10, _R8, _RAX, _RDX, _RSI, _RDI, _ORIG_RAX, _RIP = 7, 9, 10, 12, 13, 14, 15, 16
_CLONE, _WAIT4 = 56, 61
_SYSCALL_CODE = b"\x0f\x05"
_NONE = (1 << 64) - 1


class _RefusedError(Exception):
    """No image can be made, and nothing was changed."""


def main() -> None:
    """Serve one scan."""
    # Ctrl-C in the terminal is for the scanner; we end when its end of the pipe closes.
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    pid, image = int(sys.argv[1]), 0
    answer: dict[str, Any]
    try:
        with Frozen(pid) as frozen:
            image = _fork(frozen)
            answer = {
                "threads": [
                    [t.tid, t.sp, t.pc, t.tls, base64.b64encode(t.words.tobytes()).decode()]
                    for t in frozen.threads
                ]
            }
        answer |= {"image": image, "paused_ns": frozen.paused_ns}
    except _RefusedError as error:
        answer = {"refused": str(error)}
    except TargetError as error:
        answer = {"error": str(error), "hint": error.hint}
    except OSError as error:
        answer = {"refused": f"{error.strerror}"}
    try:
        os.write(1, json.dumps(answer).encode() + b"\n")
        while image and os.read(0, 4096):
            pass
    except OSError:
        pass
    if image:
        _remove(pid, image)


def _fork(frozen: Frozen) -> int:
    """Let a stopped thread of the target clone; return the pid of the copy, stopped and ours."""
    if platform.machine() != "x86_64":
        raise _RefusedError("it can be done on x86-64 alone")
    tid = frozen.calm_thread()
    if tid is None:
        raise _RefusedError("all its threads are stopped for a signal")
    status = Path(f"/proc/{tid}/status").read_text(encoding="utf-8", errors="replace")
    if "\nSeccomp:\t0" not in status:
        raise _RefusedError("it runs under a seccomp filter")
    place = _find_syscall(frozen)
    began = time.monotonic()
    with _Borrowed(tid, place) as thread:
        result, image = thread.call(_CLONE, 0)
        if image:
            _wait(image, began)
            libc.ptrace(_SETOPTIONS, image, None, _EXITKILL)
    if not image:
        raise _RefusedError(f"its fork failed: {os.strerror(-result & 0xFFF)}")
    missing = _missing(frozen.mappings, read_maps(image))
    if missing:
        _kill(image)
        with _Borrowed(tid, place) as thread:
            thread.call(_WAIT4, image)
        raise _RefusedError(f"{missing:,} bytes of its memory are kept from children")
    return image


def _find_syscall(frozen: Frozen) -> int:
    for mapping in frozen.mappings:
        if mapping.path == "[vdso]" or (
            "x" in mapping.permissions and Path(mapping.path).name.startswith(("libc", "ld-"))
        ):
            at = frozen.read(mapping.start, mapping.end - mapping.start).find(_SYSCALL_CODE)
            if at >= 0:
                return mapping.start + at
    raise _RefusedError("no system call instruction was found in it")


def _missing(ours: tuple[Mapping, ...], copy: tuple[Mapping, ...]) -> int:
    """Bytes of writable memory that the copy lacks (MADV_DONTFORK)."""
    spans = {m.start: m.end for m in copy if "w" in m.permissions}
    return sum(
        m.end - m.start for m in ours if "w" in m.permissions and spans.get(m.start, 0) < m.end
    )


class _Borrowed:
    """A stopped thread that executes system calls for us, and afterwards is as it was."""

    def __init__(self, tid: int, place: int) -> None:
        self.tid = tid
        self._place = place
        self._registers = (ctypes.c_uint64 * _WORDS)()
        self._mask = ctypes.c_uint64()

    def __enter__(self) -> Self:
        self._ptrace(_GETREGS, None, ctypes.byref(self._registers))
        self._ptrace(_GETSIGMASK, 8, ctypes.byref(self._mask))
        self._ptrace(_SETSIGMASK, 8, ctypes.byref(ctypes.c_uint64(_NONE)))
        self._ptrace(_SETOPTIONS, None, _SYSGOOD | _TRACECLONE)
        return self

    def __exit__(self, *_: object) -> None:
        self._ptrace(_SETREGS, None, ctypes.byref(self._registers))
        # Stop once more where the kernel decides about restarting an interrupted system call:
        # the registers tell it that there was one.
        self._ptrace(_INTERRUPT, None, None)
        self._ptrace(_CONT, None, None)
        status = _wait(self.tid, time.monotonic())
        if status >> 16 != _EVENT_STOP:
            raise OSError(0, "the borrowed thread did not stop")
        self._ptrace(_SETREGS, None, ctypes.byref(self._registers))
        self._ptrace(_SETOPTIONS, None, 0)
        self._ptrace(_SETSIGMASK, 8, ctypes.byref(self._mask))

    def call(self, number: int, argument: int) -> tuple[int, int]:
        """Return the result of a system call with one argument, and the pid it cloned or 0."""
        registers = type(self._registers)(*self._registers)
        registers[_RAX], registers[_RIP], registers[_ORIG_RAX] = number, self._place, _NONE
        registers[_RDI] = argument
        registers[_RSI] = registers[_R10] = registers[_R8] = 0
        registers[_RDX] = _ALL | os.WNOHANG if number == _WAIT4 else 0
        self._ptrace(_SETREGS, None, ctypes.byref(registers))
        self._ptrace(_SYSCALL, None, None)
        self._expect(signal.SIGTRAP | 0x80)  # into the call
        self._ptrace(_SYSCALL, None, None)
        status = _wait(self.tid, time.monotonic())
        cloned = ctypes.c_ulong()
        if status >> 16 == _EVENT_CLONE:
            self._ptrace(_GETEVENTMSG, None, ctypes.byref(cloned))
            self._ptrace(_SYSCALL, None, None)
            self._expect(signal.SIGTRAP | 0x80)  # out of the call
        self._ptrace(_GETREGS, None, ctypes.byref(registers))
        return ctypes.c_int64(registers[_RAX]).value, int(cloned.value)

    def _expect(self, stop: int) -> None:
        status = _wait(self.tid, time.monotonic())
        if os.WSTOPSIG(status) != stop:
            raise OSError(0, f"the borrowed thread stopped for {os.WSTOPSIG(status)}")

    def _ptrace(self, request: int, address: object, data: object) -> None:
        if libc.ptrace(request, self.tid, address, data) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _wait(tid: int, began: float) -> int:
    while True:
        done, status = os.waitpid(tid, _ALL | os.WNOHANG)
        if done:
            if not os.WIFSTOPPED(status):
                raise TargetError("the process ended while its image was taken")
            return status
        if time.monotonic() - began > 60:
            raise OSError(0, "its fork takes too long")
        time.sleep(0.0001)


def _kill(image: int) -> None:
    os.kill(image, signal.SIGKILL)
    end = time.monotonic() + _KILL_TIMEOUT_S
    while time.monotonic() < end:
        try:
            done, status = os.waitpid(image, _ALL | os.WNOHANG)
        except ChildProcessError:
            return
        if done and not os.WIFSTOPPED(status):
            return
        time.sleep(0.0005)


def _remove(pid: int, image: int) -> None:
    """Kill the copy, and let the target forget it: nobody else may wait for its child."""
    _kill(image)
    end, pause = time.monotonic() + _PATIENCE_S, 0.02
    while not _is_forgotten(pid, image) and time.monotonic() < end:
        time.sleep(pause)
        pause = min(pause * 1.5, 2.0)


def _is_forgotten(pid: int, image: int) -> bool:
    """Let the target wait for its dead copy; False when that cannot be done just now."""
    try:
        with Frozen(pid, one=True) as frozen:
            tid = frozen.calm_thread()
            if tid is None:
                return False
            with _Borrowed(tid, _find_syscall(frozen)) as thread:
                return thread.call(_WAIT4, image)[0] != 0
    except (OSError, TargetError):
        # Another scan or a debugger has it; or it is gone, and init has taken the copy.
        return not Path(f"/proc/{pid}").exists()
    except _RefusedError:
        return True


if __name__ == "__main__":
    main()
