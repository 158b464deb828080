# SPDX-License-Identifier: Apache-2.0
"""Start one program and wait for it, without getting in its way.

The program keeps our terminal, process group, standard streams, signal mask, and the signals that
our parent left ignored. A signal that was sent to us alone is passed on to it; one
that the terminal sent to the whole foreground group has reached it already. Stopping (Ctrl-Z) and continuing stay as they were,
because nothing here touches SIGTSTP, SIGCONT or the foreground group.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from leakscope import _native
from leakscope.errors import TargetError
from leakscope.proc.dispositions import ignored_by_parent
from leakscope.proc.process import read_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Child"]

_PASSED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_SI_KERNEL = 0x80  # si_code of signals that the terminal sends to a process group
_POLL_SECONDS = 0.2


class Child:
    """A program, started by `start` and awaited by `wait`.

    Signals for the program are blocked in the calling thread in between, so that none is
    lost and none ends us first. `received` lists those that came.

    `directory` is where it starts, absolute; None: where we are. With `own_group` it leads a process
    group of its own, which can be ended as a whole; what the terminal sends is then passed on.
    `streams` are descriptors that become its 0, 1 and 2; None keeps ours.
    """

    def __init__(
        self,
        path: str,
        arguments: Sequence[str],
        extra_signals: Iterable[int],
        *,
        directory: str | None = None,
        own_group: bool = False,
        streams: Sequence[int | None] = (),
    ) -> None:
        self._path, self._arguments = path, list(arguments)
        self._directory, self._own_group = directory or "", own_group
        self._streams = [
            (os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams) if fd is not None
        ]
        self._signals = {*map(int, _PASSED_ON), *extra_signals, int(signal.SIGCHLD)}
        # Only the main thread is sure to be where signals for the process arrive.
        self._main = threading.current_thread() is threading.main_thread()
        self._mask: set[int | signal.Signals] = set()
        self.pid = 0
        self.status: int | None = None  # as os.waitstatus_to_exitcode: negative for a signal
        self.received: list[int] = []
        self.last_name = ""  # what it called itself at its end, at most 15 characters

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the program. Raises `TargetError` when the kernel will not."""
        block = self._signals if self._main else ()
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, block)
        try:
            self.pid = self._spawn(dict(environment))
        except OSError as error:
            raise TargetError(f"cannot start {self._path}: {_reason(error)}") from error
        finally:
            if not self.pid:
                self._unblock()

    def _spawn(self, environment: dict[str, str]) -> int:
        """Start it by way of a helper: posix_spawn cannot let signals be ignored that we do not.

        (And glibc's leaves two of its own ignored.) Without the helper, the best that it can.
        """
        ignored = ignored_by_parent()
        helper = _native.path(_native.EXEC)
        group: Any = {"setpgroup": 0} if self._own_group else {}
        if not os.access(helper, os.X_OK):
            if self._directory:
                raise TargetError(
                    f"{helper} is missing, without which no program can start in another directory",
                    hint="Install leakscope again.",
                )
            defaults = {signal.SIGPIPE, signal.SIGXFSZ} - ignored
            return os.posix_spawn(
                self._path,
                self._arguments,
                environment,
                file_actions=self._streams,
                setsigmask=self._mask,
                setsigdef=defaults,
                **group,
            )
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            mask = sum(1 << (number - 1) for number in ignored)
            pid = os.posix_spawn(
                helper,
                [
                    helper.name,
                    str(writing),
                    f"{mask:x}",
                    self._directory,
                    self._path,
                    *self._arguments,
                ],
                environment,
                # Open after exec in this child alone: what another thread starts at this moment
                # must not inherit it, for we wait until everybody has closed it.
                file_actions=[*self._streams, (os.POSIX_SPAWN_DUP2, writing, writing)],
                setsigmask=self._mask,
                **group,
            )
        finally:
            os.close(writing)
            with os.fdopen(reading, "rb") as answer:
                refused = answer.read(4)
        if refused:
            os.waitpid(pid, 0)
            number = int.from_bytes(refused, sys.byteorder)
            raise OSError(number, os.strerror(number))
        return pid

    def kill(self, number: int) -> bool:
        """Send a signal to the program, or to all of its process group when it leads one.

        `number` 0 sends nothing. Returns whether somebody was there.
        """
        try:
            if self._own_group:
                os.killpg(self.pid, number)
            elif self.status is None:
                os.kill(self.pid, number)
        except ProcessLookupError:
            self._own_group = False  # its number may soon be another's
            return False
        except PermissionError:
            return False
        return True

    def wait(self, tick: Callable[[], None]) -> int:
        """Wait for the program's end, calling `tick` a few times a second.

        Returns the exit status, or minus the signal that killed it.
        """
        descriptor = os.pidfd_open(self.pid)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        try:
            # A thread of ours may have stopped the program by ptrace: waiting for it before it
            # has ended would take that thread's stops away.
            while not (poll.poll(0) and self._ended()):
                if self._main:
                    self._take_signal()
                else:
                    poll.poll(_POLL_SECONDS * 1000)
                tick()
        finally:
            os.close(descriptor)
            self._unblock()
        assert self.status is not None
        return self.status

    def _unblock(self) -> None:
        if not self._main:
            return
        # What arrived together with the program's end was meant for it, not for us.
        while (info := signal.sigtimedwait(self._signals, 0)) is not None:
            if info.si_signo in self._signals and info.si_signo != signal.SIGCHLD:
                self.received.append(info.si_signo)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _ended(self) -> bool:
        try:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self.pid, options) is not None:
                self.last_name = read_name(self.pid)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody set SIGCHLD to be ignored: nothing is known
            raise TargetError(
                f"the exit status of process {self.pid} was taken by somebody else",
                hint="Set SIGCHLD to its default action before calling this.",
            ) from None
        if pid:
            self.status = os.waitstatus_to_exitcode(status)
        return bool(pid)

    def _take_signal(self) -> None:
        info = signal.sigtimedwait(self._signals, _POLL_SECONDS)
        # (After a stop that outlasted the wait, Python returns what it had no signal for.)
        if info is None or info.si_signo not in self._signals or info.si_signo == signal.SIGCHLD:
            return
        self.received.append(info.si_signo)
        if info.si_code != _SI_KERNEL or self._own_group:
            self.kill(info.si_signo)


def _reason(error: OSError) -> str:
    if error.errno == errno.E2BIG:
        return "the arguments and environment are too long"
    if error.errno == errno.ENOEXEC:
        return "the kernel does not know its format"
    return error.strerror or str(error)
