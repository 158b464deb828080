# SPDX-License-Identifier: Apache-2.0
"""Meet traced processes right before they end, while their memory is still there.

The agent in a process connects to a socket of ours and waits: each byte is a sign of life,
closing the connection lets the process end. When leakscope dies, the connection closes with
it; when it is stopped, the agent soon waits no longer and removes the socket's path, so that the
processes after it do not even begin to.

A process that may make no system call waits for a word of its recording to change instead, which
is why those are looked at.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import LeakscopeError
from leakscope.model.reachability import Reachability
from leakscope.proc.process import read_resident
from leakscope.recording.layout import FAREWELL_DONE, FAREWELL_TAKEN, FAREWELL_WAITS
from leakscope.recording.mapped import as_in
from leakscope.recording.walked import with_unseen, without_freed
from leakscope.recording.writer import find_writer, own_namespace
from leakscope.trace._glance import Glance
from leakscope.trace.live_files import LiveFile, list_live_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from leakscope.model.recordings import Recording

    Examine = Callable[["Farewell"], AbstractContextManager[Callable[[], Recording | None]]]

__all__ = ["Examination", "Farewell", "Farewells", "with_reachability"]

_MESSAGE = 1024  # bytes: the recording's path and the numbers of a Farewell
_PARTS = 7  # each ends with a zero byte
_PATIENCE_S = 1.0  # for the message: it is sent right after the connection
_AT_ONCE = min(4, max(2, os.cpu_count() or 2))  # each holds a copy of a table of blocks
_QUEUE_S = 1.0  # that a process may wait until its examination begins
_BEAT_S = 0.5  # between signs of life; the agent gives up after two seconds without
_LIMIT_S = 10.0  # that a process may wait in all, and a second more for each
_LIMIT_BYTES = 64 << 20  # bytes that it has in memory,
_LONGEST_S = 55.0  # up to so much
_BACKLOG = 512
_BRIEF_NS = 100_000_000  # the life of a forked child that is examined only while there is time:
_BRIEF_S = 2.0  # so much for all such children,
_BRIEF_SHARE = 0.1  # and of the time that the run has taken
_LOOK_S = 0.03  # between two looks at the recordings,
_LOOK_SHARE = 20  # and so many times as long as a look takes
_SEALED_BEAT_S = 0.1
_NO_TIME = "leakscope was stopped or had no time"
_JUST_NOW_S = 0.25
_HELD = (Reachability.REACHABLE, Reachability.POSSIBLY_LOST, Reachability.FREED)
_LONGEST = 107  # bytes of a socket's path


@dataclass(frozen=True, slots=True)
class Farewell:
    """A process that is about to end."""

    pid: int
    path: Path  # its live recording
    tid: int  # the thread that ends it, in the process's own namespace
    stack_end: int  # where that thread's stack ends; 0: at its stack pointer
    signal_stack: int  # its alternate signal stack, which the kernel alone may know of
    sp: int  # its stack pointer; registers of the program are above it
    tls: int  # its thread pointer


@dataclass(frozen=True, slots=True)
class Examination:
    """How processes are examined.

    `begin` is given a process and holds it still inside its context, whose value is called for
    the recording with the reachability of its blocks, or None when there is nothing to learn.
    `prepare` is called once, early, while nobody waits.
    """

    begin: Examine
    prepare: Callable[[], None]


class Farewells:
    """A socket, and what was found out about the processes that came to it."""

    def __init__(self, directory: Path, examination: Examination) -> None:
        self._directory, self._examination = directory, examination
        self._home: Path | None = None
        self._path = ""
        self._stopping = threading.Event()
        self._turns = threading.Semaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._found: dict[Path, Recording] = {}
        self._open: dict[socket.socket, float] = {}  # the time at which each is let go
        self._since: dict[socket.socket, float] = {}  # … and since when it waits
        self._began = time.monotonic()
        self._brief_s = 0.0  # spent on children that lived briefly
        self._sealed: dict[LiveFile, float] = {}  # the same of those that make no system call
        self._missed: dict[str, int] = {}  # processes by the reason why they were not examined
        self._notes: list[str] = []

    @property
    def notes(self) -> list[str]:
        """What the user should know of processes that were not examined."""
        with self._lock:
            counted = [
                f"{count:,} process(es) not scanned: {reason}"
                for reason, count in self._missed.items()
            ]
            return [*self._notes, *counted]

    @property
    def busy(self) -> bool:
        """Whether a process waits for its examination, or is being examined."""
        with self._lock:
            return bool(self._open or self._sealed)

    def start(self) -> str | None:
        """Listen; return the socket's path for LEAKSCOPE_SCAN, None when that is not possible."""
        try:
            self._home = Path(tempfile.mkdtemp(prefix="leakscope-"))
            self._path = os.fspath(self._home / "scan")
            if len(os.fsencode(self._path)) > _LONGEST:
                self._home.rmdir()
                self._home = Path(tempfile.mkdtemp(prefix="leakscope-", dir="/tmp"))
                self._path = os.fspath(self._home / "scan")
            listener = self._listen()
            if os.geteuid() == 0:  # a program of root's may be another user's by then
                self._home.chmod(0o711)
        except OSError as error:
            self._notes.append(f"no reachability scan: no socket could be made ({error.strerror})")
            self.stop()
            return None
        # A signal for us must find the thread that waits for it, never one of these.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            for work, arguments in (
                (self._accept, (listener,)),
                (self._beat, ()),
                (self._look, ()),
                (self._examination.prepare, ()),
            ):
                threading.Thread(target=work, args=arguments, daemon=True).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self._path

    def stop(self) -> None:
        """Close the socket; processes that end later are not met."""
        was_stopping = self._stopping.is_set()
        self._stopping.set()
        if self._home is not None:
            if not was_stopping and self._path and not os.path.lexists(self._path):
                self._miss(_NO_TIME)
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def take(self, path: Path) -> Recording | None:
        """Return, once, what was found out about the process with this live recording."""
        with self._lock:
            return self._found.pop(path, None)

    def lost_nothing(self, path: Path) -> bool:
        """Whether all blocks of this live recording were searched and something points to each.

        Then what was found out is given up.
        """
        with self._lock:
            found = self._found.get(path)
            kinds = None if found is None else found.reachability
            if kinds is None or not np.isin(kinds, _HELD).all():
                return False
            del self._found[path]
            return True

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(self._path)
            if os.geteuid() == 0:
                Path(self._path).chmod(0o777)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        return listener

    def _look(self) -> None:
        """Meet those that may make no system call."""
        pause = _LOOK_S
        while not self._stopping.wait(pause):
            begun = time.monotonic()
            with contextlib.suppress(LeakscopeError):
                for file in list_live_files(self._directory):
                    with contextlib.suppress(LeakscopeError):
                        if file.field("farewell") == FAREWELL_WAITS and file.started():
                            file.put("farewell", FAREWELL_TAKEN)
                            threading.Thread(
                                target=self._meet_sealed, args=(file,), daemon=True
                            ).start()
            pause = max(_LOOK_S, (time.monotonic() - begun) * _LOOK_SHARE)

    def _meet_sealed(self, file: LiveFile) -> None:
        done = threading.Event()
        pid = file.writer()
        with self._lock:
            self._sealed[file] = time.monotonic()
        try:
            if pid is not None:
                until = time.monotonic() + _limit(pid)
                threading.Thread(target=_beat_sealed, args=(file, done, until), daemon=True).start()
                farewell = Farewell(
                    pid,
                    file.path,
                    file.field("farewell_tid") or file.pid,
                    file.field("farewell_stack_end"),
                    0,
                    file.field("farewell_sp"),
                    file.field("farewell_tls"),
                )
                self._examine(farewell, lambda: file.field("farewell") == FAREWELL_TAKEN)
        except (LeakscopeError, OSError):
            pass  # it died while it waited
        finally:
            done.set()
            with self._lock:
                del self._sealed[file]
            with contextlib.suppress(LeakscopeError):
                file.put("farewell", FAREWELL_DONE)

    def let_go(self) -> None:
        """Let those end that wait for their examination: somebody wants it to be over.

        But not who began to wait just now, since that same wish may have ended it.
        """
        with self._lock:
            now = time.monotonic()
            old = [each for each in self._open if now - self._since[each] > _JUST_NOW_S]
            sealed = [each for each, at in self._sealed.items() if now - at > _JUST_NOW_S]
        for connection in old:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for file in sealed:
            with contextlib.suppress(LeakscopeError):
                file.put("farewell", FAREWELL_DONE)

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                if not select.select([listener], [], [], _BEAT_S / 2)[0]:
                    listener = self._again(listener)
                    continue
                connection, _ = listener.accept()
            except BlockingIOError:
                continue
            except OSError:
                break
            with self._lock:
                self._since[connection] = time.monotonic()
                self._open[connection] = time.monotonic() + _LIMIT_S
            threading.Thread(target=self._meet, args=(connection,), daemon=True).start()
        listener.close()

    def _again(self, listener: socket.socket) -> socket.socket:
        """Make the socket anew where a process that waited in vain has removed it."""
        if os.path.lexists(self._path) or self._stopping.is_set():
            return listener
        self._miss(_NO_TIME)
        listener.close()
        return self._listen()

    def _beat(self) -> None:
        """Give those who wait a sign of life; let go who has waited long enough."""
        while not self._stopping.wait(_BEAT_S):
            with self._lock:
                waiting = list(self._open.items())
            for connection, until in waiting:
                with contextlib.suppress(OSError):
                    if time.monotonic() > until:
                        connection.shutdown(socket.SHUT_RDWR)
                    else:
                        connection.send(b".")

    def _meet(self, connection: socket.socket) -> None:
        try:
            self._serve(connection)
        except OSError:
            pass  # it died while it waited
        finally:
            with self._lock:
                del self._open[connection], self._since[connection]
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = struct.unpack("iII", peer)
        if uid != os.geteuid() and os.geteuid() != 0:
            return
        farewell = self._read(connection, pid)
        if farewell is None:
            return
        connection.setblocking(False)
        with self._lock:
            self._open[connection] += _limit(pid) - _LIMIT_S
        self._examine(farewell, lambda: _still_waits(connection))

    def _examine(self, farewell: Farewell, still_waits: Callable[[], bool]) -> None:
        with contextlib.suppress(LeakscopeError):
            if not Glance(LiveFile(farewell.path, farewell.pid, 0)).has_blocks:
                return  # there is nothing that could be lost
        brief = _is_brief(farewell)
        if brief and self._brief_s > _BRIEF_S + _BRIEF_SHARE * (time.monotonic() - self._began):
            self._miss("children that lived for a moment, more than there was time to examine")
            return
        began = time.monotonic()
        try:
            self._examine_now(farewell, still_waits)
        finally:
            if brief:
                with self._lock:
                    self._brief_s += time.monotonic() - began

    def _examine_now(self, farewell: Farewell, still_waits: Callable[[], bool]) -> None:
        try:
            with self._examination.begin(farewell) as examine:
                if not self._turns.acquire(timeout=_QUEUE_S):
                    self._miss("too many ended at the same time")
                    return
                try:
                    found = examine()
                finally:
                    self._turns.release()
                if not still_waits():
                    self._miss("they ended, or had waited long enough, before the scan was done")
                elif found is not None:
                    with self._lock:
                        self._found[farewell.path] = found
        except LeakscopeError as error:
            if still_waits():
                with self._lock:
                    self._notes.append(f"process {farewell.pid} was not scanned: {error}")
            else:
                self._miss("they ended, or had waited long enough, before the scan was done")

    def _read(self, connection: socket.socket, pid: int) -> Farewell | None:
        connection.settimeout(_PATIENCE_S)
        message = b""
        while message.count(b"\0") < _PARTS:
            part = connection.recv(_MESSAGE)
            if not part or len(message) > _MESSAGE:
                return None
            message += part
        name, *numbers = message.split(b"\0")[:_PARTS]
        # A process in another mount namespace may call our directory something else.
        path = self._directory / Path(os.fsdecode(name)).name
        try:
            *values, crowd = (int(number, 16) for number in numbers)
        except ValueError:
            return None
        if pid <= 0 or not path.name.endswith(".live"):
            return None
        try:  # nobody speaks for the recording of another
            if find_writer(pid, own_namespace(), path.lstat()) != pid:
                return None
        except OSError:
            return None
        if crowd:
            self._miss("they died while other threads worked on, and this kernel cannot hold those")
            return None
        return Farewell(pid, path, *values)

    def _miss(self, reason: str) -> None:
        with self._lock:
            self._missed[reason] = self._missed.get(reason, 0) + 1


def _is_brief(farewell: Farewell) -> bool:
    """Whether it is a child that was forked a moment ago."""
    file = LiveFile(farewell.path, farewell.pid, 0)
    try:
        lived = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - file.field("mono_start_ns")
        return bool(file.field("forked_from")) and lived < _BRIEF_NS
    except LeakscopeError:
        return False


def _limit(pid: int) -> float:
    """Return the seconds that a process may wait in all."""
    return min(_LIMIT_S + read_resident(pid) / _LIMIT_BYTES, _LONGEST_S)


def _still_waits(connection: socket.socket) -> bool:
    """Whether the process neither went on nor was let go: its memory is as it was."""
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _beat_sealed(file: LiveFile, done: threading.Event, until: float) -> None:
    """Show that we are at work; without this the process soon goes on to end."""
    beat = 0
    while not done.wait(_SEALED_BEAT_S) and time.monotonic() < until:
        beat += 1
        with contextlib.suppress(LeakscopeError):
            file.put("farewell_beat", beat)


def with_reachability(recording: Recording, examined: Recording) -> Recording:
    """Return `recording` with what `examined`, a moment earlier, said about the same blocks.

    Blocks that did not exist then, or were replaced since, are `Reachability.UNKNOWN`.
    """
    from dataclasses import replace

    if examined.reachability is None:
        return recording
    kinds = np.full(len(recording.blocks), int(Reachability.UNKNOWN), np.uint8)
    before = examined.blocks
    if len(before) and len(kinds):
        at = np.searchsorted(before["address"], recording.blocks["address"]).clip(
            max=len(before) - 1
        )
        same = np.ones(len(kinds), dtype=bool)
        for name in ("address", "site", "birth_ns"):
            same &= before[name][at] == recording.blocks[name]
        kinds[same] = examined.reachability[at[same]]
    found = replace(as_in(recording, examined), reachability=kinds, scan=examined.scan)
    # What the scan found beside the recording's blocks.
    still = recording.blocks["address"][kinds != Reachability.FREED]
    beside = (before["site"] == 0) & ~np.isin(before["address"], still)
    rows = before[beside]
    unseen = with_unseen(found, rows["address"], rows["size"], examined.reachability[beside])
    return without_freed(unseen)
