# SPDX-License-Identifier: Apache-2.0
"""Meet traced processes right before they end, while their memory is still there.

The agent in a process connects to a socket of ours and waits: one byte says that the job was
taken on, closing the connection lets the process end. When leakscope dies, the connection
closes with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leakscope.errors import LeakscopeError
from leakscope.model.reachability import Reachability
from leakscope.recording._layout import FAREWELL_DONE, FAREWELL_TAKEN, FAREWELL_WAITS
from leakscope.trace.live_files import LiveFile, list_live_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from leakscope.model.recordings import Recording

    Examine = Callable[["Farewell"], Recording | None]

__all__ = ["Farewell", "Farewells", "with_reachability"]

_MESSAGE = 1024  # bytes: the recording's path and the numbers of a Farewell
_PARTS = 4  # each ends with a zero byte
_PATIENCE_S = 5.0  # for the message: it is sent right after the connection
_AT_ONCE = 2  # scans; each holds a copy of a table of blocks
_LOOK_S = 0.02
_BEAT_S = 0.1
_LONGEST = 107  # bytes of a socket's path


@dataclass(frozen=True, slots=True)
class Farewell:
    """A process that is about to end."""

    pid: int
    path: Path  # its live recording
    tid: int  # the thread that ends it
    stack_end: int  # where that thread's stack ends; 0: at its stack pointer
    signal_stack: int  # its alternate signal stack, which the kernel alone may know of


class Farewells:
    """A socket, and what `examine` found out about the processes that came to it.

    `examine` returns the recording of such a process with the reachability of its blocks, or
    None when it would not look.
    """

    def __init__(self, directory: Path, examine: Examine) -> None:
        self._directory, self._examine = directory, examine
        self._home: Path | None = None
        self._socket: socket.socket | None = None
        self._turns = threading.Semaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._found: dict[Path, Recording] = {}
        self._stopped = threading.Event()
        self._open = 0
        self.notes: list[str] = []

    def start(self) -> str | None:
        """Listen; return the socket's path for LEAKSCOPE_SCAN, None when that is not possible."""
        try:
            self._home = Path(tempfile.mkdtemp(prefix="leakscope-"))
            path = os.fspath(self._home / "scan")
            if len(os.fsencode(path)) > _LONGEST:
                self._home.rmdir()
                self._home = Path(tempfile.mkdtemp(prefix="leakscope-", dir="/tmp"))
                path = os.fspath(self._home / "scan")
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.bind(path)
            self._socket.listen(64)
        except OSError as error:
            self.notes.append(f"no reachability scan: no socket could be made ({error.strerror})")
            self.stop()
            return None
        # A signal for us must find the thread that waits for it, never one of these.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()
            threading.Thread(target=self._look, daemon=True).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return path

    def stop(self) -> None:
        """Close the socket; processes that end later are not met."""
        self._stopped.set()
        if self._socket is not None:
            # Closing alone does not wake the thread that accepts.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def take(self, path: Path) -> Recording | None:
        """Return, once, what was found out about the process with this live recording."""
        with self._lock:
            return self._found.pop(path, None)

    def busy(self) -> bool:
        """Whether a process waits for its examination to end."""
        with self._lock:
            return self._open > 0

    def _look(self) -> None:
        """Meet those that may make no system call: they wait for a word of their recording."""
        while not self._stopped.wait(_LOOK_S):
            with contextlib.suppress(LeakscopeError):
                for file in list_live_files(self._directory):
                    with contextlib.suppress(LeakscopeError):
                        if file.started() and file.field("farewell") == FAREWELL_WAITS:
                            file.put("farewell", FAREWELL_TAKEN)
                            with self._lock:
                                self._open += 1
                            threading.Thread(
                                target=self._meet_sealed, args=(file,), daemon=True
                            ).start()

    def _meet_sealed(self, file: LiveFile) -> None:
        done = threading.Event()
        beating = threading.Thread(target=_beat, args=(file, done), daemon=True)
        beating.start()
        try:
            self._judge(
                Farewell(
                    file.pid,
                    file.path,
                    file.field("farewell_tid") or file.pid,
                    file.field("farewell_stack_end"),
                    0,
                )
            )
        except LeakscopeError:
            pass  # it died while it waited
        finally:
            done.set()
            beating.join()
            with contextlib.suppress(LeakscopeError):
                file.put("farewell", FAREWELL_DONE)
            with self._lock:
                self._open -= 1

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open += 1
            threading.Thread(target=self._meet, args=(connection,), daemon=True).start()

    def _meet(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._serve(connection)
        except OSError:
            pass  # it died while it waited
        finally:
            with self._lock:
                self._open -= 1

    def _serve(self, connection: socket.socket) -> None:
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = struct.unpack("iII", peer)
        if uid != os.geteuid() and os.geteuid() != 0:
            return
        connection.settimeout(_PATIENCE_S)
        message = b""
        while message.count(b"\0") < _PARTS:
            part = connection.recv(_MESSAGE)
            if not part or len(message) > _MESSAGE:
                return
            message += part
        name, *numbers = message.split(b"\0")[:_PARTS]
        # A process in another mount namespace may call our directory something else.
        path = self._directory / Path(os.fsdecode(name)).name
        try:
            farewell = Farewell(pid, path, *(int(number, 16) for number in numbers))
        except ValueError:
            return
        if pid <= 0 or not path.name.endswith(".live"):
            return
        connection.sendall(b"a")
        self._judge(farewell)

    def _judge(self, farewell: Farewell) -> None:
        with self._turns:
            try:
                found = self._examine(farewell)
            except LeakscopeError as error:
                self.notes.append(f"process {farewell.pid} was not scanned: {error}")
                return
        if found is not None:
            with self._lock:
                self._found[farewell.path] = found


def _beat(file: LiveFile, done: threading.Event) -> None:
    """Show that we are at work; without this the process goes on to end after two seconds."""
    beat = 0
    while not done.wait(_BEAT_S):
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
    return replace(recording, reachability=kinds, scan=examined.scan)
