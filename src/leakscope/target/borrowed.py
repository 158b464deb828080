# SPDX-License-Identifier: Apache-2.0
"""A stopped thread that executes system calls for us, and afterwards is as it was.

Whoever borrows may be killed at any moment; the thread then finds its way back by itself. From
before its first register is changed, its stack holds, below the red zone, the frame of a signal
handler with everything that the thread had, and the instruction that each call returns to leads to
rt_sigreturn. A child that it clones starts on a frame of its own, which leads to exit_group.

Nothing may wait with a time-out in a borrowed thread: the kernel has one place per thread to note
how such a wait is restarted, and the program's own may be there.

x86-64 alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from leakscope.errors import TargetError
from leakscope.proc.text import read_text
from leakscope.target.ptrace import (
    ALL,
    CONT,
    EVENT_CLONE,
    EVENT_STOP,
    GETEVENTMSG,
    GETSIGMASK,
    INTERRUPT,
    OPTION_CLONE,
    OPTION_SYSGOOD,
    SETOPTIONS,
    SETSIGMASK,
    SYSCALL,
    general_registers,
    libc,
    restartable_area,
    set_general_registers,
    vector_registers,
)
from leakscope.target.restart import is_interrupted, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from leakscope.target.frozen import Frozen
    from leakscope.target.memory import Memory

__all__ = [
    "Borrowed",
    "Caller",
    "Gadgets",
    "RefusedError",
    "borrow_thread",
    "find_gadgets",
    "has_shadow_stack",
]
__all__ += ["wait_stop"]

# struct user_regs_struct, by word
_R15, _R14, _R13, _R12, _BP, _BX, _R11, _R10, _R9, _R8 = range(10)
_AX, _CX, _DX, _SI, _DI, _ORIG_AX, _IP, _CS, _FLAGS, _SP, _SS = range(10, 21)
_WORDS = 27
_EXIT_SIGNAL = 35  # in /proc/PID/stat, behind the name
_ARGUMENTS = (_DI, _SI, _DX, _R10, _R8, _R9)
_EXIT_GROUP, _WAIT4 = 231, 61
_WCLONE = 0x80000000
_NONE = (1 << 64) - 1
_PATIENCE_S = 5.0
_MOST_TRIED = 16
_RED_ZONE = 128
_SCRATCH = 16384  # bytes below the red zone that a signal's frame may take
_LETTER = 512  # bytes at the lower end of them, for arguments
_SYSCALL_RETURN = b"\x0f\x05\xc3"
# mov $15, %rax (or %eax); syscall
_SIGRETURN = (b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", b"\xb8\x0f\x00\x00\x00\x0f\x05")
_CODE = 16 << 20
_SEQUENCE = 8  # in struct rseq: address of its struct rseq_cs
# Of a frame: arch/x86/include/uapi/asm/sigcontext.h
_UC_FLAGS = 1 | 2 | 4  # there is an XSAVE area; SS is given, and meant
_NO_STACK = 7  # no valid ss_flags: sigreturn leaves the alternative stack as it is
_MAGIC1, _MAGIC2 = 0x46505853, 0x46505845
_UCONTEXT, _LEGACY, _SOFTWARE = 304, 512, 464
_AMX = 3 << 17
_AMX_FREE = ((1 << 9, 2696), (1 << 7, 2688), (1 << 2, 832))  # feature, end of its state: Intel's


class RefusedError(Exception):
    """It cannot be done, and nothing was changed."""


class Gadgets:
    """Addresses of instructions in the target: a system call that returns; a sigreturn."""

    def __init__(self, call: int, sigreturn: int) -> None:
        self.call = call
        self.sigreturn = sigreturn


def find_gadgets(frozen: Memory) -> Gadgets:
    """Find the instructions in the code of the process. Raises `RefusedError`."""
    call = sigreturn = 0
    for mapping in sorted(frozen.mappings, key=_likely, reverse=True):
        # Code of a file alone: what was made at run time may go at any moment.
        if "x" not in mapping.permissions or not mapping.inode:
            continue
        code = frozen.read(mapping.start, min(mapping.end - mapping.start, _CODE))
        at = code.find(_SYSCALL_RETURN)
        if not call and at >= 0:
            call = mapping.start + at
        places = [place for place in map(code.find, _SIGRETURN) if place >= 0]
        if not sigreturn and places:
            sigreturn = mapping.start + places[0]
        if call and sigreturn:
            return Gadgets(call, sigreturn)
    raise RefusedError("no instructions for system calls were found in it")


def _are_there(frozen: Memory, gadgets: Gadgets) -> bool:
    """Whether the instructions, found before the process was stopped, still are where they were."""
    found = frozen.read(gadgets.sigreturn, len(_SIGRETURN[0]))
    is_call = frozen.read(gadgets.call, len(_SYSCALL_RETURN)) == _SYSCALL_RETURN
    return is_call and found.startswith(_SIGRETURN)


def _likely(mapping: object) -> int:
    name = Path(getattr(mapping, "path", "")).name
    return 2 if name.startswith(("libc.", "libc-", "ld-musl")) else 1 if name[:3] == "lib" else 0


class Caller:
    """Executes system calls in a stopped thread that starts from `registers`.

    Every call returns to what the stack pointer `back` leads to.
    """

    def __init__(self, tid: int, gadgets: Gadgets, registers: Sequence[int], back: int) -> None:
        self.tid = tid
        self._gadgets = gadgets
        self._registers = list(registers)
        self._back = back

    def call(self, number: int, *arguments: int) -> tuple[int, int]:
        """Execute a system call; return its result, and the pid that it cloned or 0."""
        self.set(number, *arguments)
        self._ptrace(SYSCALL, None, None)
        self._expect(signal.SIGTRAP | 0x80)  # into the call
        self._ptrace(SYSCALL, None, None)
        status = wait_stop(self.tid)
        cloned = ctypes.c_ulong()
        if status >> 16 == EVENT_CLONE:
            self._ptrace(GETEVENTMSG, None, ctypes.byref(cloned))
            self._ptrace(SYSCALL, None, None)
            self._expect(signal.SIGTRAP | 0x80)  # out of the call
        result = general_registers(self.tid)[_AX]
        return ctypes.c_int64(result).value, int(cloned.value)

    def set(self, number: int, *arguments: int) -> None:
        """Make the thread execute a system call when it goes on."""
        registers = self._at(self._gadgets.call)
        registers[_AX] = number
        for register, value in zip(_ARGUMENTS, (*arguments, 0, 0, 0, 0, 0, 0), strict=False):
            registers[register] = value
        set_general_registers(self.tid, registers)

    def options(self, more: int = 0) -> None:
        """Let it stop for its calls and clones."""
        self._ptrace(SETOPTIONS, None, OPTION_SYSGOOD | OPTION_CLONE | more)

    def end(self) -> None:
        """Let a child exit, and wait for that. Raises `OSError` when it takes too long."""
        self.set(_EXIT_GROUP)
        self._ptrace(CONT, None, None)
        with contextlib.suppress(TargetError):  # that it ended
            wait_stop(self.tid)

    def _at(self, place: int) -> list[int]:
        registers = list(self._registers)
        registers[_IP], registers[_SP], registers[_ORIG_AX] = place, self._back, _NONE
        registers[_AX] = 0
        return registers

    def _expect(self, stop: int) -> None:
        status = wait_stop(self.tid)
        if os.WSTOPSIG(status) != stop:
            raise OSError(0, f"the borrowed thread stopped for {os.WSTOPSIG(status)}")

    def _ptrace(self, request: int, address: object, data: object) -> None:
        if libc.ptrace(request, self.tid, address, data) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


class Borrowed(Caller):
    """A context manager: inside, `call` executes system calls in the thread `tid`.

    Raises `RefusedError` when the thread's stack has no room for its way back.
    """

    def __init__(self, frozen: Frozen, tid: int, gadgets: Gadgets) -> None:
        super().__init__(tid, gadgets, (), 0)
        self._frozen = frozen
        self._memory = -1
        self._mask = ctypes.c_uint64()
        self._saved = b""
        self._scratch = self._child = 0

    @property
    def letter(self) -> int:
        """Address of some bytes for arguments, in the thread's memory."""
        return self._scratch

    def __enter__(self) -> Self:
        self._registers = general_registers(self.tid)
        if len(self._registers) < _WORDS:
            raise RefusedError("one of its threads ended")
        self._leave_sequence()
        self._ptrace(GETSIGMASK, 8, ctypes.byref(self._mask))
        self._memory = os.open(f"/proc/{self.tid}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._prepare()
            # From here on the thread leads back by itself.
            set_general_registers(self.tid, self._at(self._gadgets.call + 2))
            self._ptrace(SETSIGMASK, 8, ctypes.byref(ctypes.c_uint64(_NONE)))
            self.options()
        except BaseException:
            os.close(self._memory)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            set_general_registers(self.tid, self._at(self._gadgets.call + 2))
            # Stop once more where the kernel decides about restarting an interrupted system call:
            # the registers tell it that there was one.
            self._ptrace(INTERRUPT, None, None)
            self._ptrace(CONT, None, None)
            status = wait_stop(self.tid)
            if status >> 16 != EVENT_STOP:
                raise OSError(0, "the borrowed thread did not stop")
            self._ptrace(SETOPTIONS, None, 0)
            self._ptrace(SETSIGMASK, 8, ctypes.byref(self._mask))
            set_general_registers(self.tid, self._registers)
            os.pwrite(self._memory, self._saved, self._scratch)
        finally:
            os.close(self._memory)

    @contextlib.contextmanager
    def undone_by(self, number: int, *arguments: int) -> Iterator[None]:
        """Let the thread make a system call when we die inside, before it goes on.

        Nothing may be cloned inside.
        """
        kept = os.pread(self._memory, _LETTER, self._child)
        words = [0] * _WORDS
        words[_IP], words[_SP], words[_AX] = self._gadgets.call, self._back, number
        for register, value in zip(_ARGUMENTS, arguments, strict=False):
            words[register] = value
        for register in (_CS, _SS):
            words[register] = self._registers[register]
        self._write_frame(self._child, words, _NONE, b"")
        back, self._back = self._back, self._child
        try:
            yield
        finally:
            self._back = back
            # At once: until here the thread would undo it.
            set_general_registers(self.tid, self._at(self._gadgets.call + 2))
            os.pwrite(self._memory, kept, self._child)

    def child(self, tid: int) -> Caller:
        """Return a caller for a child that was cloned here, or by such a child."""
        return Caller(tid, self._gadgets, general_registers(tid), self._child)

    @property
    def child_stack(self) -> int:
        """A stack pointer for a child: when nobody holds it any more, it exits."""
        return self._child

    def write(self, data: bytes) -> int:
        """Put an argument into the thread's memory; returns its address."""
        os.pwrite(self._memory, data[:_LETTER], self.letter)
        return self.letter

    def read_letter(self, size: int) -> bytes:
        """Return what a system call put there."""
        return os.pread(self._memory, size, self.letter)

    def _prepare(self) -> None:
        """Write both frames below the thread's red zone."""
        top = self._registers[_SP] - _RED_ZONE
        self._scratch = (top - _SCRATCH) & ~63
        self._check_stack(top)
        self._saved = os.pread(self._memory, _SCRATCH, self._scratch)
        if len(self._saved) < _SCRATCH:
            raise RefusedError("its stack cannot be read")
        xsave = _xsave(vector_registers(self.tid))
        self._child = self._scratch + _LETTER + 8 & ~15 | 8
        end = [0] * _WORDS
        end[_IP], end[_SP], end[_AX] = self._gadgets.call, self._child, _EXIT_GROUP
        for register in (_CS, _SS):
            end[register] = self._registers[register]
        self._write_frame(self._child, end, _NONE, b"")
        back = self._scratch + 3 * _LETTER + 8
        if back + 8 + _UCONTEXT + 64 + len(xsave) > top - 2 * _RED_ZONE:
            raise RefusedError("its registers need more room than its stack has")
        self._write_frame(back, self._returning(), self._mask.value, xsave)
        self._back = back
        if not _has_clones(self._frozen):
            # When we are gone, the thread itself waits for what it cloned for us. That ends at once.
            reap = [0] * _WORDS
            reap[_IP], reap[_SP], reap[_AX] = self._gadgets.call, back, _WAIT4
            reap[_DI], reap[_DX] = _NONE, _WCLONE
            for register in (_CS, _SS):
                reap[register] = self._registers[register]
            self._back = self._scratch + 2 * _LETTER + 8
            self._write_frame(self._back, reap, _NONE, b"")

    def _leave_sequence(self) -> None:
        """Let a thread in a restartable sequence (rseq) begin that anew, as the kernel would.

        The kernel does so where the thread goes on from there, and not when we give it its
        registers back: it does not know of them.
        """
        area = restartable_area(self.tid)
        place = int.from_bytes(self._frozen.read(area + _SEQUENCE, 8), "little") if area else 0
        raw = self._frozen.read(place, 32) if place else b""
        if len(raw) < 32:
            return
        _, flags, start, length, abort = struct.unpack("<IIQQQ", raw)
        if not 0 <= self._registers[_IP] - start < length:
            return
        if flags:
            raise RefusedError("its threads are in restartable sequences of an unknown kind (rseq)")
        self._registers[_IP] = abort
        set_general_registers(self.tid, self._registers)

    def _check_stack(self, top: int) -> None:
        """Refuse where a signal's frame might lie on something else: a coroutine's small stack.

        The first thread's own is named by the kernel. Another one's has its control block at the
        upper end and its guard below the lower one: in between there is nothing else. One that was
        made in the heap has none, and ends nobody knows where.
        """
        tls = next(t.tls for t in self._frozen.threads if t.tid == self.tid)
        is_first = f"\nTgid:\t{self.tid}\n" in (read_text(f"/proc/{self.tid}/status") or "")
        for below, m in itertools.pairwise(self._frozen.mappings):
            if not (m.start <= self._scratch and top < m.end):
                continue
            is_guarded = below.end == m.start and below.permissions.startswith("---")
            if m.path == "[stack]" or (not is_first and is_guarded and top < tls <= m.end):
                return
        raise RefusedError("no thread is on a stack that is known to have room")

    def _returning(self) -> list[int]:
        """Return the registers with which the thread goes on when we cannot give it its own."""
        registers = list(self._registers)
        if is_interrupted(registers):
            # The kernel would restart the call; here it is done by hand.
            registers[_IP] -= 2
            registers[_AX] = registers[_ORIG_AX]
            extra = shorten(registers, self._frozen.waited_ns(self.tid), self._frozen.read)
            if extra is not None:
                # Where that lies, it stays: the frame is further below.
                os.pwrite(self._memory, extra[1], extra[0])
        return registers

    def _write_frame(self, place: int, words: Sequence[int], mask: int, xsave: bytes) -> None:
        state = (place + 8 + _UCONTEXT + 63) & ~63 if xsave else 0
        order = [_R8, _R9, _R10, _R11, _R12, _R13, _R14, _R15, _DI, _SI, _BP, _BX, _DX, _AX, _CX]
        order += [_SP, _IP, _FLAGS]
        frame = struct.pack("<Q", self._gadgets.sigreturn)
        frame += struct.pack("<QQQQQ", _UC_FLAGS if xsave else _UC_FLAGS & ~1, 0, 0, _NO_STACK, 0)
        frame += struct.pack("<18Q", *(words[each] for each in order))
        segments = words[_CS] & 0xFFFF, 0, 0, words[_SS] & 0xFFFF
        frame += struct.pack("<4H", *segments)
        frame += struct.pack("<4Q", 0, 0, 0, 0)  # err, trapno, oldmask, cr2
        frame += struct.pack("<Q", state) + bytes(64)
        frame += struct.pack("<Q", mask)
        os.pwrite(self._memory, frame, place)
        if xsave:
            os.pwrite(self._memory, xsave, state)


@contextlib.contextmanager
def borrow_thread(frozen: Frozen, gadgets: Gadgets | None = None) -> Iterator[Borrowed]:
    """Yield a thread of the stopped process that executes system calls for us meanwhile.

    `gadgets` are looked for when they are not given. Raises `RefusedError` when there is none that
    can be borrowed: then nothing has changed.
    """
    tids = [tid for tid in frozen.calm_threads() if _is_free(tid)]
    if not tids:
        raise RefusedError(
            "it runs under a seccomp filter, or its threads are stopped for a signal"
        )
    if gadgets is None:
        gadgets = find_gadgets(frozen)
    elif not _are_there(frozen, gadgets):
        raise RefusedError("it runs another program now")
    refused = RefusedError("it has no thread that can be borrowed")
    for tid in tids[:_MOST_TRIED]:
        thread = Borrowed(frozen, tid, gadgets)
        try:
            thread.__enter__()
        except RefusedError as error:
            refused = error
            continue
        try:
            yield thread
        finally:
            thread.__exit__()
        return
    raise refused


def _is_free(tid: int) -> bool:
    status = read_text(f"/proc/{tid}/status") or ""
    return "\nSeccomp:\t0" in status and not has_shadow_stack(tid)


def wait_stop(tid: int, patience_s: float = _PATIENCE_S) -> int:
    """Wait until a traced thread stops; return its status. Raises `TargetError`, `OSError`."""
    end = time.monotonic() + patience_s
    while True:
        try:
            done, status = os.waitpid(tid, ALL | os.WNOHANG)
        except ChildProcessError:
            raise TargetError("the process ended while its image was taken") from None
        if done:
            if not os.WIFSTOPPED(status):
                raise TargetError("the process ended while its image was taken")
            return status
        if time.monotonic() > end:
            raise OSError(0, "its fork takes too long")
        time.sleep(0.00002)


def _has_clones(frozen: Frozen) -> bool:
    """Whether the process has children that end without SIGCHLD, so that waits tell them apart."""
    for tid in frozen.tids:
        for child in (read_text(f"/proc/{frozen.pid}/task/{tid}/children") or "").split():
            fields = (read_text(f"/proc/{child}/stat") or "").rpartition(")")[2].split()
            if len(fields) > _EXIT_SIGNAL and fields[_EXIT_SIGNAL] != str(int(signal.SIGCHLD)):
                return True
    return False


def has_shadow_stack(tid: int) -> bool:
    """Whether returns are checked against a second stack, which we do not know."""
    status = read_text(f"/proc/{tid}/status") or ""
    return "shstk" in status.partition("x86_Thread_features:")[2].partition("\n")[0]


def _xsave(state: bytes) -> bytes:
    """Turn what ptrace gives into what sigreturn takes: the same, with sizes and magic words."""
    if len(state) <= _LEGACY + 64:
        raise RefusedError("its vector registers cannot be kept")
    (features,) = struct.unpack_from("<Q", state, _SOFTWARE)
    size = len(state)
    if features & _AMX:
        # A thread has no room for tiles until it uses them, and sigreturn wants its own size.
        if struct.unpack_from("<Q", state, _LEGACY)[0] & _AMX:
            raise RefusedError("its matrix registers cannot be kept")
        features &= ~_AMX
        size = next(end for bit, end in _AMX_FREE if features & bit)
    software = struct.pack("<IIQI", _MAGIC1, size + 4, features, size).ljust(48, b"\0")
    return state[:_SOFTWARE] + software + state[_SOFTWARE + 48 : size] + struct.pack("<I", _MAGIC2)
